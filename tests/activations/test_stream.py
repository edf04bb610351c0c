"""Streams from a model against `capture` itself, and from what a path stands for."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from streams import SHAPE, VIT, close, hashes_of, images_of, read_all, stream_of

from vitjax import activations, runs
from vitjax.activations.stream import network_order, take_tokens
from vitjax.data import kinds, preprocess
from vitjax.inside import capture
from vitjax.models import CaiT, ConvNet, PatchConvNet


def test_a_stream_is_capture_in_the_order_of_the_network(vit, data, found):
    stream = stream_of(vit, data, keep='norm|blocks|embed', tokens='all', batch_size=8)
    assert stream.names == ['embed', 'blocks 1', 'blocks 2', 'blocks 3', 'norm']
    embed, blocks, norm = read_all(stream)
    close(embed, found['embed'][None])
    close(blocks, found['blocks'])
    close(norm, found['norm'][None])
    rows = np.array([4, 20, 4])
    close(stream.values(rows)[1], found['blocks'][:, rows])


def take(path, value, tokens, model):
    return take_tokens(path, value, tokens, model, size=8)


def test_tokens_of_a_trunk():
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.normal(size=(3, 2, 6, 8)))  # class token, one register, four patches
    for policy, wanted in {
        'class': tokens[:, :, 0],
        'mean': tokens[:, :, 2:].mean(2),
        'patches': tokens[:, :, 2:],
        'all': tokens,
    }.items():
        np.testing.assert_array_equal(take('blocks', tokens, policy, VIT), wanted)
    patches = tokens[:, :, 2:]  # as CaiT's and PatchConvNet's trunks, and the patch embedding
    cait = CaiT(**SHAPE)
    np.testing.assert_array_equal(take('blocks', patches, 'mean', cait), patches.mean(2))
    np.testing.assert_array_equal(take('embed/patch', patches, 'patches', VIT), patches)
    for model, value in ((cait, patches), (VIT.clone(pool='mean'), tokens[:, :, 1:])):
        with pytest.raises(ValueError, match='blocks of .* has no class token'):
            take('blocks', value, 'class', model)
    pooled = take('blocks', tokens[:, :, 1:], 'mean', VIT.clone(pool='mean'))
    np.testing.assert_array_equal(pooled, patches.mean(2))  # the register is no patch


def test_tokens_of_class_tokens_features_maps_and_attention():
    rng = np.random.default_rng(0)
    several = jnp.asarray(rng.normal(size=(1, 2, 3, 8)))
    column = PatchConvNet(**{**SHAPE, 'num_heads': 1}, class_tokens_per_class=True)
    for policy in activations.TOKENS:
        own = take('class_blocks', several[:, :, :1], policy, CaiT(**SHAPE))
        np.testing.assert_array_equal(own, several[:, :, 0])
        each = take('class_blocks', several, policy, column)
        np.testing.assert_array_equal(each, several.reshape(1, 2, 24))
        np.testing.assert_array_equal(take('norm', several[:, :, 0], policy, VIT), several[:, :, 0])
    maps = jnp.asarray(rng.normal(size=(1, 2, 5, 4, 3)))
    network = ConvNet()
    np.testing.assert_allclose(take('conv_1', maps, 'mean', network), maps.mean((2, 3)), rtol=1e-5)
    assert take('conv_1', maps, 'patches', network).shape == (1, 2, 20, 3)
    with pytest.raises(ValueError, match='conv_1 of ConvNet has no class token'):
        take('conv_1', maps, 'class', network)
    weights = jnp.ones((3, 2, 2, 6, 6))
    assert take('blocks/attention/weights', weights, 'all', VIT) is weights
    with pytest.raises(ValueError, match='attention, not tokens: tokens must be all, not class'):
        take('blocks/attention/weights', weights, 'class', VIT)


def test_tokens_of_heads():
    """They are tokens, whose channels are the heads' side by side."""
    heads = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 6, 2, 4)))
    flat = heads.reshape(3, 2, 6, 8)
    for policy in activations.TOKENS:
        wanted = take('blocks', flat, policy, VIT)
        np.testing.assert_array_equal(take('blocks/attention/heads', heads, policy, VIT), wanted)
    own = take('class_blocks/attention/heads', heads[:, :, :1], 'class', CaiT(**SHAPE))
    np.testing.assert_array_equal(own, flat[:, :, 0])


