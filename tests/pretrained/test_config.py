"""Publishers' configurations: read, held against the weights, and what is assumed without them."""

import json
import os
import pathlib
import shlex
import sys
import types
from typing import Any

import command
import convert
import jax
import numpy as np
import published
import pytest
from safetensors.numpy import load_file, save_file
from tiny_vit import TINY, tiny

from vitjax import models, pretrained, runs
from vitjax.data.preprocess import IMAGENET, Preprocessing
from vitjax.experiment import Experiment, to_json
from vitjax.inside.capture import capture
from vitjax.layers.resample import resample_positions
from vitjax.models.base import parameter_shapes
from vitjax.pretrained.config import _of_processor

CURRENT = pathlib.Path(__file__).parents[3] / 'shared' / 'golden_current'
HALF, ZERO, ONE, TWO = ((x, x, x) for x in (0.5, 0.0, 1.0, 2.0))
TIMM: dict[str, Any] = {
    'architecture': 'vit_tiny_patch16_224',
    'num_classes': 1000,
    'global_pool': 'token',
    'pretrained_cfg': {
        'input_size': [3, 224, 224],
        'mean': [0.1, 0.2, 0.3],
        'std': [0.4, 0.5, 0.6],
        'crop_pct': 0.95,
        'interpolation': 'bilinear',
    },
}
HUGGING = {
    'model_type': 'vit',
    'hidden_size': 12,
    'num_hidden_layers': 2,
    'intermediate_size': 48,
    'num_attention_heads': 6,
    'patch_size': 4,
    'image_size': 12,
    'hidden_act': 'gelu',
    'qkv_bias': True,
    'layer_norm_eps': 1e-12,
    'id2label': {str(i): name for i, name in enumerate('cat dog owl emu yak'.split())},
}
PROCESSOR = {
    'image_processor_type': 'ViTImageProcessor',
    'size': {'height': 12, 'width': 12},
    'resample': 2,
    'do_rescale': True,
    'do_normalize': True,
    'image_mean': [0.1, 0.2, 0.3],
    'image_std': [0.4, 0.5, 0.6],
}


def folder(tmp_path, weights, config=None, processor=None):
    """Weights as the hub has them."""
    tmp_path.mkdir(exist_ok=True)
    save_file(weights, tmp_path / 'model.safetensors')
    for name, values in (('config.json', config), ('preprocessor_config.json', processor)):
        if values is not None:
            (tmp_path / name).write_text(json.dumps(values))
    return tmp_path


@pytest.fixture(scope='module')
def vit_tiny(tmp_path_factory):
    weights = published.noise(published.timm_vit(192, 12, 16, 224))
    return folder(tmp_path_factory.mktemp('weights'), weights)


def opened(path, **options):
    """Returns what `load` does, and the kinds of its changes."""
    said = []
    experiment, params = pretrained.load(path, report=said.append, **options)
    return experiment, params, said


def configured(folder, config, processor=None):
    """`opened` with configurations that lie beside the weights for the moment."""
    for name, values in (('config.json', config), ('preprocessor_config.json', processor)):
        (folder / name).unlink(missing_ok=True)
        if values is not None:
            (folder / name).write_text(json.dumps(values))
    try:
        return opened(folder / 'model.safetensors')
    finally:
        for name in ('config.json', 'preprocessor_config.json'):
            (folder / name).unlink(missing_ok=True)


# What is read ----------------------------------------------------------------------------------


def test_timms_configuration_is_read(vit_tiny):
    config = {**TIMM, 'label_names': [f'name {i}' for i in range(1000)]}
    experiment, _, said = configured(vit_tiny, config)
    assert [str(change) for change in said] == ['model: vit_tiny_patch16']
    mean, deviation = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    wanted = Preprocessing(224, 0.95, mean, deviation, 'bilinear')
    assert experiment.preprocessing == wanted
    assert experiment.model == models.named('vit_tiny_patch16')
    assert experiment.classes[3] == 'name 3'


