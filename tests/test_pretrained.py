import pathlib
import sys
import types
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import published
import pytest
from safetensors.numpy import load_file, save_file

from vitjax import checkpoint, models, pretrained
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment

GOLDEN = pathlib.Path(__file__).parent / 'golden'
DINOV2 = pathlib.Path(__file__).parents[2] / 'shared' / 'weights' / 'dinov2_small.safetensors'
SIZES = list(published.every_size())
TINY = models.ViT(patch_size=4, width=12, depth=2, num_heads=3, num_classes=5)


def quiet(line):
    raise AssertionError(f'nothing should have changed: {line}')


def zeros(shapes):
    """Tensors of these shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def noise(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {k: random.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}


def tiny(seed=0):
    return noise(published.timm_vit(12, 2, 4, 12, classes=5), seed)


def shapes_of(model, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)['params']


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Every published size ------------------------------------------------------------------------


@pytest.mark.parametrize('case', SIZES, ids=['-'.join(map(str, case[:3])) for case in SIZES])
def test_every_published_size_is_recognised_and_fits(case):
    name, kind, size, shapes = case
    weights = zeros(shapes)
    if kind == 'timm' and name.startswith(('vit', 'deit')):
        twins = [f'{family}_{name.split("_", 1)[1]}' for family in ('vit', 'deit')]
        if twins[1] in models.NAMES:
            with pytest.raises(
                ValueError, match=f'several models: {", ".join(twins)}; name one with --model'
            ):
                pretrained.recognise(weights)
    assert pretrained.recognise(weights, f'hub/{name}_{size}/model.safetensors') == name
    classes = 21843 if kind == 'augreg' else 0 if 'dinov2' in name else 1000
    model = models.named(name, num_classes=classes)
    _, origins = pretrained.match(weights, model, size, report=quiet)
    used = sum(t.size for origin in origins.values() for layer in origin.tensors for t in layer)
    # Where the class token has no position in the file, a row of zeros is added.
    added = weights['cls_token'].size if kind == 'timm' and 'reg4' in name else 0
    unused = ('pooler', 'mask_token')
    held = sum(t.size for n, t in weights.items() if not any(u in n for u in unused))
    assert used == held + added  # every number once


def test_sizes_cover_the_table():
    assert {case[0] for case in SIZES} == set(models.NAMES) - {'convnet'}


def test_recognise_prefers_a_files_own_name_to_its_folders():
    weights = zeros(published.timm_vit(*published.VIT['tiny'][:2], 16, 224))
    recognise = pretrained.recognise
    assert recognise(weights, 'vit_runs/deit_tiny_patch16_224.safetensors') == 'deit_tiny_patch16'
    assert recognise(weights, 'deit/vit-tiny.safetensors') == 'vit_tiny_patch16'
    with pytest.raises(ValueError, match='several models'):
        recognise(weights, 'davit.safetensors')


def test_unpublished_sizes_and_foreign_names_are_errors():
    with pytest.raises(ValueError, match=r"timm's ViT names, but no published size: depth 2.*12"):
        pretrained.recognise(tiny())
    with pytest.raises(ValueError, match=r'must have names of .*: they have conv1.weight, \.\.\.'):
        pretrained.recognise({'conv1.weight': np.zeros(3)})
    with pytest.raises(ValueError, match='they have nothing'):
        pretrained.recognise({})
    with pytest.raises(ValueError, match='ConvNet'):
        pretrained.convert(tiny(), models.ConvNet(), 150)
    with pytest.raises(ValueError, match="timm's CaiT names.*fit the model"):
        pretrained.convert(tiny(), models.CaiT(4, 12, 2, num_heads=3, num_classes=5), 12)


# The formats agree with each other; timm's is held to golden tensors in test_golden.py ----------


def as_transformers(weights, dinov2=False, newer=False):
    """A timm ViT's tensors under the transformers library's names."""
    out = {}
    attention = '' if newer else 'attention.'
    parts = ('q_proj', 'k_proj', 'v_proj') if newer else ('query', 'key', 'value')
    layers = 'layers' if newer and not dinov2 else 'encoder.layer'
    output = 'o_proj' if newer else 'output.dense'
    names = {
        'norm1': 'norm1' if dinov2 else 'layernorm_before',
        'norm2': 'norm2' if dinov2 else 'layernorm_after',
        'mlp.fc1': 'mlp.fc1' if dinov2 or newer else 'intermediate.dense',
        'mlp.fc2': 'mlp.fc2' if dinov2 or newer else 'output.dense',
        'attn.proj': f'attention.{output}',
    }
    stems = {
        'cls_token': 'embeddings.cls_token',
        'reg_token': 'embeddings.register_tokens',
        'pos_embed': 'embeddings.position_embeddings',
        'patch_embed.proj': 'embeddings.patch_embeddings.projection',
        'norm': 'layernorm',
        'head': 'classifier',
    }
    for name, value in weights.items():
        if name in stems:
            out[stems[name]] = value
            continue
        module, leaf = name.rsplit('.', 1)
        if module in stems:
            out[f'{stems[module]}.{leaf}'] = value
            continue
        _, i, inner = module.split('.', 2)
        layer = f'{layers}.{i}'
        if inner == 'attn.qkv':
            for part, third in zip(parts, np.split(value, 3), strict=True):
                out[f'{layer}.attention.{attention}{part}.{leaf}'] = third
        elif leaf == 'gamma':
            out[f'{layer}.layer_scale{inner[-1]}.lambda1'] = value
        else:
            out[f'{layer}.{names[inner]}.{leaf}'] = value
    return out


def as_augreg(weights, heads):
    out = {
        'cls': weights['cls_token'],
        'embedding/kernel': weights['patch_embed.proj.weight'].transpose(2, 3, 1, 0),
        'embedding/bias': weights['patch_embed.proj.bias'],
        'Transformer/posembed_input/pos_embedding': weights['pos_embed'],
        'Transformer/encoder_norm/scale': weights['norm.weight'],
        'Transformer/encoder_norm/bias': weights['norm.bias'],
        'head/kernel': weights['head.weight'].T,
        'head/bias': weights['head.bias'],
    }
    for i in range(sum(name.endswith('norm1.bias') for name in weights)):
        ours, theirs = f'blocks.{i}', f'Transformer/encoderblock_{i}'
        for norm, number in (('norm1', 0), ('norm2', 2)):
            out[f'{theirs}/LayerNorm_{number}/scale'] = weights[f'{ours}.{norm}.weight']
            out[f'{theirs}/LayerNorm_{number}/bias'] = weights[f'{ours}.{norm}.bias']
        for fc, number in (('fc1', 0), ('fc2', 1)):
            dense = f'{theirs}/MlpBlock_3/Dense_{number}'
            out[f'{dense}/kernel'] = weights[f'{ours}.mlp.{fc}.weight'].T
            out[f'{dense}/bias'] = weights[f'{ours}.mlp.{fc}.bias']
        attention = f'{theirs}/MultiHeadDotProductAttention_1'
        kernels = np.split(weights[f'{ours}.attn.qkv.weight'], 3)
        biases = np.split(weights[f'{ours}.attn.qkv.bias'], 3)
        for part, kernel, bias in zip(('query', 'key', 'value'), kernels, biases, strict=True):
            width = kernel.shape[1]
            out[f'{attention}/{part}/kernel'] = kernel.T.reshape(width, heads, -1)
            out[f'{attention}/{part}/bias'] = bias.reshape(heads, -1)
        kernel = weights[f'{ours}.attn.proj.weight'].T
        out[f'{attention}/out/kernel'] = kernel.reshape(heads, -1, kernel.shape[1])
        out[f'{attention}/out/bias'] = weights[f'{ours}.attn.proj.bias']
    return out


def test_formats_of_one_vit_give_the_same_parameters():
    weights = tiny()
    params = pretrained.convert(weights, TINY, 12, report=quiet)
    assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(
        lambda x: x.dtype, shapes_of(TINY, 12)
    )
    for other in (
        as_transformers(weights),
        as_transformers(weights, newer=True),
        as_augreg(weights, heads=3),
        {f'module.model.{name}': value for name, value in weights.items()},
        {f'vit.{name}': value for name, value in as_transformers(weights).items()},
        weights | {'mask_token': np.zeros(1), 'pooler.dense.bias': np.zeros(12)},
    ):
        assert_equal_trees(pretrained.convert(other, TINY, 12, report=quiet), params)


@pytest.mark.parametrize('registers', [0, 4])
def test_formats_of_one_dinov2_give_the_same_parameters(registers):
    model = TINY.clone(layer_scale=1.0, num_classes=0, registers=registers)
    weights = noise(
        published.timm_vit(12, 2, 4, 12, classes=0, scale=True, registers=registers), seed=1
    )
    params = pretrained.convert(weights, model, 12, report=quiet)
    if registers:  # the other library gives the class token a position too
        position = np.pad(weights['pos_embed'], ((0, 0), (1, 0), (0, 0)))
        weights['pos_embed'] = position
        assert (params['embed']['position']['table'][0] == 0).all()
    for newer in (False, True):
        other = as_transformers(weights, dinov2=True, newer=newer)
        assert_equal_trees(pretrained.convert(other, model, 12, report=quiet), params)


def test_one_linear_output_for_each_class_token():
    weights = noise(published.patchconvnet(16, 2, classes=3, multi=True))
    model = models.PatchConvNet(width=16, depth=2, num_classes=3, class_tokens_per_class=True)
    params = pretrained.convert(weights, model, 32, report=quiet)
    for i in range(3):
        np.testing.assert_array_equal(params['head']['kernel'][i], weights[f'head.{i}.weight'][0])
        assert params['head']['bias'][i] == weights[f'head.{i}.bias'][0]
        np.testing.assert_array_equal(params['class_token'][i], weights['cls_token'][0, i])


def test_vgg_reads_its_features_row_by_row():
    shapes = published.vgg16()
    weights = zeros(shapes)
    channel, row, column = np.mgrid[:512, :7, :7].reshape(3, -1)
    inputs = np.float32(channel * 49 + row * 7 + column)  # PyTorch's order: channels first
    weights['classifier.0.weight'] = np.broadcast_to(inputs, shapes['classifier.0.weight'])
    _, origins = pretrained.match(weights, models.VGG16(), 224, report=quiet)
    kernel = pretrained.assemble(
        origins['dense_1/kernel']._replace(tensors=[[weights['classifier.0.weight'][:2]]])
    )
    row, column, channel = np.mgrid[:7, :7, :512].reshape(3, -1)  # ours: channels last
    np.testing.assert_array_equal(kernel[:, 1], channel * 49 + row * 7 + column)


def test_half_precision_becomes_float32():
    weights = tiny()
    for dtype in (np.float16, ml_dtypes.bfloat16):
        half = {name: value.astype(dtype) for name, value in weights.items()}
        params = pretrained.convert(half, TINY, 12, report=quiet)
        exact = {name: value.astype(np.float32) for name, value in half.items()}
        assert_equal_trees(params, pretrained.convert(exact, TINY, 12, report=quiet))
        assert params['norm']['scale'].dtype == jnp.float32


# Other image sizes, patch sizes and classes ------------------------------------------------------


def test_image_size_resamples_positions_and_says_so(capsys):
    weights = tiny()
    params = pretrained.convert(weights, TINY, 20)
    assert capsys.readouterr().out == (
        'position embeddings: 3x3 -> 5x5 patches, bicubic, antialiased\n'
    )
    same = pretrained.convert(weights, TINY, 12)
    table, old = params['embed']['position']['table'], same['embed']['position']['table']
    assert table.shape == (26, 12)
    np.testing.assert_array_equal(table[0], old[0])  # the class token's
    # The middle cell of 5 lies on the middle cell of 3.
    np.testing.assert_allclose(table[1 + 12], old[1 + 4], atol=1e-5)
    params['embed']['position']['table'] = old
    assert_equal_trees(params, same)


def test_transformers_positions_are_resampled_its_way():
    weights = tiny()
    said = []
    for registers in (0, 4):
        model = TINY.clone(layer_scale=1.0, num_classes=0, registers=registers)
        shapes = published.transformers_dinov2(12, 2, 12, registers=registers, patch=4)
        pretrained.convert(noise(shapes), model, 8, report=said.append)
    pretrained.convert(as_transformers(weights), TINY, 8, report=said.append)
    ways = [
        line.removeprefix('position embeddings: 3x3 -> 2x2 patches, bicubic, ') for line in said
    ]
    assert ways == ['not antialiased', 'antialiased', 'not antialiased']


def test_patch_size_keeps_what_an_enlarged_image_gives(capsys):
    """An image and its enlargement have the same tokens (FlexiViT's aim, exact for enlarging)."""
    weights = tiny()
    big = TINY.clone(patch_size=8)
    params = pretrained.convert(weights, TINY, 12)
    larger = pretrained.convert(weights, big, 24)
    assert capsys.readouterr().out == 'patch kernel: 4 -> 8 pixels, by pseudo-inverse\n'
    patch = jax.random.normal(jax.random.key(0), (5, 4, 4, 3))
    resized = jax.image.resize(patch, (5, 8, 8, 3), 'bilinear')
    kernels = [p['embed']['patch']['projection']['kernel'] for p in (params, larger)]
    np.testing.assert_allclose(
        resized.reshape(5, -1) @ kernels[1], patch.reshape(5, -1) @ kernels[0], atol=1e-4
    )


def test_other_classes_get_a_fresh_head(capsys):
    weights = tiny()
    whole = pretrained.convert(weights, TINY, 12)
    fresh = pretrained.convert(weights, TINY.clone(num_classes=3), 12)
    assert capsys.readouterr().out == 'head: fresh, 3 classes; was 5 classes\n'
    kernel = fresh.pop('head')['output']['kernel']
    assert kernel.shape == (12, 3)
    assert 0 < jnp.abs(kernel).max() < 0.05
    again = pretrained.convert(weights, TINY.clone(num_classes=3), 12, seed=1, report=str)
    assert (again['head']['output']['kernel'] != kernel).all()
    none = pretrained.convert(weights, TINY.clone(num_classes=0), 12)
    assert capsys.readouterr().out == 'head: left out; was 5 classes\n'
    whole.pop('head')
    assert_equal_trees(fresh, whole)
    assert_equal_trees(none, whole)
    headless = {name: value for name, value in weights.items() if 'head' not in name}
    pretrained.convert(headless, TINY, 12)
    assert capsys.readouterr().out == 'head: fresh, 5 classes; was none\n'


def test_other_classes_get_their_own_class_tokens():
    weights = noise(published.patchconvnet(16, 2, classes=3, multi=True))
    model = models.PatchConvNet(width=16, depth=2, num_classes=4, class_tokens_per_class=True)
    said = []
    params = pretrained.convert(weights, model, 32, report=said.append)
    assert said == ['head: fresh, 4 classes; was 3 classes']
    assert params['class_token'].shape == params['head']['kernel'].shape == (4, 16)


def test_resize_of_nothing_is_the_identity():
    params = pretrained.convert(tiny(), TINY, 12, report=quiet)
    assert_equal_trees(pretrained.resize(params, TINY, 12, report=quiet), params)


def test_resize_refuses_another_model_naming_every_parameter():
    params = pretrained.convert(tiny(), TINY, 12, report=quiet)
    with pytest.raises(ValueError) as error:
        pretrained.resize(params, TINY.clone(mlp_ratio=2.0, layer_scale=0.1), 12)
    lines = str(error.value).splitlines()
    assert lines[0].startswith('the parameters cannot be made to fit ViT at 12 pixels')
    assert '- blocks/scale_1/scale [2, 12]' in lines
    assert '  blocks/mlp/hidden/kernel: is [2, 12, 48], must be [2, 12, 24]' in lines
    assert len(lines) == 1 + 2 + 3


# Damage ------------------------------------------------------------------------------------------


def test_all_that_is_wrong_is_named_at_once():
    weights = tiny()
    del weights['blocks.1.norm2.bias'], weights['patch_embed.proj.weight']
    weights['blocks.2.norm1.weight'] = np.ones(12, np.float32)
    weights['dist_token'] = np.ones((1, 1, 12), np.float32)
    weights['pos_embed'] = weights['pos_embed'][:, 1:-1]
    weights['blocks.0.attn.qkv.weight'] = weights['blocks.0.attn.qkv.weight'].T
    weights['norm.weight'] = np.full(12, np.nan, np.float32)
    weights['norm.bias'] = np.full(12, np.inf, np.float32)
    weights['blocks.0.norm1.bias'] = np.ones(12, np.int8)
    with pytest.raises(ValueError) as error:
        pretrained.convert(weights, TINY, 12)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("the weights (timm's ViT names) do not fit the model")
    assert sorted(lines[1:]) == sorted(
        [
            '- blocks.1.norm2.bias [12]',
            '- patch_embed.proj.weight [12, 3, 4, 4]',
            '+ blocks.2.norm1.weight [12]',
            '+ dist_token [1, 1, 12]',
            '  pos_embed: is [1, 8, 12], must be [1, 10, 12]',
            '  blocks.0.attn.qkv.weight: is [12, 36], must be [36, 12]',
            '  norm.weight: holds NaN or infinity',
            '  norm.bias: holds NaN or infinity',
            '  blocks.0.norm1.bias: is int8, must be floating point',
        ]
    )


@pytest.mark.parametrize('kind', ['vit', 'cait', 'patchconvnet'])
def test_any_one_missing_tensor_is_named(kind):
    weights = load_file(GOLDEN / f'{kind}.safetensors')
    small: Any = {'width': 32, 'depth': 3, 'num_classes': 7}
    model = {
        'vit': models.ViT(patch_size=8, num_heads=4, **small),
        'cait': models.CaiT(patch_size=8, num_heads=4, **small),
        'patchconvnet': models.PatchConvNet(**small),
    }[kind]
    size = 64 if kind == 'patchconvnet' else 48
    for name in [n for n in weights if not n.startswith(('blocks.1', 'blocks.2'))]:
        rest = {n: value for n, value in weights.items() if n != name}
        with pytest.raises(ValueError, match=f'\n- {name} '):
            pretrained.match(rest, model, size)


def test_a_missing_position_is_not_a_class_token_without_one():
    weights = tiny()
    weights['pos_embed'] = weights['pos_embed'][:, 1:]  # a square of patches is left
    with pytest.raises(ValueError, match=r'pos_embed: is \[1, 9, 12\], must be \[1, 10, 12\]'):
        pretrained.convert(weights, TINY, 12)


def test_a_damaged_head_is_not_an_absent_one():
    for name in ('head.weight', 'head.bias'):
        weights = tiny()
        del weights[name]
        with pytest.raises(ValueError, match=f'- {name} '):
            pretrained.convert(weights, TINY, 12)


def test_a_tensor_under_two_prefixes_is_an_error():
    weights = tiny()
    with pytest.raises(ValueError, match='cls_token twice, once as module.cls_token'):
        pretrained.convert(weights | {'module.cls_token': weights['cls_token']}, TINY, 12)


def test_impossible_sizes():
    with pytest.raises(ValueError, match='patch_size=4, image is 14x14 pixels'):
        pretrained.convert(tiny(), TINY, 14)
    with pytest.raises(ValueError, match='num_heads=5, width=12'):
        pretrained.convert(tiny(), TINY.clone(num_heads=5), 12)
    with pytest.raises(ValueError, match='published weights have no head/hidden_1'):
        pretrained.convert(tiny(), TINY.clone(head=(8,)), 12)


# Files -------------------------------------------------------------------------------------------


def test_read_safetensors_and_npz(tmp_path):
    weights = tiny()
    weights['norm.bias'] = weights['norm.bias'].astype(ml_dtypes.bfloat16)
    save_file(weights, tmp_path / 'a.safetensors')
    assert_equal_trees(pretrained.read(tmp_path / 'a.safetensors'), weights)
    del weights['norm.bias']
    np.savez(tmp_path / 'a.npz', allow_pickle=False, **weights)
    assert_equal_trees(pretrained.read(str(tmp_path / 'a.npz')), weights)


def write_bad_file(path, kind):
    np.savez(path, a=np.ones(100))
    if kind == 'truncated':
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == 'zip':
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('notes.txt', 'no array')
    elif kind == 'empty zip':
        zipfile.ZipFile(path, 'w').close()
    elif kind == 'pickled':
        np.savez(path, a=np.array([{}], object))
    elif kind == 'npy':
        with path.open('wb') as file:
            np.save(file, np.ones(3))
    elif kind == 'damaged':
        data = bytearray(path.read_bytes())
        data[300:310] = bytes(10)
        path.write_bytes(data)
    elif kind == 'text':
        path.write_text('hello')
    elif kind == 'empty':
        path.write_bytes(b'')


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('truncated', 'is not a whole npz file: it has no directory'),
        ('zip', 'is a zip, not an npz: it holds notes.txt'),
        ('empty zip', 'is a zip, not an npz: it holds nothing'),
        ('pickled', 'is not a whole npz file of plain arrays: .*allow_pickle=False'),
        ('npy', 'is not a whole npz file: it has no directory'),
        ('damaged', 'is not a whole npz file of plain arrays: '),
        ('text', 'is not a whole npz file: it has no directory'),
        ('empty', 'is not a whole npz file: it has no directory'),
    ],
)
def test_bad_npz_files(tmp_path, kind, reason):
    path = tmp_path / 'weights.npz'
    write_bad_file(path, kind)
    with pytest.raises(ValueError, match=f'{path} {reason}') as error:
        pretrained.read(path)
    assert len(str(error.value).splitlines()) <= 2


