"""Captures of a whole split against `capture` itself, killed and resumed, refused where unequal."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vitjax import activations, capture, checkpoint
from vitjax.activations.stream import network_order, take_tokens
from vitjax.analysis import similarity
from vitjax.data import preprocess
from vitjax.data.preprocess import Preprocessing
from vitjax.data.sources import Data, Source
from vitjax.experiment import Experiment
from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT

PREPARED = Preprocessing(size=8, crop=0.75, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.3, 0.4))
SHAPE: dict = {'patch_size': 4, 'width': 8, 'depth': 3, 'num_heads': 2, 'num_classes': 3}
VIT = ViT(registers=1, **SHAPE)


def experiment_of(model, seed=0, size=8):
    """A model with random parameters."""
    prepared = Preprocessing(size, 0.75, PREPARED.mean, PREPARED.deviation)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), images)['params']
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32) / 3, shapes)
    return Experiment(model, Source('digits'), preprocessing=prepared), params


def images_of(count, seed=0, size=16):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Data(pixels, rng.integers(0, 3, count).astype(np.int32), ('a', 'b', 'c'))


@pytest.fixture(scope='module')
def vit():
    return experiment_of(VIT)


@pytest.fixture(scope='module')
def data():
    return images_of(21)


def stream_of(model, data, **how):
    return activations.stream(model[0], model[1], data, **how)


def direct(experiment, params, data, keep):
    """What `capture` finds on images that Pillow prepared on the host."""
    prepared = experiment.preprocessing
    x = jnp.asarray(preprocess.normalise(preprocess.squares(data.images, prepared), prepared))
    return capture.capture(experiment.model, params, x, keep=keep)[1]


@pytest.fixture(scope='module')
def found(vit, data):
    return direct(vit[0], vit[1], data, 'blocks|embed|norm')


def read_all(source):
    return source.values(np.arange(source.examples))


def hashes_of(source):
    return source.hashes(np.arange(source.examples)).tolist()


def close(a, b):
    np.testing.assert_allclose(a, b, atol=2e-5)


# Streams


def test_a_stream_is_capture_in_the_order_of_the_network(vit, data, found):
    stream = stream_of(vit, data, keep='norm|blocks|embed', tokens='all', batch_size=8)
    assert stream.names == ['embed', 'blocks[0]', 'blocks[1]', 'blocks[2]', 'norm']
    embed, blocks, norm = read_all(stream)
    close(embed, found['embed'][None])
    close(blocks, found['blocks'])
    close(norm, found['norm'][None])
    rows = np.array([4, 20, 4])
    close(stream.values(rows)[1], found['blocks'][:, rows])


def take(path, value, tokens, model):
    return take_tokens(path, value, tokens, model, size=8)


def test_what_is_taken_of_tokens():
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


def test_what_is_taken_of_class_tokens_features_maps_and_attention():
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


def test_layers_come_in_the_order_of_the_network():
    paths = ['conv_10', 'conv_2', 'norm', 'class_blocks', 'embed', 'head', 'blocks']
    wanted = ['embed', 'conv_2', 'conv_10', 'blocks', 'class_blocks', 'norm', 'head']
    assert sorted(paths, key=network_order) == wanted


def test_a_range_of_layers(vit, data, found):
    stream = stream_of(vit, data, keep='blocks|norm', layers=(1, 2))
    assert stream.names == ['blocks[1]', 'blocks[2]', 'norm']
    assert stream.stacks[0].file == 'blocks.1-2.npy'
    close(read_all(stream)[0], found['blocks'][1:, :, 0])
    with pytest.raises(ValueError, match='layers must be from 0 to 2.*: 1 3 of blocks'):
        stream_of(vit, data, layers=(1, 3))
    with pytest.raises(ValueError, match='matches none of'):
        stream_of(vit, data, keep='block')
    with pytest.raises(ValueError, match="tokens must be one of .*'cls'"):
        stream_of(vit, data, tokens='cls')


# Captures


@pytest.fixture(scope='module')
def captured(vit, data, tmp_path_factory):
    out = tmp_path_factory.mktemp('captures') / 'whole'
    about = {'data': 'noise', 'split': 'test'}
    stream = stream_of(vit, data, keep='blocks|embed', tokens='mean', about=about)
    activations.write(stream, out, batch_size=8)
    return out


def test_a_capture_holds_what_the_stream_says(captured, vit, data, found):
    index = json.loads((captured / 'index.json').read_text())
    assert index['done'] == index['examples'] == 21
    assert (index['data'], index['split'], index['tokens']) == ('noise', 'test', 'mean')
    assert index['dtype'] == 'float32' and index['model']['type'] == 'ViT'
    assert index['weights'] == activations.digest_of(vit[1])
    close(np.load(captured / 'blocks.0-2.npy'), found['blocks'][:, :, 2:].mean(2))
    back = activations.read(captured)
    assert back.names == ['embed', 'blocks[0]', 'blocks[1]', 'blocks[2]']
    np.testing.assert_array_equal(back.labels, data.labels)
    assert activations.select(back, 'blocks').names == back.names[1:]
    some = activations.evenly(back, 3)
    np.testing.assert_array_equal(read_all(some)[1], read_all(back)[1][:, [0, 10, 20]])
    np.testing.assert_array_equal(some.labels, data.labels[[0, 10, 20]])
    with pytest.raises(ValueError, match="'norm' matches none of embed, blocks"):
        activations.select(back, 'norm')
    with pytest.raises(ValueError, match='from 1 to 21: 22'):
        activations.evenly(back, 22)


def test_float16_takes_half_and_says_what_does_not_fit(vit, data, captured, tmp_path):
    stream = stream_of(vit, data, keep='blocks', tokens='mean')
    activations.write(stream, tmp_path / 'half', dtype='float16')
    half, whole = (activations.read(p) for p in (tmp_path / 'half', captured))
    np.testing.assert_allclose(read_all(half)[0], read_all(whole)[1], rtol=1e-3, atol=1e-3)
    experiment, params = vit
    large = {**params, 'embed': jax.tree.map(lambda p: p * 1e6, params['embed'])}
    stream = activations.stream(experiment, large, data)
    with pytest.raises(ValueError, match=r'blocks\[0\] does not fit float16: it reaches'):
        activations.write(stream, tmp_path / 'large', dtype='float16')
    broken = {**params, 'embed': jax.tree.map(lambda p: p * np.nan, params['embed'])}
    stream = activations.stream(experiment, broken, data)
    with pytest.raises(ValueError, match=r'blocks\[0\] has activations that are NaN'):
        activations.write(stream, tmp_path / 'broken')


def test_a_stopped_capture_goes_on_with_the_same_numbers(vit, data, captured, tmp_path):
    stream = stream_of(vit, data, keep='blocks|embed', tokens='mean',
                                about={'data': 'noise', 'split': 'test'})  # fmt: skip
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        activations.write(stream, tmp_path, batch_size=8, report=stop)
    with pytest.raises(ValueError, match='not finished: 16 of 21'):
        activations.read(tmp_path)
    np.load(tmp_path / 'blocks.0-2.npy', mmap_mode='r+')[:, :16] += 1  # is not written again
    activations.write(stream, tmp_path, batch_size=8, report=lambda done, _: seen.append(done))
    assert seen == [8, 16, 21]
    one, other = (read_all(activations.read(p))[1] for p in (tmp_path, captured))
    close(one[:, :16], other[:, :16] + 1)
    np.testing.assert_array_equal(one[:, 16:], other[:, 16:])
    names = sorted(p.name for p in captured.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    index = [(p / 'index.json').read_text() for p in (tmp_path, captured)]
    assert index[0] == index[1]
    before = (tmp_path / 'index.json').stat().st_mtime_ns
    activations.write(stream, tmp_path, report=stop)  # finished: nothing is done
    assert (tmp_path / 'index.json').stat().st_mtime_ns == before


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_activations as t
from vitjax import activations
stream = activations.stream(*t.experiment_of(t.VIT), t.images_of(21), keep='blocks|embed',
    tokens='mean', about={'data': 'noise', 'split': 'test'})
activations.write(stream, sys.argv[2], batch_size=4,
    report=lambda done, _: done == 12 and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_capture_goes_on(vit, data, captured, tmp_path):
    here = str(pathlib.Path(__file__).parent)
    killed = subprocess.run([sys.executable, '-c', KILLED, here, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / 'index.json').read_text())['done'] == 12
    stream = stream_of(vit, data, keep='blocks|embed', tokens='mean',
                                about={'data': 'noise', 'split': 'test'})  # fmt: skip
    activations.write(stream, tmp_path, batch_size=4)
    for one, other in zip(*(read_all(activations.read(p)) for p in (tmp_path, captured)),
                          strict=True):  # fmt: skip
        close(one, other)
    assert (tmp_path / 'index.json').read_text() == (captured / 'index.json').read_text()


def test_another_capture_is_not_overwritten(vit, data, captured, tmp_path):
    copy = shutil.copytree(captured, tmp_path / 'copy')
    other = stream_of(vit, data, keep='blocks|embed', tokens='class')
    with pytest.raises(ValueError, match='holds another capture') as error:
        activations.write(other, copy)
    assert '  tokens: "mean" -> "class"' in str(error.value)
    trained = activations.stream(vit[0], jax.tree.map(lambda p: p + 1, vit[1]), data,
                                 keep='blocks|embed', tokens='mean')  # fmt: skip
    with pytest.raises(ValueError, match='  weights: "'):
        activations.write(trained, copy)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes').write_text('precious')
    with pytest.raises(ValueError, match=r'a capture has an index.json: .*mine has none'):
        activations.write(other, tmp_path / 'mine')
    with pytest.raises(ValueError, match="'float32' or 'float16': 'float64'"):
        activations.write(other, tmp_path / 'new', dtype='float64')


def test_the_disk_is_looked_at_before_the_first_byte(vit, data, monkeypatch, tmp_path):
    stream = stream_of(vit, data, tokens='all')
    needed = 21 * (3 * 6 * 8 * 4 + 12)
    for free, fits in ((needed, False), (needed + 2**19, True)):
        usage = type('Usage', (), {'free': free})
        monkeypatch.setattr(shutil, 'disk_usage', lambda path, usage=usage: usage)
        if fits:
            activations.write(stream, tmp_path / 'out')
            continue
        with pytest.raises(ValueError, match=r'the capture takes 0.0 GB, .* has 0.0 GB free'):
            activations.write(stream, tmp_path / 'out')
        assert not (tmp_path / 'out').exists()


# Side by side


def test_other_images_and_another_order_are_refused(vit, data, captured, tmp_path):
    back = activations.read(captured)
    same = stream_of(vit, data)
    activations.require_same_examples(back, same)
    turned = Data(data.images[::-1], data.labels[::-1], data.classes)
    with pytest.raises(ValueError, match='the order differs'):
        activations.require_same_examples(back, stream_of(vit, turned))
    changed = Data(np.concatenate([data.images[:20], 255 - data.images[20:]]), data.labels, ())
    with pytest.raises(ValueError, match='of different ones'):
        activations.require_same_examples(back, stream_of(vit, changed))
    with pytest.raises(ValueError, match='21 and 20'):
        activations.require_same_examples(back, activations.evenly(same, 20))


def test_a_representation_from_elsewhere(tmp_path, captured):
    rng = np.random.default_rng(0)
    flat, layers = rng.normal(size=(21, 5)), rng.normal(size=(2, 21, 5)).astype(np.float32)
    np.save(tmp_path / 'flat.npy', flat)
    np.save(tmp_path / 'layers.npy', layers)
    one, two = (activations.from_array(tmp_path / n) for n in ('flat.npy', 'layers.npy'))
    assert one.names == ['flat'] and two.names == ['layers[0]', 'layers[1]']
    np.testing.assert_array_equal(read_all(two)[0], layers)
    activations.require_same_examples(one, activations.read(captured))  # only the number is known
    np.save(tmp_path / 'labels.npy', np.arange(21))
    (tmp_path / 'text.npy').write_text('no array')
    with pytest.raises(ValueError, match=r'floats of .*: it is int64 of \[21\]'):
        activations.from_array(tmp_path / 'labels.npy')
    with pytest.raises(ValueError, match='text.npy is not a .npy file of numbers'):
        activations.from_array(tmp_path / 'text.npy')


def test_cka_of_a_stream_is_that_of_its_batches(vit, data, found):
    other = experiment_of(VIT, seed=1)
    stream = stream_of(vit, data, keep='blocks', tokens='all', batch_size=8)
    against = stream_of(other, data, keep='blocks', tokens='all', batch_size=16)
    second = direct(*other, data, 'blocks')['blocks']
    cuts = [slice(0, 9), slice(9, 21)]  # the last 3 are joined to the second 9
    seen = []
    matrix, low, high = activations.cka(
        stream, against, batch_size=9, report=lambda done, _: seen.append(done)
    )
    assert seen == [9, 21]
    wanted = similarity.minibatch_cka(
        (found['blocks'][:, c].reshape(3, -1, 48), second[:, c].reshape(3, -1, 48)) for c in cuts
    )
    close(matrix, wanted)
    assert (low <= high).all()
    close(np.diag(activations.cka(stream, batch_size=21)[0]), 1)
    assert np.isnan(activations.cka(stream, batch_size=21)[1]).all()  # one batch has no interval


def test_tokens_as_samples(vit, data, found):
    stream = stream_of(vit, data, keep='blocks', tokens='patches')
    value = activations.whole(stream, 'token')[0]
    close(value, found['blocks'][:, :, 2:].reshape(3, 21 * 4, 8))
    close(activations.whole(stream)[0], found['blocks'][:, :, 2:].reshape(3, 21, 32))
    matrix, _, _ = activations.cka(stream, batch_size=21, samples='token')
    close(matrix, similarity.cka(value))
    with pytest.raises(ValueError, match='needs tokens: capture patches or all'):
        activations.whole(stream_of(vit, data, tokens='mean'), 'token')
    with pytest.raises(ValueError, match="one of image, token: 'patch'"):
        activations.whole(stream, 'patch')


@pytest.fixture(scope='module')
def run(vit, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'run'
    checkpoint.write_run(out, *vit)
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


def test_what_a_path_stands_for(run, photos, tmp_path):
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
