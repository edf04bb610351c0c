import dataclasses
import sys
import types
from typing import Any

import jax
import numpy as np
import optax
import pytest

from vitjax import runs
from vitjax.data import feed
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment, to_json
from vitjax.experiment.distill import Distill
from vitjax.experiment.optim import Optim
from vitjax.models import CaiT, PatchConvNet, ViT
from vitjax.training import resolve, trainer

TINY = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10),
    data=Source('digits'),
    augment=Augment(size=8),
    batch_size=64,
    epochs=2.5,
    evaluate_every=0.5,
    parallel='none',
)


def test_a_trainer_has_the_experiment_resolved():
    made = trainer.make(TINY)
    assert (made.per_epoch, made.total, made.every) == (20, 50, 10)
    assert made.params is None and len(made.data) == 1294
    assert made.experiment.classes == tuple('0123456789')
    prepared = made.experiment.preprocessing
    assert prepared.size == 8 and prepared.crop == 1.0
    assert prepared.grey  # as every image of digits is
    pixels = made.data.images / 255
    np.testing.assert_allclose(prepared.mean, pixels.mean((0, 1, 2)), atol=1e-5)
    undone = to_json(made.experiment) | {'preprocessing': None, 'classes': []}
    assert undone == to_json(TINY)


def test_an_optimizer_that_was_reloaded_has_a_program_of_its_own(monkeypatch):
    module = types.ModuleType('own_rules')
    monkeypatch.setitem(sys.modules, 'own_rules', module)
    experiment = dataclasses.replace(TINY, optim=Optim(name='own_rules:rule'))
    steps = []
    for _ in range(2):
        vars(module)['rule'] = lambda settings, rate: optax.sgd(rate)
        steps += [trainer.make(experiment).step, trainer.make(experiment).step]
    first, same, second, _ = steps
    assert first == same and first != second  # equal steps share a compiled program


@pytest.mark.slow
def test_where_there_is_no_room_for_copies_images_come_with_the_steps():
    ran = {}
    for memory in (2**20, 2**18):  # of 1,294 images of 192 bytes: of two copies, and of one
        data = Source('digits', memory=memory)
        experiment = dataclasses.replace(TINY, data=data, parallel='pmap')
        made = trainer.make(experiment, devices=jax.devices()[:2])
        chunk = made.feed.take(0, 2)
        ran[memory] = chunk.data[0][0].shape, made.run(made.init(), chunk)[1]
    shapes = [shape for shape, _ in ran.values()]
    assert shapes == [(1294, 8, 8, 3), (feed.STEPS, 64, 8, 8, 3)]
    for name, values in ran[2**20][1].items():
        np.testing.assert_array_equal(values, ran[2**18][1][name])


SMOOTH = dataclasses.replace(TINY.augment, smoothing=0.1)


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'data': None}, '--data.name takes digits, tfds:NAME or folder:PATH'),
        ({'epochs': None}, 'epochs or steps, one of them: epochs=None, steps=None'),
        (
            {'model': TINY.model.clone(num_classes=9)},
            '--model.num-classes 9, digits has 10 classes',
        ),
        ({'loss': 'binary', 'augment': SMOOTH}, 'augment.smoothing must be 0: 0.1'),
    ],
)
def test_what_cannot_be_trained(change, match):
    with pytest.raises(ValueError, match=match):
        trainer.make(dataclasses.replace(TINY, **change))


def test_weights_bring_their_normalisation(tmp_path):
    known = Preprocessing(size=8, crop=0.875, mean=(0.1, 0.2, 0.3), deviation=(0.4, 0.5, 0.6))
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=known), params)
    made = trainer.make(dataclasses.replace(TINY, weights=str(tmp_path / 'run')))
    assert made.experiment.preprocessing == dataclasses.replace(known, crop=1.0, grey=True)
    started = made.init()[0].params
    for a, b in zip(jax.tree.leaves(started), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def coloured(tmp_path, monkeypatch):
    """Digits with one pixel in colour."""
    data = resolve.load_data(Source('digits'), 'train')
    images = data.images.copy()
    images[700, 3, 3] = 0, 1, 0
    monkeypatch.setattr(resolve, 'load_data', lambda *_: dataclasses.replace(data, images=images))


def test_a_run_is_grey_as_its_training_images_are_whatever_it_starts_from(tmp_path, monkeypatch):
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    known = Preprocessing(size=8, grey=True)
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=known), params)
    starts = [{}, {'weights': str(tmp_path / 'run')}, {'preprocessing': known}]
    plans = [trainer.make(dataclasses.replace(TINY, **start)) for start in starts]
    assert [p.experiment.preprocessing.grey for p in plans] == [True, True, True]
    coloured(tmp_path, monkeypatch)
    plans = [trainer.make(dataclasses.replace(TINY, **start)) for start in starts]
    assert [p.experiment.preprocessing.grey for p in plans] == [False, False, False]
    taught = dataclasses.replace(TINY, distill=Distill(teacher=str(tmp_path / 'run')))
    with pytest.raises(ValueError, match='a teacher of grey images cannot teach on images in col'):
        trainer.make(taught)