def test_bad_safetensors_files(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_file(tiny(), path)
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:100], whole[:4], b'', b'\xff' * 100, b'PK' + whole):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f'{path} is not a whole safetensors file') as error:
            pretrained.read(path)
        assert len(str(error.value).splitlines()) == 1


def test_other_files(tmp_path):
    with pytest.raises(ValueError, match=r'there is no weights file .*a\.npz'):
        pretrained.read(tmp_path / 'a.npz')
    with pytest.raises(ValueError, match=r'must be a \.safetensors or \.npz file: weights\.h5'):
        pretrained.read('weights.h5')


def test_pickles_are_refused_with_the_lines_that_convert_them(tmp_path):
    path = tmp_path / 'deit.pth'
    path.write_bytes(b'never opened')
    path.chmod(0)
    with pytest.raises(ValueError) as error:
        pretrained.read(path)
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f'{path} is a pickle')
    assert len(lines) == 3
    assert 'weights_only=True' in lines[1]
    assert 'save_file(' in lines[2]
    assert lines[2].endswith(f'{str(path.with_suffix(".safetensors"))!r})')
    compile('\n'.join(line.strip() for line in lines), 'lines', 'exec')


def test_a_hub_repository_is_fetched_and_read(tmp_path, monkeypatch):
    weights = tiny()
    save_file(weights, tmp_path / 'model.safetensors')
    asked = []

    def fetch(repository, name):
        asked.append((repository, name))
        return str(tmp_path / name)

    monkeypatch.setitem(
        sys.modules, 'huggingface_hub', types.SimpleNamespace(hf_hub_download=fetch)
    )
    assert_equal_trees(pretrained.read('hf-hub:timm/some_vit'), weights)
    assert asked == [('timm/some_vit', 'model.safetensors')]

    def fail(repository, name):
        raise OSError('404\nmore lines')

    monkeypatch.setitem(sys.modules, 'huggingface_hub', types.SimpleNamespace(hf_hub_download=fail))
    with pytest.raises(ValueError, match='^hf-hub:timm/some_vit cannot be fetched: 404$'):
        pretrained.read('hf-hub:timm/some_vit')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ValueError, match=r"needs the hub extra: pip install 'vitjax\[hub\]'"):
        pretrained.read('hf-hub:timm/some_vit')