def test_layers_come_in_the_order_of_the_network():
    paths = ['conv_10', 'conv_2', 'norm', 'class_blocks', 'embed', 'head', 'blocks']
    wanted = ['embed', 'conv_2', 'conv_10', 'blocks', 'class_blocks', 'norm', 'head']
    assert sorted(paths, key=network_order) == wanted


def test_a_range_of_layers(vit, data, found):
    stream = stream_of(vit, data, keep='blocks|norm', layers=(2, 3))
    assert stream.names == ['blocks 2', 'blocks 3', 'norm']
    assert stream.stacks[0].file == 'blocks.1-2.npy'
    close(read_all(stream)[0], found['blocks'][1:, :, 0])
    with pytest.raises(ValueError, match='first and a last one of 1 to 3 at blocks: got 2 4'):
        stream_of(vit, data, layers=(2, 4))
    with pytest.raises(ValueError, match='matches none of'):
        stream_of(vit, data, keep='block')
    with pytest.raises(ValueError, match="tokens must be one of .*'cls'"):
        stream_of(vit, data, tokens='cls')


@pytest.fixture(scope='module')
def run(vit, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'run'
    runs.write(out, *vit)
    return out


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Four photographs of unequal sizes, one of them in portrait, as a folder of two classes."""
    out = tmp_path_factory.mktemp('photos')
    for i, (wide, high) in enumerate([(20, 30), (40, 25), (32, 32), (18, 17)]):
        pixels = images_of(1, i, 40).images[0, :high, :wide]
        for folder in (out / 'plain', out / 'classes' / 'ab'[i // 2]):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f'{i}.png')
    return out


def quiet(path, **how):
    return activations.of_path(path, report=lambda change: None, **how)


def test_sides_open_from_every_kind_of_path(run, photos, tmp_path):
    stream = quiet(run, split='validation')
    assert stream.examples == 144 and stream.about['data'] == 'digits'
    stream = quiet(run, data=str(photos / 'plain'))
    assert stream.examples == 4 and stream.about['split'] == 'all'
    assert stream.labels is not None and (stream.labels == -1).all()
    assert read_all(stream)[0].shape == (3, 4, 8)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'no images .*empty'):
        quiet(run, data=str(tmp_path / 'empty'))
    with pytest.raises(ValueError, match='one of train, validation, test'):
        quiet(run, split='tests')


def test_runs_that_are_compared_hold_one_copy_of_their_images(run, monkeypatch):
    loads, load = [], kinds.load
    monkeypatch.setattr(kinds, 'load', lambda *how: loads.append(how) or load(*how))
    sides = [quiet(run, split='validation', batch_size=8) for _ in range(3)]
    assert len(loads) == 1 and len(sides) == 3
    quiet(run, split='test')
    assert len(loads) == 2


def test_files_come_to_the_model_as_pillow_brings_them(run, photos, vit):
    experiment, params = vit
    files = sorted((photos / 'plain').iterdir())
    x = jnp.asarray(preprocess.load(files, experiment.preprocessing))
    wanted = capture.capture(experiment.model, params, x, keep='blocks')[1]['blocks'][:, :, 0]
    close(read_all(quiet(run, data=str(photos / 'plain')))[0], wanted)
    folder = quiet(run, data=f'folder:{photos / "classes"}', split='train')
    known = hashes_of(quiet(run, data=str(photos / 'plain')))
    chosen = [known.index(value) for value in hashes_of(folder)]
    assert len(set(chosen)) == folder.examples > 1
    close(read_all(folder)[0], wanted[:, chosen])


def test_captures_know_the_same_files_at_any_size_of_the_model(run, photos, tmp_path):
    sizes = {size: quiet(run, data=str(photos / 'plain'), size=size) for size in (8, 12)}
    for size, stream in sizes.items():
        activations.write(stream, tmp_path / str(size))
    small, large = (activations.read(tmp_path / str(size)) for size in sizes)
    activations.require_same_examples(small, large)
    assert np.abs(read_all(small)[0] - read_all(large)[0]).max() > 0.01