def test_timms_older_configuration_is_read(vit_tiny):
    """Older files have at their top the fields that `pretrained_cfg` has today."""
    of = TIMM['pretrained_cfg']
    older = {'architecture': TIMM['architecture'], 'num_classes': 1000, 'num_features': 192, **of}
    experiment, _, said = configured(vit_tiny, {**older, 'labels': [f'l {i}' for i in range(1000)]})
    assert [str(change) for change in said] == ['model: vit_tiny_patch16']
    mean, deviation = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    assert experiment.preprocessing == Preprocessing(224, 0.95, mean, deviation, 'bilinear')
    assert experiment.classes[3] == 'l 3'
    with pytest.raises(ValueError, match=r'config.json: std.2 must be .*above 0'):
        configured(vit_tiny, {**older, 'std': [0.5, 0.5, 0]})


@pytest.mark.parametrize('architecture', ['deit_tiny_patch16_224', 'vit_tiny_patch16_224.dino'])
def test_the_architecture_decides_between_twins(vit_tiny, architecture):
    config = {**TIMM, 'architecture': architecture}
    experiment, _, said = configured(vit_tiny, config)
    assert str(said[0]) == f'model: {architecture[:-4].rstrip("_.")}'.removesuffix('_224')
    assert experiment.preprocessing.crop == 0.95


def test_heads_that_shapes_do_not_tell_are_read(vit_tiny):
    config = {**TIMM, 'model_args': {'num_heads': 6}}
    experiment, params, said = configured(vit_tiny, config)
    assert [str(change) for change in said] == ['model: vit_tiny_patch16, 6 heads']
    assert experiment.model == models.named('vit_tiny_patch16', num_heads=6)
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    six, three = (
        experiment.model.clone(num_heads=heads).apply({'params': params}, images)
        for heads in (6, 3)
    )
    assert np.abs(np.asarray(six) - np.asarray(three)).max() > 1e-3  # it matters


def test_transformers_configuration_is_read_of_any_size(tmp_path):
    path = folder(tmp_path, published.as_transformers(tiny()), HUGGING, PROCESSOR)
    experiment, _, said = opened(path)
    assert [str(change) for change in said] == ['model: ViT, 6 heads']
    assert experiment.model == TINY.clone(num_heads=6, norm_epsilon=1e-12)
    wanted = Preprocessing(12, 1.0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 'bilinear', squash=True)
    assert experiment.preprocessing == wanted
    assert experiment.classes == ('cat', 'dog', 'owl', 'emu', 'yak')
    runs.write(tmp_path / 'run', experiment, opened(path)[1])
    assert to_json(runs.load(tmp_path / 'run').experiment) == to_json(experiment)
    itself = runs.load(path, report=str).experiment  # of the folder
    assert to_json(itself) == to_json(experiment)


@pytest.mark.parametrize(
    ('processor', 'wanted'),
    [
        ({}, {}),
        ({'size': 12}, {}),
        (
            {
                'size': 12, 'image_processor_type': None,
                'feature_extractor_type': 'ViTFeatureExtractor',
            },
            {},
        ),
        ({'resample': 3}, {'interpolation': 'bicubic'}),
        ({'resample': 1}, {'interpolation': 'lanczos'}),
        ({'resample': None}, {}),  # the library's own is bilinear
        ({'do_normalize': False}, {'mean': ZERO, 'deviation': ONE}),
        ({'image_mean': None}, {'mean': HALF}),
        (
            {'size': {'shortest_edge': 16}, 'do_center_crop': True, 'crop_size': 12},
            {'crop': 0.75, 'squash': False},
        ),
        (
            {
                'image_processor_type': 'BitImageProcessor', 'size': 16,
                'crop_size': {'height': 12, 'width': 12},
            },
            {'crop': 0.75, 'squash': False, 'interpolation': 'bilinear'},
        ),
        (
            {'size': {'height': 16, 'width': 16}, 'do_center_crop': True, 'crop_size': 12},
            {'crop': 0.75},
        ),
    ],
)  # fmt: skip
def test_every_kind_of_processor_is_read(tmp_path, processor, wanted):
    values = {**PROCESSOR, **processor}
    path = folder(tmp_path, published.as_transformers(tiny()), HUGGING, values)
    basis: dict[str, Any] = {
        'crop': 1.0, 'mean': (0.1, 0.2, 0.3), 'deviation': (0.4, 0.5, 0.6),
        'interpolation': 'bilinear', 'squash': True,
    }  # fmt: skip
    assert opened(path)[0].preprocessing == Preprocessing(12, **{**basis, **wanted})


