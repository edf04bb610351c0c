import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from vitjax import runs
from vitjax.data import feed
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment, preprocessing
from vitjax.experiment.distill import Distill
from vitjax.experiment.optim import Optim
from vitjax.models import CaiT, PatchConvNet, ViT
from vitjax.training import trainer

TINY = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10),
    data=Source('digits'),
    augment=Augment(size=8),
    batch_size=64,
    epochs=2.5,
    evaluate_every=0.5,
    parallel='none',
)


def test_a_plan_is_the_experiment_resolved():
    plan = trainer.plan(TINY)
    assert (plan.per_epoch, plan.total, plan.every) == (20, 50, 10)
    assert plan.params is None and len(plan.data) == 1294
    assert plan.experiment.classes == tuple('0123456789')
    prepared = plan.experiment.preprocessing
    assert prepared is not None and prepared.size == 8 and prepared.crop == 1.0
    assert prepared.grey  # as every image of digits is
    pixels = plan.data.images / 255
    np.testing.assert_allclose(prepared.mean, pixels.mean((0, 1, 2)), atol=1e-5)
    undone = dataclasses.replace(plan.experiment, preprocessing=None, classes=())
    assert undone == TINY


@pytest.mark.slow
def test_where_there_is_no_room_for_copies_images_come_with_the_steps():
    ran = {}
    for memory in (2**20, 2**18):  # of 1,294 images of 192 bytes: of two copies, and of one
        data = Source('digits', memory=memory)
        plan = trainer.plan(dataclasses.replace(TINY, data=data, parallel='pmap'))
        made = trainer.program(plan, [0], jax.devices()[:2])
        chunk = made.feed.take(0, 2)
        ran[memory] = chunk.data[0].shape, made.run(made.put(made.init()), chunk)[1]
    shapes = [shape for shape, _ in ran.values()]
    assert shapes == [(2, 1294, 8, 8, 3), (2, feed.STEPS, 32, 8, 8, 3)]
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
def test_what_cannot_be_planned(change, match):
    with pytest.raises(ValueError, match=match):
        trainer.plan(dataclasses.replace(TINY, **change))


def test_weights_bring_their_normalisation(tmp_path):
    known = Preprocessing(size=8, crop=0.875, mean=(0.1, 0.2, 0.3), deviation=(0.4, 0.5, 0.6))
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=known), params)
    plan = trainer.plan(dataclasses.replace(TINY, weights=str(tmp_path / 'run')))
    assert plan.experiment.preprocessing == dataclasses.replace(known, crop=1.0, grey=True)
    started = trainer.program(plan, [0], jax.devices()[:1]).init()[0].params
    for a, b in zip(jax.tree.leaves(started), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def coloured(tmp_path, monkeypatch):
    """Digits with one pixel in colour."""
    data = trainer.load_data(Source('digits'), 'train')
    images = data.images.copy()
    images[700, 3, 3] = 0, 1, 0
    monkeypatch.setattr(trainer, 'load_data', lambda *_: dataclasses.replace(data, images=images))


def test_a_run_is_grey_as_its_training_images_are_whatever_it_starts_from(tmp_path, monkeypatch):
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    known = Preprocessing(size=8, grey=True)
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=known), params)
    starts = [{}, {'weights': str(tmp_path / 'run')}, {'preprocessing': known}]
    plans = [trainer.plan(dataclasses.replace(TINY, **start)) for start in starts]
    assert [preprocessing(p.experiment).grey for p in plans] == [True, True, True]
    coloured(tmp_path, monkeypatch)
    plans = [trainer.plan(dataclasses.replace(TINY, **start)) for start in starts]
    assert [preprocessing(p.experiment).grey for p in plans] == [False, False, False]
    taught = dataclasses.replace(TINY, distill=Distill(teacher=str(tmp_path / 'run')))
    with pytest.raises(ValueError, match='a teacher of grey images cannot teach on images in col'):
        trainer.plan(taught)


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
            trainer.plan(dataclasses.replace(other, model=TINY.model.clone(**change)))


@pytest.mark.slow
def test_an_experiment_may_say_its_preprocessing(tmp_path):
    from vitjax import loop

    given = Preprocessing(size=99, crop=0.8, mean=(0.5, 0.5, 0.5), deviation=(0.2, 0.2, 0.2))
    said = dataclasses.replace(TINY, preprocessing=given)
    plan = trainer.plan(said)
    assert plan.experiment.preprocessing == dataclasses.replace(given, size=8, grey=True)
    known = Preprocessing(size=8, crop=0.9, mean=(0.1, 0.2, 0.3), deviation=(0.4, 0.5, 0.6))
    params = TINY.model.init(jax.random.key(3), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'run', dataclasses.replace(TINY, preprocessing=known), params)
    plan = trainer.plan(dataclasses.replace(said, weights=str(tmp_path / 'run')))
    assert plan.experiment.preprocessing == dataclasses.replace(known, crop=0.8, grey=True)
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
    runs.write(tmp_path / 'small', trainer.plan(small).experiment, params)
    weights = str(tmp_path / 'small')
    large = dataclasses.replace(small, augment=Augment(size=16), weights=weights)
    plan = trainer.plan(large)
    resampled = runs.load(weights, image_size=16).params
    started = trainer.program(plan, [0], jax.devices()[:1]).init()[0].params
    for a, b in zip(jax.tree.leaves(started), jax.tree.leaves(resampled), strict=True):
        np.testing.assert_array_equal(a, b)
    if 'position' in started.get('embed', {}):
        assert started['embed']['position']['table'].shape[0] - model.trunk.prefix == 16
    last = loop.train(large, tmp_path / 'large', quiet=True)
    assert np.isfinite(last['loss'])
    experiment, params, _ = runs.load(tmp_path / 'large')
    assert experiment.preprocessing is not None and experiment.preprocessing.size == 16
    logits = evaluate.predict(
        experiment.model, params, plan.data, experiment.preprocessing, 64, jax.devices()[:1]
    )
    assert logits.shape == (1294, 10)


def test_experiments_that_differ_in_numbers_have_the_same_step():
    plan = trainer.plan(TINY)
    step, numbers = trainer.training_step(plan.experiment, 50)
    optim = Optim(peak=1e-4, decay=0.3, warmup=0.2)
    other, others = trainer.training_step(dataclasses.replace(plan.experiment, optim=optim), 70)
    assert step is other and numbers['optim']['peak'] != others['optim']['peak']
    deeper = plan.experiment.model.clone(depth=2)
    changed, _ = trainer.training_step(dataclasses.replace(plan.experiment, model=deeper), 50)
    assert changed is not step


def test_a_program_takes_the_chunks_of_its_feed():
    plan = trainer.plan(TINY)
    run = trainer.program(plan, [0, 1], jax.devices()[:1])
    states = run.init()
    assert [int(state.step) for state in states] == [0, 0]
    state, metrics = run.run(run.put(states), run.feed.take(0, 3))
    assert metrics['loss'].shape == (3, 2) and np.isfinite(metrics['loss']).all()
    assert [int(s.step) for s in run.get(state)] == [3, 3]