# One way in --------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def vit_tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'vit_tiny.safetensors'
    save_file(noise(published.timm_vit(*published.VIT['tiny'][:2], 16, 224)), path)
    return path


def test_load_a_file(vit_tiny):
    said = []
    experiment, params = pretrained.load(vit_tiny, report=said.append)
    assert said == ['model: vit_tiny_patch16']
    assert experiment.model == models.named('vit_tiny_patch16')
    assert experiment.preprocessing == Preprocessing(
        224, 0.9, mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)
    )
    assert len(experiment.classes) == 1000
    assert experiment.classes[281] == 'tabby'
    assert sum(x.size for x in jax.tree.leaves(params)) == 5_717_416


def test_load_a_file_as_something_else(vit_tiny):
    said = []
    experiment, params = pretrained.load(
        vit_tiny,
        model='deit_tiny_patch16',
        image_size=384,
        patch_size=32,
        num_classes=10,
        report=said.append,
    )
    assert said == [
        'patch kernel: 16 -> 32 pixels, by pseudo-inverse',
        'position embeddings: 14x14 -> 12x12 patches, bicubic, antialiased',
        'head: fresh, 10 classes; was 1000 classes',
    ]
    assert experiment.model == models.named('deit_tiny_patch16', patch_size=32, num_classes=10)
    assert experiment.preprocessing == Preprocessing(384, 1.0)
    assert experiment.classes == ()
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        lambda x: x.shape, shapes_of(experiment.model, 384)
    )
    with pytest.raises(ValueError, match="no model is named 'deit_tiny'"):
        pretrained.load(vit_tiny, model='deit_tiny')