@pytest.mark.parametrize(('size', 'short'), [(224, 256), (518, 592), (12, 17), (299, 342), (7, 16)])
def test_the_crop_gives_the_very_pixels(size, short):
    processor = {**PROCESSOR, 'size': {'shortest_edge': short}, 'crop_size': size}
    found = _of_processor({**processor, 'do_center_crop': True})
    assert (found['size'], int(size / found['prepared']['crop'])) == (size, short)


@pytest.mark.skipif(not CURRENT.exists(), reason='needs ../shared/golden_current')
@pytest.mark.parametrize('name', ['hf_vit_msn', 'hf_vit_mae'])
def test_outputs_are_the_publishers(name):
    experiment, params, _ = opened(CURRENT / name)
    prepared = experiment.preprocessing
    assert (prepared.mean, prepared.deviation) == IMAGENET
    outputs = np.load(CURRENT / name / 'outputs.npz')
    _, found = capture(experiment.model, params, outputs['images'], keep='norm|blocks')
    np.testing.assert_allclose(found['norm'], outputs['last_hidden_state'][:, 0], atol=1e-5)
    np.testing.assert_allclose(found['blocks'][0], outputs['hidden_states.1'], atol=1e-5)


def test_a_repository_of_the_hub_brings_its_configuration(tmp_path, monkeypatch):
    class EntryNotFoundError(OSError):
        pass

    asked = []

    def fetch(repository, name):
        asked.append(name)
        if not (tmp_path / name).exists():
            raise EntryNotFoundError(f'404: {name}')
        return str(tmp_path / name)

    hub = types.SimpleNamespace(hf_hub_download=fetch)
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    folder(tmp_path, published.as_transformers(tiny()), HUGGING, PROCESSOR)
    experiment, _, said = opened('hf-hub:someone/vit')
    assert experiment.model.num_heads == 6 and len(said) == 1
    assert asked == ['model.safetensors', 'config.json', 'preprocessor_config.json']
    (tmp_path / 'preprocessor_config.json').unlink()
    assert [change.what for change in opened('hf-hub:someone/vit')[2]] == ['model', 'assumed']

    def gone(repository, name):
        if name == 'config.json':
            raise OSError('503: the hub is away')
        return fetch(repository, name)

    hub.hf_hub_download = gone  # not knowing is not absence
    with pytest.raises(ValueError, match='hf-hub:someone/vit cannot be fetched: 503'):
        opened('hf-hub:someone/vit')


