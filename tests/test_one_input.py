"""One photograph, through every command: what reaches the model is the same everywhere."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from helpers import random_params
from PIL import Image

from vitjax import activations, evaluate, loop, runs, views
from vitjax.data import kinds
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.experiment import Experiment
from vitjax.inside.capture import capture
from vitjax.loop import hooks
from vitjax.models import ViT

CLASSES = ('cat', 'dog')
PREPARED = Preprocessing(48, 0.875, mean=(0.4, 0.5, 0.3), deviation=(0.2, 0.3, 0.25))
MODEL = ViT(patch_size=8, width=12, depth=1, num_heads=2, num_classes=2, pool='mean')


class Echo(nn.Module):
    """Its answer is its input."""

    @nn.compact
    def __call__(self, images, train=False):
        return images.reshape(len(images), -1)


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    """A photograph in a folder of classes, twice in each: smooth, textured, not square."""
    y, x = np.mgrid[:130, :190] / 20
    noise = np.random.default_rng(0).normal(0, 12, (130, 190, 3))
    pixels = 128 + 90 * np.stack([np.sin(x * y / 9), np.cos(x), np.sin(y + x)], -1) + noise
    folder = tmp_path_factory.mktemp('photos')
    for name in (*(f'classes/{s}/{c}' for s in ('train', 'validation') for c in CLASSES), 'plain'):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f'{i}.png')
    return folder / 'plain' / '0.png'


@pytest.fixture(scope='module')
def wanted(photo):
    """As timm, DeiT and transformers do it, with Pillow."""
    short = int(48 / 0.875)
    image = Image.open(photo).resize((int(short * 190 / 130), short), Image.Resampling.BICUBIC)
    left, top = round((image.width - 48) / 2), round((image.height - 48) / 2)
    pixels = np.asarray(image.crop((left, top, left + 48, top + 48)), np.float32) / 255
    return (pixels - PREPARED.mean) / PREPARED.deviation


@pytest.fixture(scope='module')
def run(tmp_path_factory, photo):
    out = tmp_path_factory.mktemp('runs') / 'run'
    params = random_params(MODEL, np.zeros((1, 48, 48, 3), np.float32))
    source = Source(f'folder:{photo.parent.parent / "classes"}')
    experiment = Experiment(MODEL, source, preprocessing=PREPARED, classes=CLASSES)
    runs.write(out, experiment, params)
    return out


def same(got, wanted):
    """To rounding of the normalisation: one level of 255 would be 0.013 to 0.02."""
    np.testing.assert_allclose(np.asarray(got).reshape(wanted.shape), wanted, atol=1e-5)


def test_evaluate_and_test_split(photo, wanted):
    source = Source(f'folder:{photo.parent.parent / "classes"}')
    for data in (kinds.load(source, 'test', PREPARED), as_array(photo)):
        logits = evaluate.predict(Echo(), {}, data, PREPARED, 2)
        for row in logits:
            same(row, wanted)


def as_array(photo):
    """The photograph as data that a source has decoded, which the device resizes."""
    pixels = np.asarray(Image.open(photo))[None]
    return Data(pixels, np.zeros(1, np.int32), CLASSES)


@pytest.mark.slow
def test_training_validates_on_it(photo, run, tmp_path, monkeypatch):
    """Validation and test in the loop are `predict` on what the source prepared for the model."""
    seen = []

    def noted(model, params, data, prepared, *rest, **options):
        seen.append((data.prepared, prepared, data.images[np.arange(1)]))
        return np.zeros((len(data), 2), np.float32)

    for module in (loop, hooks):
        monkeypatch.setattr(module, 'predict', noted)
    source = Source(f'folder:{photo.parent.parent / "classes"}', size=64, validation=0.5)
    experiment = Experiment(
        MODEL, source, Augment(size=48), batch_size=2, steps=1, parallel='none', weights=str(run)
    )
    loop.train(experiment, tmp_path / 'run', quiet=True)
    own = dataclasses.replace(PREPARED, crop=1.0)  # a run sees the whole short side
    assert len(seen) == 2 and all(prepared == known == own for known, prepared, _ in seen)
    by_hand = evaluate.preprocess.squares([np.asarray(Image.open(photo))], own)
    for _, _, pixels in seen:
        np.testing.assert_array_equal(pixels, by_hand)


def test_predict(photo, wanted, run):
    loaded = runs.load(run)
    logits = MODEL.apply({'params': loaded.params}, wanted[None].astype(np.float32))
    odds = np.asarray(jax.nn.softmax(logits))[0]  # pyright: ignore[reportArgumentType]
    for image in (photo, np.asarray(Image.open(photo))):
        ((first, second),) = evaluate.classify(loaded, [image], top=2)
        assert {first[0], second[0]} == {'cat', 'dog'}
        assert first[1] == pytest.approx(odds.max(), abs=1e-5)


def test_visualize(photo, wanted, run):
    results = views.forward_pass(runs.load(run), [photo])
    same(results.images[0], wanted)


def test_capture_and_similarity(photo, wanted, run):
    """Both read `activations.of_path`: of a plain folder, a folder of classes and an array."""
    loaded = runs.load(run)
    inputs = wanted[None].astype(np.float32)
    embed = capture(MODEL, loaded.params, inputs, keep='embed')[1]['embed'][0]
    how = {'keep': 'embed', 'tokens': 'all', 'report': print}
    for data in (str(photo.parent), f'folder:{photo.parent.parent / "classes"}'):
        found = activations.of_path(run, data=data, split='test', **how)
        (values,) = found.values(np.arange(2))
        for row in values[0]:
            np.testing.assert_allclose(row, embed, atol=1e-5)
    found = activations.stream(*loaded[:2], as_array(photo), keep='embed', tokens='all')
    np.testing.assert_allclose(found.values(np.arange(1))[0][0, 0], embed, atol=1e-5)
