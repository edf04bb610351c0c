import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TINY

from vitjax import runs
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, distill
from vitjax.experiment.distill import Distill
from vitjax.models import ViT
from vitjax.training import trainer


def answers(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 5)), rng.normal(size=(6, 5))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def said(settings, ours, theirs):
    return float(distill.loss(settings, jnp.asarray(ours), jnp.asarray(theirs)))


def test_hard_is_the_cross_entropy_of_the_teachers_class():
    ours, theirs = answers()
    want = -np.log(softmax(ours)[np.arange(6), theirs.argmax(-1)]).mean()
    assert said(Distill(), ours, theirs) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize('heat', [1.0, 3.0])
def test_soft_is_the_divergence_from_the_teachers_answer(heat):
    ours, theirs = answers()
    p, q = softmax(theirs / heat), softmax(ours / heat)
    want = heat**2 * (p * np.log(p / q)).sum(-1).mean()
    settings = Distill(kind='soft', temperature=heat)
    assert said(settings, ours, theirs) == pytest.approx(want, rel=1e-5)
    assert said(settings, theirs, theirs) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_distilled_vit_answers_labels_and_teacher_by_a_head_each():
    model = ViT(patch_size=4, width=12, depth=1, num_heads=2, num_classes=3, pool='distilled')
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params = model.init(jax.random.key(1), images)['params']
    labels, teacher = model.apply({'params': params}, images, method='loss_logits')
    mean: Any = model.apply({'params': params}, images)
    np.testing.assert_allclose((labels + teacher) / 2, mean, atol=1e-6)
    assert np.abs(labels - teacher).max() > 1e-3
    plain = model.clone(pool='class')
    params = plain.init(jax.random.key(1), images)['params']
    one, other = plain.apply({'params': params}, images, method='loss_logits')
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(one, plain.apply({'params': params}, images))


@pytest.mark.slow
def test_a_step_adds_the_teachers_loss(trained_teacher):
    """Against the same step written by hand, of a run's own pixels."""
    teacher, share = trained_teacher, 0.3
    settings = Distill(str(teacher.run), 'soft', share, 2.0)
    still = dataclasses.replace(TINY.augment, shift=0.0)
    model = TINY.model.clone(dropout=0.0, pool='distilled', drop_path=0.0)
    experiment = dataclasses.replace(TINY, model=model, distill=settings, augment=still)
    built = trainer.make(experiment, [0], jax.devices()[:1], report=lambda _: None)
    (state,) = built.init()
    first = jax.tree.map(jnp.copy, state.params)
    _, metrics = built.run((state,), built.feed.take(0, 1))
    rows = built.feed.take(0, 1).rows[0, 0]  # of all examples, which are resident
    prepared = built.experiment.preprocessing
    pixels = built.data.images[rows] / np.float32(255)
    images = (pixels - prepared.mean) / np.array(prepared.deviation)
    theirs = (pixels - teacher.normal[0]) / np.array(teacher.normal[1])
    labels, taught = model.apply({'params': first}, jnp.asarray(images), method='loss_logits')
    answer = teacher.model.apply({'params': teacher.params}, jnp.asarray(theirs, jnp.float32))
    entropy = -np.log(softmax(np.asarray(labels))[np.arange(len(rows)), built.data.labels[rows]])
    want = (1 - share) * entropy.mean() + share * said(settings, taught, answer)
    assert metrics['loss'][0, 0] == pytest.approx(want, rel=1e-4)


def test_a_teacher_has_the_students_classes(trained_teacher):
    experiment = dataclasses.replace(
        TINY, model=TINY.model.clone(num_classes=12), distill=Distill(str(trained_teacher.run))
    )
    with pytest.raises(ValueError, match='has 10, model.num_classes=12'):
        trainer.make(experiment, report=lambda _: None)


@pytest.fixture(scope='module')
def trained_teacher(tmp_path_factory):
    """A run that was never trained, whose pixels were normalised in another way."""
    run, normal = tmp_path_factory.mktemp('teacher') / 'run', ((0.1, 0.2, 0.3), (0.3, 0.4, 0.5))
    model = ViT(patch_size=4, width=8, depth=1, num_heads=2, num_classes=10)
    params = model.init(jax.random.key(5), jnp.zeros((1, 8, 8, 3)))['params']
    prepared = Preprocessing(8, 1.0, *normal)
    experiment = Experiment(model, augment=Augment(8), preprocessing=prepared)
    runs.write(run, experiment, params)
    return SimpleNamespace(run=run, normal=normal, model=model, params=params)