# What contradicts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'hidden_act': 'relu'}, 'hidden_act must be "gelu" or .*"relu"'),
        ({'qkv_bias': False}, 'qkv_bias must be true.*false'),
        ({'hidden_size': 24}, 'hidden_size must be 12.*24'),
        ({'num_hidden_layers': 3}, 'num_hidden_layers must be 2.*3'),
        ({'intermediate_size': 47}, 'intermediate_size must be 48.*47'),
        ({'patch_size': 8}, 'patch_size must be 4.*8'),
        ({'num_channels': 1}, 'num_channels must be 3.*1'),
        ({'model_type': 'swin'}, 'model_type must be "vit" or .*"swin"'),
        ({'use_swiglu_ffn': True}, 'use_swiglu_ffn must be false.*true'),
        ({'image_size': 16}, 'images of 16x16 pixels have 4x4 patches.*rows for 9'),
        ({'image_size': 14}, 'patch_size must divide the image: .*14x14'),
        ({'num_attention_heads': 5}, 'num_heads must divide width: num_heads=5, width=12'),
        ({'num_attention_heads': 0}, 'num_attention_heads must be a whole number.*: 0'),
        ({'num_attention_heads': '6'}, "num_attention_heads must be a whole number.*: '6'"),
        ({'num_attention_heads': True}, 'num_attention_heads must be a whole number.*: True'),
        ({'layer_norm_eps': 0}, 'layer_norm_eps must be a number, above 0: 0'),
        ({'layer_norm_eps': 'x'}, "layer_norm_eps must be a number, above 0: 'x'"),
        ({'image_size': 'x'}, 'config.json'),
        ({'image_size': {'a': 1}}, 'config.json'),
        ({'id2label': 7}, 'config.json'),
    ],
)
def test_a_contradiction_of_the_weights_or_the_model_is_refused_by_name(tmp_path, change, match):
    config = {**HUGGING, **change}
    path = folder(tmp_path, published.as_transformers(tiny()), config, PROCESSOR)
    with pytest.raises(ValueError, match=match) as error:
        opened(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'global_pool': 'avgmax'}, 'global_pool must be "token" or .*"avgmax"'),
        ({'num_classes': 10}, 'num_classes must be 1000.*10'),
        ({'num_features': 64}, 'num_features must be 192.*64'),
        ({'model_args': {'act_layer': 'relu'}}, 'model_args.act_layer must be "gelu"'),
        ({'model_args': {'qk_norm': True}}, 'model_args.qk_norm must be false'),
        ({'model_args': {'qkv_bias': False}}, 'model_args.qkv_bias must be true'),
        ({'model_args': {'depth': 11}}, 'model_args.depth must be 12.*11'),
        ({'model_args': {'mlp_ratio': 3}}, 'model_args.mlp_ratio must be 4.0.*3'),
        ({'model_args': {'reg_tokens': 4}}, 'model_args.reg_tokens must be 0.*4'),
        ({'model_args': {'rotary': 1}}, 'model_args.rotary=1 is not a setting'),
        ({'pretrained_cfg': {'crop_mode': 'border'}}, 'crop_mode must be "center" or "squash"'),
        ({'pretrained_cfg': {'crop_pct': 1.1}}, 'pretrained_cfg.crop_pct must be .*0.01 to 1: 1.1'),
        ({'pretrained_cfg': {'interpolation': 'nearest'}}, "interpolation must be .*'nearest'"),
        ({'pretrained_cfg': {'mean': [0.5]}}, 'pretrained_cfg.mean must be a list of 3 values'),
        ({'pretrained_cfg': {'std': [0.5, 0.5, 0]}}, 'pretrained_cfg.std.2 must be .*above 0'),
        ({'pretrained_cfg': {'mean': [0.5, 0.5, float('nan')]}}, 'pretrained_cfg.mean.2 must be'),
        ({'pretrained_cfg': {'input_size': [1, 224, 224]}}, 'input_size must be of 3 channels'),
        ({'pretrained_cfg': 5}, 'config.json is not a configuration'),
    ],
)
def test_timms_contradictions_are_refused_by_name(vit_tiny, change, match):
    config = {**TIMM, **change}
    if isinstance(change.get('pretrained_cfg'), dict):
        config['pretrained_cfg'] = {**TIMM['pretrained_cfg'], **change['pretrained_cfg']}
    with pytest.raises(ValueError, match=match) as error:
        configured(vit_tiny, config)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'resample': 0}, "resample must be 'bilinear', 'bicubic' or 'lanczos': 'nearest'"),
        ({'resample': 9}, 'resample must be a number of Pillow'),
        ({'do_resize': False}, 'do_resize must be true: false'),
        ({'do_rescale': False}, 'do_rescale must be true: false'),
        ({'rescale_factor': 1.0}, 'rescale_factor must be 1/255: 1.0'),
        ({'do_pad': True}, 'do_pad must be false'),
        ({'size': {'shortest_edge': 16}}, 'do_center_crop must be true if size has a shortest'),
        ({'size': {'height': 12, 'width': 16}}, 'size must be a square: 12x16'),
        ({'size': {'longest_edge': 16}}, 'size must have a shortest_edge, or a height and a width'),
        ({'crop_size': 16, 'do_center_crop': True}, 'crop_size / size must be'),
        ({'image_std': [0, 1, 1]}, 'image_std.0 must be a number, above 0: 0'),
        ({'image_processor_type': 'Sam', 'image_std': None}, 'image_std must be stated'),
    ],
)
def test_processors_that_vitjax_has_not_are_refused_by_name(tmp_path, change, match):
    values = {**PROCESSOR, **change}
    path = folder(tmp_path, published.as_transformers(tiny()), HUGGING, values)
    with pytest.raises(ValueError, match=match) as error:
        opened(path)
    assert 'preprocessor_config.json' in str(error.value)


def test_configurations_that_are_none(tmp_path):
    path = folder(tmp_path, tiny())
    config = path / 'config.json'
    for text in (b'', b'{', b'[]', b'3', b'\xff\xfe', b'[' * 10_000):
        config.write_bytes(text)
        with pytest.raises(ValueError, match='config.json') as error:
            opened(path)
        assert len(str(error.value).splitlines()) == 1
    config.unlink()
    config.mkdir()
    with pytest.raises(ValueError, match=r'config\.json must be a regular file: it is a directory'):
        opened(path)
    config.rmdir()
    os.mkfifo(config)
    with pytest.raises(ValueError, match=r'config\.json must be a regular file: it is a pipe'):
        opened(path)