def test_weights_are_for_their_own_heads(tmp_path):
    """Whose number the shapes of parameters do not tell."""
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=Preprocessing(8)), params)
    other = dataclasses.replace(TINY, weights=str(tmp_path / 'run'))
    changes: list[dict[str, Any]] = [{'num_heads': 4}, {'norm_epsilon': 1e-5}]
    for change in changes:
        (field,) = change
        known = vars(TINY.model)[field]
        message = f'run has {field}={known}, model.{field}={change[field]}'
        with pytest.raises(ValueError, match=message):
            trainer.make(dataclasses.replace(other, model=TINY.model.clone(**change)))


@pytest.mark.slow
def test_an_experiment_may_say_its_preprocessing(tmp_path):
    from vitjax import loop

    given = Preprocessing(size=99, crop=0.8, mean=(0.5, 0.5, 0.5), deviation=(0.2, 0.2, 0.2))
    said = dataclasses.replace(TINY, preprocessing=given)
    made = trainer.make(said)
    assert made.experiment.preprocessing == dataclasses.replace(given, size=8, grey=True)
    known = Preprocessing(size=8, crop=0.9, mean=(0.1, 0.2, 0.3), deviation=(0.4, 0.5, 0.6))
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=known), params)
    made = trainer.make(dataclasses.replace(said, weights=str(tmp_path / 'run')))
    assert made.experiment.preprocessing == dataclasses.replace(known, crop=0.8, grey=True)
    out, short = tmp_path / 'out', dataclasses.replace(said, epochs=None, steps=2)
    loop.train(short, out, quiet=True)
    loop.train(short, out, quiet=True)  # which is finished, and no other configuration
    other = dataclasses.replace(short, preprocessing=dataclasses.replace(given, crop=0.7))
    with pytest.raises(ValueError, match=r'preprocessing.crop: 0.8 -> 0.7'):
        loop.train(other, out, quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    'model',
    [
        ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10),
        ViT(
            patch_size=4, width=16, depth=1, num_heads=2, num_classes=10, pool='mean',
            position='sincos',
        ),
        CaiT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10),
        PatchConvNet(patch_size=4, width=16, depth=1, num_classes=10),
    ],
)  # fmt: skip
def test_training_goes_on_at_a_larger_size(tmp_path, model):
    from vitjax import evaluate, loop

    small = dataclasses.replace(TINY, model=model, epochs=None, steps=2, optim=Optim(peak=3e-3))
    params = model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'small', trainer.make(small).experiment, params)
    weights = str(tmp_path / 'small')
    large = dataclasses.replace(small, augment=Augment(size=16), weights=weights, steps=2)
    made = trainer.make(large)
    resampled = runs.load(weights, image_size=16).params
    started = made.init()[0].params
    for a, b in zip(jax.tree.leaves(started), jax.tree.leaves(resampled), strict=True):
        np.testing.assert_array_equal(a, b)
    if 'position' in started.get('embed', {}):
        assert started['embed']['position']['table'].shape[0] - model.trunk.prefix == 16
    last = loop.train(large, tmp_path / 'large', quiet=True)
    assert np.isfinite(last['loss'])
    experiment, params, _ = runs.load(tmp_path / 'large')
    assert experiment.preprocessing.size == 16
    logits = evaluate.predict(
        experiment.model, params, made.data, experiment.preprocessing, 64, jax.devices()[:1]
    )
    assert logits.shape == (1294, 10)


def test_experiments_that_differ_in_numbers_have_the_same_step():
    made = trainer.make(TINY)
    optim = Optim(peak=1e-4, decay=0.3, warmup=0.2)
    longer = dataclasses.replace(made.experiment, optim=optim, epochs=None, steps=70)
    other = dataclasses.replace(made, experiment=longer)
    assert made.step == other.step and made.abstract()[0] is other.abstract()[0]
    one, two = made.numbers[0], other.numbers[0]
    assert one['optim']['peak'] != two['optim']['peak'] and (one['steps'], two['steps']) == (50, 70)
    deeper = dataclasses.replace(made.experiment, model=made.experiment.model.clone(depth=2))
    assert dataclasses.replace(made, experiment=deeper).step != made.step
    still = dataclasses.replace(made.experiment, optim=Optim(clip=0.0))  # which switches it off
    assert dataclasses.replace(made, experiment=still).step != made.step


def test_numbers_are_the_fields_that_are_declared_so():
    optim = Optim(peak=1, ema=0.0, accumulate=2)  # a whole number for any
    numbers = trainer.make(dataclasses.replace(TINY, optim=optim)).numbers[0]
    assert set(numbers['optim']) == {'peak', 'warmup', 'decay', 'b1', 'b2', 'clip'}
    assert numbers['optim']['peak'].dtype == float and numbers['augment'] == {}


def test_a_trainer_takes_the_chunks_of_its_feed():
    made = trainer.make(TINY, [0, 1], jax.devices()[:1])
    placed = made.init()
    assert [int(state.step) for state in placed] == [0, 0]
    chunk = next(made.chunks(0, feed.Pace(1.0)))
    assert chunk.steps == 1
    placed, metrics = made.run(placed, made.feed.take(0, 3))
    assert metrics['loss'].shape == (3, 2) and np.isfinite(metrics['loss']).all()
    assert [int(s.step) for s in made.layout.fetch(placed)] == [3, 3]
