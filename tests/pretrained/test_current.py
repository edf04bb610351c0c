"""Current ViTs, as their libraries save them: every published tensor, from names, shapes and files.

All of the published models are needed for the long test; copies of three are here.
"""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from vitjax import models, runs
from vitjax.inside.capture import capture
from vitjax.pretrained import names
from vitjax.pretrained.convert import in_file, match

HERE = pathlib.Path(__file__).parents[1] / 'golden/current'
ALL = pathlib.Path(
    os.environ.get('VITJAX_GOLDEN_CURRENT', HERE.parents[3] / 'shared/golden_current')
)
COPIES = ('dinov3', 'eva02_tiny', 'siglip')
QUERY = 'MultiHeadDotProductAttention_0/query/kernel'
OUTPUTS = ('output', 'logits', 'pooler_output', 'image_embeds')  # of a whole model


def misses(folder):
    """Distances of our tensors from the published ones, of each largest value."""
    loaded = runs.load(folder, report=lambda change: None)
    wanted = dict(np.load(folder / 'outputs.npz'))
    images = wanted.pop('images')
    logits, found = capture(loaded.experiment.model, loaded.params, images, keep='embed|blocks')
    tokens = [found['embed'], *found['blocks']]
    out = {}
    for name, value in wanted.items():
        kind, _, layer = name.partition('.')
        if kind in OUTPUTS:
            got = logits
        elif kind in ('blocks', 'hidden_states'):
            got = tokens[int(layer) + (kind == 'blocks')]
        else:  # tokens after the last norm, which no model of ours gives as they are
            continue
        assert np.shape(got) == value.shape, name
        out[name] = np.abs(got - value).max() / np.abs(value).max()
    assert len(out) >= 3
    return out


@pytest.mark.parametrize('name', COPIES)
def test_every_published_tensor(name):
    assert max(misses(HERE / name).values()) < 2e-6


@pytest.mark.slow
def test_every_published_tensor_of_all_models():
    if not ALL.is_dir():
        pytest.skip(f'the published models are not in {ALL}.')
    found = {folder.name: misses(folder) for folder in sorted(ALL.iterdir())}
    assert len(found) >= 22
    assert {name: each for name, each in found.items() if max(each.values()) >= 2e-6} == {}


@pytest.mark.parametrize(
    ('file', 'fields'),
    [
        (
            'vit_small_patch16_dinov3.safetensors',
            {'rope': 'dinov3', 'pool': 'mean', 'num_heads': 6},
        ),
        ('eva02_tiny_patch14_224.safetensors', {'rope': 'eva02', 'num_heads': 3}),
        ('vit_base_patch16_clip_quickgelu_224.openai.safetensors', {'mlp': 'quick_gelu'}),
        ('vit_base_patch16_rope_mixed_224.naver_in1k.safetensors', {'rope': 'mixed'}),
        ('vit_medium_patch16_rope_reg1_gap_256.safetensors', {'rope': 'eva02', 'num_heads': 8}),
        ('vit_so400m_patch16_siglip_256.safetensors', {'mlp': 'gelu_tanh', 'num_heads': 16}),
        ('aimv2_large_patch14_224.safetensors', {'norm_epsilon': 1e-5, 'num_heads': 8}),
        ('vit_huge_plus_patch16_dinov3.safetensors', {'num_heads': 20}),
    ],
)
def test_timm_s_names_state_what_shapes_do_not(file, fields):
    widths = {'small': 384, 'tiny': 192, 'medium': 512, 'so400m': 1152, 'large': 1024, 'huge': 1280}
    width = next((width for word, width in widths.items() if f'_{word}_' in file), 768)
    got = names.fields(names.architecture(f'weights/{file}'), width)
    assert fields.items() <= got.items()


def test_what_is_computed_otherwise_is_refused_by_name():
    with pytest.raises(ValueError, match='vit_pe_core_base_patch16_224 is computed in a way'):
        names.fields(names.architecture('vit_pe_core_base_patch16_224.fb.safetensors'), 768)
    assert names.architecture('photos/dinov2_small.safetensors') == ''