# Grids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('grid', [(16, 4), (4, 16), (3, 4)])
def test_the_grid_of_positions_is_the_configurations(tmp_path, grid):
    rows = grid[0] * grid[1]
    shapes = published.timm_vit(12, 2, 4, 12, classes=5) | {'pos_embed': (1, 1 + rows, 12)}
    weights = published.as_transformers(published.noise(shapes))
    config = {**HUGGING, 'image_size': [4 * grid[0], 4 * grid[1]]}
    path = folder(tmp_path, weights, config)
    with pytest.raises(
        ValueError, match=f'images of {4 * grid[0]}x{4 * grid[1]} pixels.*--image-s'
    ):
        opened(path)
    _, params, said = opened(path, image_size=32)
    text = f'position embeddings: {grid[0]}x{grid[1]} -> 8x8 patches, bicubic, not antialiased'
    assert text in map(str, said)
    table = weights['embeddings.position_embeddings'][0]
    wanted = resample_positions(table, grid, (8, 8), prefix=1, antialias=False)
    np.testing.assert_array_equal(params['embed']['position']['table'], wanted)
    # Stated by a user, where no file does.
    (path / 'config.json').unlink()
    stated = pretrained.Stated(num_heads=6, grid=grid)
    _, params, _ = opened(path, image_size=32, stated=stated)
    np.testing.assert_array_equal(params['embed']['position']['table'], wanted)
    wrong = pretrained.Stated(num_heads=6, grid=(5, 5))
    with pytest.raises(ValueError, match=rf'is \[1, {rows + 1}, 12\], must be \[1, 26, 12\]'):
        opened(path, image_size=32, stated=wrong)


def test_resize_keeps_the_grid_that_it_is_told():
    params = pretrained.convert(tiny(), TINY, 12, report=str)
    table = np.random.default_rng(0).normal(size=(65, 12)).astype(np.float32)
    params['embed']['position']['table'] = table
    found = pretrained.resize(params, TINY, 32, grid=(16, 4), report=str)
    wanted = resample_positions(table, (16, 4), (8, 8), prefix=1)
    np.testing.assert_array_equal(found['embed']['position']['table'], wanted)
    params['embed']['position']['table'] = table[:61]
    with pytest.raises(ValueError, match='must be of a square grid: they are 60'):
        pretrained.resize(params, TINY, 32, report=str)


def test_a_run_of_another_grid_is_itself_again(tmp_path):
    model = TINY.clone(position_grid=(16, 4))
    shapes = parameter_shapes(model, 32)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    runs.write(tmp_path / 'run', Experiment(model, preprocessing=Preprocessing(32)), params)
    loaded = runs.load(tmp_path / 'run')
    assert loaded.experiment.model == model
    with pytest.raises(ValueError, match='for 16x4 patches, this image has 8x8'):
        model.apply({'params': loaded.params}, np.zeros((1, 32, 32, 3), np.float32))
    square = runs.load(tmp_path / 'run', image_size=32, report=str)
    assert list(map(str, square.changes)) == [
        'position embeddings: 16x4 -> 8x8 patches, bicubic, antialiased'
    ]
    logits: Any = TINY.apply({'params': square.params}, np.zeros((1, 32, 32, 3), np.float32))
    assert np.shape(logits) == (1, 5)


# What is assumed -------------------------------------------------------------------------------