def test_load_a_run(tmp_path):
    params = pretrained.convert(tiny(), TINY, 12, report=quiet)
    prepared = Preprocessing(12, 1.0)
    run = Experiment(model=TINY, preprocessing=prepared, classes=('a', 'b', 'c', 'd', 'e'))
    checkpoint.write_run(tmp_path / 'run', run, params)
    experiment, loaded = pretrained.load(tmp_path / 'run', report=quiet)
    assert (experiment.model, experiment.preprocessing) == (TINY, prepared)
    assert experiment.classes == run.classes
    assert_equal_trees(loaded, params)

    said = []
    experiment, loaded = pretrained.load(
        tmp_path / 'run', image_size=16, num_classes=2, report=said.append
    )
    assert len(said) == 2
    assert experiment.preprocessing == Preprocessing(16, 1.0)
    assert experiment.augment.size == 16
    assert experiment.classes == ()
    logits: Any = experiment.model.apply({'params': loaded}, jnp.zeros((1, 16, 16, 3)))
    assert logits.shape == (1, 2)
    with pytest.raises(ValueError, match='a run directory knows its model'):
        pretrained.load(tmp_path / 'run', model='vit_tiny_patch16')


def test_preprocessing_of_every_published_family():
    half = (0.5, 0.5, 0.5)
    for name, size, wanted in (
        ('deit_small_patch16', 224, Preprocessing(224, 0.875)),
        ('vit_base_patch16', 224, Preprocessing(224, 0.9, half, half)),
        ('vit_base_patch16', 384, Preprocessing(384, 1.0, half, half)),
        ('vit_small_patch14_reg4_dinov2', 518, Preprocessing(518, 1.0)),
        ('cait_s24', 384, Preprocessing(384, 1.0)),
        ('patchconvnet_s60', 224, Preprocessing(224, 1.0)),
        ('vgg16', 224, Preprocessing(224, 0.875)),
    ):
        assert pretrained.preprocessing(name, size) == wanted, name


@pytest.mark.skipif(not DINOV2.exists(), reason='needs ../shared/weights/dinov2_small.safetensors')
def test_dinov2_as_published():
    experiment, params = pretrained.load(DINOV2, report=str)
    assert experiment.model == models.named('vit_small_patch14_dinov2')
    assert experiment.preprocessing == Preprocessing(518, 1.0)
    assert sum(x.size for x in jax.tree.leaves(params)) == 22_056_192