def test_rotary_embeddings_that_nothing_states_are_asked_for(tmp_path):
    weights = pathlib.Path(HERE / 'eva02_tiny/model.safetensors').read_bytes()
    (tmp_path / 'weights.safetensors').write_bytes(weights)
    stated = runs.pretrained.Stated(num_heads=4)
    with pytest.raises(ValueError, match='no biases of keys.*--rope dinov3 or eva02'):
        runs.load(tmp_path / 'weights.safetensors', stated=stated, report=lambda change: None)
    stated = runs.pretrained.Stated(num_heads=4, rope='eva02')
    loaded = runs.load(tmp_path / 'weights.safetensors', stated=stated, report=lambda change: None)
    assert loaded.experiment.model.rope == 'eva02'


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'teacher.backbone.', 'a/b/', 'visual.trunk.'])
def test_prefixes_of_wrappers_are_taken_off(prefix, tmp_path):
    plain = runs.load(HERE / 'siglip', report=lambda change: None)
    folder = tmp_path / 'wrapped'
    folder.mkdir()
    (folder / 'config.json').write_bytes((HERE / 'siglip/config.json').read_bytes())
    weights = runs.pretrained.read(HERE / 'siglip')
    save_file(
        {prefix + name: value for name, value in weights.items()}, folder / 'model.safetensors'
    )
    wrapped = runs.load(folder, report=lambda change: None)
    assert wrapped.experiment.model == plain.experiment.model


def test_attention_pooling_is_class_attention_that_leaves_its_token_out():
    loaded = runs.load(HERE / 'siglip', report=lambda change: None)
    images = np.load(HERE / 'siglip/outputs.npz')['images']
    _, found = capture(loaded.experiment.model, loaded.params, images, keep='class_blocks.*')
    weights = found['class_blocks/attention/weights']
    assert weights.shape == (1, 2, 4, 1, 25)  # the patches alone
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_files_come_back_from_parameters_to_the_bit():
    """Shared tensors too: SigLIP's keys and values are one."""
    loaded = runs.load(HERE / 'siglip', report=lambda change: None)
    weights = runs.pretrained.read(HERE / 'siglip')
    model, size = loaded.experiment.model, 80
    found, parameters = match(weights, model, size, report=lambda change: None)
    joined = {path: each.join(found.weights) for path, each in parameters.items()}
    back = in_file(parameters, joined)
    assert back.keys() == weights.keys()
    for name, value in back.items():
        np.testing.assert_array_equal(value, weights[name])


def test_big_vision_s_arrays_state_their_heads_and_have_flax_s_gelu(tmp_path):
    """The image tower of a SigLIP, whose text is left out; the very parameters that go in."""
    from vitjax.pretrained.export import tensors
    from vitjax.pretrained.formats import FORMATS

    siglip = runs.load(HERE / 'siglip', report=lambda change: None)
    (format,) = [each for each in FORMATS if each.name == "big_vision's"]
    arrays = tensors(siglip.params, siglip.experiment.model, format)
    arrays = {f'params/img/{name}': value for name, value in arrays.items()}
    assert arrays['params/img/Transformer/encoderblock_0/' + QUERY].shape == (64, 4, 16)
    np.savez(
        tmp_path / 'siglip.npz', **arrays, **{'params/t': np.ones(1), 'params/txt/x': np.ones(2)}
    )
    loaded = runs.load(tmp_path / 'siglip.npz', report=lambda change: None)
    model = loaded.experiment.model
    assert model == siglip.experiment.model.clone(mlp='gelu_tanh')
    jax.tree.map(np.testing.assert_array_equal, loaded.params, siglip.params)


def test_published_models_keep_their_fields():
    assert models.named('vit_base_patch16').rope is None


def test_weights_in_several_files_are_read_by_their_index(tmp_path):
    weights = runs.pretrained.read(HERE / 'dinov3')
    (tmp_path / 'config.json').write_bytes((HERE / 'dinov3/config.json').read_bytes())
    parts: list = [{}, {}]
    for i, (name, value) in enumerate(weights.items()):
        parts[i % 2][name] = value
    files = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]
    index = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    for file, part in zip(files, parts, strict=True):
        save_file(part, tmp_path / file)
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': index}))
    shard = runs.load(tmp_path, report=lambda change: None)
    assert shard.experiment.model.rope == 'dinov3'
    (tmp_path / files[1]).unlink()
    with pytest.raises(ValueError, match=f'names {files[1]}, which is missing'):
        runs.load(tmp_path, report=lambda change: None)
    index['norm.weight'] = '../elsewhere.safetensors'
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': index}))
    with pytest.raises(ValueError, match='must name files beside it'):
        runs.load(tmp_path, report=lambda change: None)