def test_without_a_configuration_one_line_says_what_is_assumed_and_how_to_state_it(
    vit_tiny, tmp_path, monkeypatch, capsys
):
    weights = tmp_path / 'my vit tiny.safetensors'
    weights.symlink_to(vit_tiny / 'model.safetensors')
    experiment, _, said = opened(weights)
    (line,) = [str(change) for change in said if change.what == 'assumed']
    assert len(line.splitlines()) == 1
    for part in ('mean 0.5, 0.5, 0.5', 'deviation 0.5', 'crop 0.9', 'bicubic', '3 heads', '14x14'):
        assert part in line
    # The command that it recommends, as it is typed.
    python, script, *arguments = shlex.split(line[line.index('python scripts/') :])
    assert (python, script) == ('python', 'scripts/convert.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['convert.py', *arguments])
    with pytest.raises(SystemExit) as stop:
        command.run(convert.main)
    assert not stop.value.code
    assert 'assumed' not in capsys.readouterr().out
    assert to_json(runs.load(tmp_path / 'runs' / 'my vit tiny').experiment) == to_json(experiment)


def test_a_users_statements_override_every_file(vit_tiny):
    stated = pretrained.Stated(
        num_heads=12, mean=ZERO, deviation=TWO, crop=0.5, interpolation='lanczos'
    )
    wanted = Preprocessing(224, 0.5, ZERO, TWO, 'lanczos')
    for config in (None, TIMM):
        if config:
            (vit_tiny / 'config.json').write_text(json.dumps(config))
        experiment, _, _ = opened(vit_tiny, model='vit_tiny_patch16', stated=stated)
        assert experiment.model.num_heads == 12
        assert experiment.preprocessing == wanted
    (vit_tiny / 'config.json').unlink()


def test_a_run_states_everything_itself(vit_tiny, tmp_path):
    experiment, params, _ = opened(vit_tiny, model='vit_tiny_patch16')
    runs.write(tmp_path / 'run', experiment, params)
    with pytest.raises(ValueError, match='a run directory has its num_heads'):
        runs.load(tmp_path / 'run', stated=pretrained.Stated(num_heads=6))


@pytest.mark.parametrize(
    ('name', 'wanted'),
    [
        ('dino_vit_tiny.safetensors', IMAGENET),
        ('vit_tiny_mae.safetensors', IMAGENET),
        ('msn/vit-tiny.safetensors', IMAGENET),
        ('vit_tiny_patch16_224.safetensors', (HALF, HALF)),
    ],
)
def test_weights_of_self_supervised_training_have_imagenets_mean(vit_tiny, tmp_path, name, wanted):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(vit_tiny / 'model.safetensors')
    experiment, _, said = opened(path)
    prepared = experiment.preprocessing
    assert (prepared.mean, prepared.deviation) == wanted
    assert said[-1].what == 'assumed' and f'mean {wanted[0][0]:g}' in str(said[-1])


# Weights that are none -------------------------------------------------------------------------


def test_one_channel_is_said_as_such(tmp_path):
    for weights, shape in (
        (tiny(), (12, 1, 4, 4)),
        (published.as_transformers(tiny()), (12, 1, 4, 4)),
        (published.as_augreg(tiny(), 3), (4, 4, 5, 12)),
    ):
        name = next(name for name in weights if weights[name].ndim == 4)
        weights[name] = np.zeros(shape, np.float32)
        for call in (pretrained.recognise, lambda w: pretrained.convert(w, TINY, 12)):
            with pytest.raises(ValueError, match=r'3 channels: .* is for [15]\.$'):
                call(weights)


def test_a_parameter_of_every_shape_but_its_own_takes_a_few_lines(vit_tiny):
    weights = load_file(vit_tiny / 'model.safetensors')
    weights = {name: value[..., None] for name, value in weights.items()}
    with pytest.raises(ValueError) as error:
        pretrained.convert(weights, models.named('vit_tiny_patch16'), 224)
    lines = str(error.value).splitlines()
    assert len(lines) == 5 and lines[-1] == f'and {len(weights) - 3} more'


def test_the_command_that_states_what_was_assumed_repeats_what_was_given(tmp_path, monkeypatch):
    """A ViT of no published size, of an oblong grid: without these flags it would be refused."""
    weights = published.noise(published.timm_vit(12, 2, 4, 12))
    table = np.zeros((1, 1 + 16, 12), np.float32)
    path = folder(tmp_path / 'w', {**weights, 'pos_embed': table})
    stated = pretrained.Stated(num_heads=6, grid=(2, 8), crop=0.5)
    wanted, _, said = opened(path, stated=stated, image_size=8, num_classes=3)
    (line,) = [str(change) for change in said if change.what == 'assumed']
    options = shlex.split(line.rpartition('convert.py')[2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['convert.py', *options])
    with pytest.raises(SystemExit) as stop:
        command.run(convert.main)
    assert not stop.value.code
    found = runs.load('runs/w', report=lambda change: None).experiment
    assert found.model == wanted.model and found.preprocessing == wanted.preprocessing


def test_heads_that_do_not_divide_the_width_are_refused_by_file(vit_tiny):
    with pytest.raises(ValueError, match='config.json: num_heads must divide width: num_heads=5'):
        configured(vit_tiny, {**TIMM, 'model_args': {'num_heads': 5}})
