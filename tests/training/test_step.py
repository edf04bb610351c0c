import dataclasses
import functools
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import normal

from vitjax.data.augment import Augment, augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.loss import binary_cross_entropy, cross_entropy
from vitjax.experiment.optim import Optim, optimizer, trainable
from vitjax.models import CaiT, ViT
from vitjax.models.base import Arithmetic
from vitjax.training import trainer
from vitjax.training.step import Recipe, eval_step, init_state, require_gradients, train_step

MODEL = ViT(patch_size=4, width=16, depth=2, num_heads=2, num_classes=7, dropout=0.1)
VARY = functools.partial(augment, Augment(size=8, flip=0.5), ((0.5,) * 3, (0.25,) * 3), 7)


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    return {
        'image': jnp.asarray(images),
        'label': jnp.arange(8) % 7,
        'index': jnp.arange(8),
    }


def make(optim=Optim(warmup=0.0), steps=20, **more):  # noqa: B008  (frozen)
    tx = optimizer(optim, steps)
    state = init_state(
        jax.random.key(0), model=MODEL, tx=tx, image_shape=(8, 8, 3), ema=bool(optim.ema)
    )
    mask = None if optim.train == '.*' else trainable(state.params, optim.train)
    recipe = Recipe(model=MODEL, tx=tx, augment=VARY, ema=optim.ema, trainable=mask, **more)
    return state, jax.jit(functools.partial(train_step, recipe=recipe))


def distance(a, b):
    return float(optax.tree.norm(optax.tree.sub(a, b)))


def test_cross_entropy_against_its_definition():
    rng = np.random.default_rng(0)
    logits, soft = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), 5)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    want = -(soft * np.log(p)).sum(1).mean()
    got = cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(soft, jnp.float32))
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_binary_cross_entropy_against_its_definition():
    rng = np.random.default_rng(0)
    logits, soft = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), 5) * [1, 0, 1, 1]
    p, present = 1 / (1 + np.exp(-logits)), np.array([1, 0, 1, 1])
    want = -np.log(np.where(present, p, 1 - p)).mean()
    got = binary_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(soft, jnp.float32))
    assert float(got) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_a_batch_can_be_learnt(batch):
    state, step = make(Optim(peak=1e-2, warmup=0.0), 60)
    metrics = {}
    for _ in range(60):
        state, metrics = step(state, batch, jax.random.key(1))
    assert metrics['accuracy'] == 1 and metrics['loss'] < 0.5 and state.step == 60  # ln 7 = 1.95


@pytest.mark.slow
def test_the_step_is_a_pure_function_of_state_batch_and_key(batch):
    state, step = make()
    a, b = (step(state, batch, jax.random.key(1))[0].params for _ in range(2))
    assert distance(a, b) == 0
    assert distance(a, step(state, batch, jax.random.key(2))[0].params) > 0
    later = dataclasses.replace(state, step=jnp.asarray(5))  # other augmentation and dropout
    assert distance(a, step(later, batch, jax.random.key(1))[0].params) > 0


def test_metrics_are_those_of_the_batch(batch):
    state, step = make(Optim(name='sgd', clip=0.0, peak=0.5, end=0.5, warmup=0.0))
    new, metrics = step(state, batch, jax.random.key(1))
    moved = distance(new.params, state.params)
    assert float(metrics['grad_norm']) == pytest.approx(moved / 0.5, rel=1e-4)
    assert 0 <= metrics['accuracy'] <= metrics['top5'] <= 1
    assert metrics['loss'] == pytest.approx(np.log(7), abs=0.5)


def test_ema_is_a_moving_average_of_parameters(batch):
    state, step = make(Optim(peak=1e-2, warmup=0.0, ema=0.8))
    assert distance(state.ema, state.params) == 0
    average = state.params
    for _ in range(3):
        state, _ = step(state, batch, jax.random.key(1))
        average = jax.tree.map(lambda a, p: 0.8 * a + 0.2 * p, average, state.params)
    assert distance(state.ema, average) < 1e-5 < distance(state.ema, state.params)


@pytest.mark.parametrize('ema', [0.9, 1 - 1e-6])
def test_ema_of_parameters_that_stand_still_stands_still(batch, ema):
    state, step = make(Optim(peak=0.0, warmup=0.0, ema=ema))
    for _ in range(5):
        state, _ = step(state, batch, jax.random.key(1))
    assert distance(state.ema, state.params) == 0


@pytest.mark.slow
def test_ema_moves_when_parameters_do(batch):
    """Under accumulation once for each update, as timm has it, not once for each micro-batch."""
    accumulate = 3
    optim = Optim(peak=1e-2, warmup=0.0, ema=0.5, accumulate=accumulate)
    state, step = make(optim, accumulate=accumulate)
    average = state.params
    for i in range(2 * accumulate):
        state, _ = step(state, batch, jax.random.key(i))
        if (i + 1) % accumulate == 0:
            average = jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p, average, state.params)
        assert distance(state.ema, average) < 1e-6
    assert distance(state.ema, state.params) > 1e-4


@pytest.mark.slow
def test_freezing_trains_the_head_alone_and_skips_the_rest_of_the_backward_pass(batch):
    state, step = make(Optim(train='head.*', warmup=0.0))
    new, metrics = step(state, batch, jax.random.key(1))
    assert distance(new.params['head'], state.params['head']) > 0
    assert distance(new.params['blocks'], state.params['blocks']) == 0
    full, _ = make()
    whole: Any = make()[1].lower(full, batch, jax.random.key(1)).compile().cost_analysis()
    part: Any = step.lower(state, batch, jax.random.key(1)).compile().cost_analysis()
    assert part['flops'] < 0.6 * whole['flops']


@pytest.mark.slow
def test_accumulation_equals_one_large_batch(batch):
    # Without augmentation and dropout two halves give the gradient of the whole.
    model = MODEL.clone(dropout=0.0)
    vary = functools.partial(augment, Augment(size=8), ((0.5,) * 3, (0.25,) * 3), 7)
    ends = []
    for accumulate in (1, 2):
        optim = Optim(name='sgd', peak=0.1, end=0.1, warmup=0.0, clip=0.0, accumulate=accumulate)
        tx = optimizer(optim, 4)
        state = init_state(jax.random.key(0), model=model, tx=tx, image_shape=(8, 8, 3))
        recipe = Recipe(model=model, tx=tx, augment=vary)
        step = jax.jit(functools.partial(train_step, recipe=recipe))
        for part in np.split(np.arange(8), accumulate):
            state, _ = step(state, {k: v[part] for k, v in batch.items()}, jax.random.key(0))
        ends.append(state.params)
    assert distance(*ends) < 1e-6


@pytest.mark.slow
def test_bfloat16_computes_in_16_bits_and_keeps_parameters_in_32(batch):
    model = MODEL.clone(dtype='bfloat16', dropout=0.0)
    tx = optimizer(Optim(warmup=0.0), 4)
    state = init_state(jax.random.key(0), model=model, tx=tx, image_shape=(8, 8, 3))
    step = functools.partial(train_step, recipe=Recipe(model=model, tx=tx, augment=VARY))
    new, metrics = jax.jit(step)(state, batch, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(new.params)} == {jnp.dtype('float32')}
    assert metrics['loss'].dtype == jnp.float32 and np.isfinite(metrics['loss'])
    text = jax.jit(step).lower(state, batch, jax.random.key(0)).as_text()
    assert 'bf16' in text


def kernels_gradients(model):
    """Gradients at kernels, as small as each of a batch of 1,024 images has a part in them."""
    images = normal(8, 8, 8, 3)
    soft = jax.nn.one_hot(np.arange(8), model.num_classes)

    @jax.jit
    def run(key):
        params = model.init(key, images[:1])['params']

        def loss(params):
            logits = model.apply({'params': params}, images, train=False)
            return cross_entropy(logits, soft) * 8 / 1024

        return jax.grad(loss)(params)

    grads = jax.tree_util.tree_leaves_with_path(run(jax.random.key(0)))
    return {str(path): g for path, g in grads if 'kernel' in str(path)}


SMALL: Any = {'patch_size': 4, 'width': 16, 'depth': 1, 'num_heads': 2, 'num_classes': 1000}
RECIPES = CaiT(**SMALL, class_depth=1, layer_scale=1e-5), ViT(**SMALL, layer_scale=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('model', RECIPES, ids=lambda model: type(model).__name__)
def test_no_gradient_is_zero_in_a_type_that_trains(model):
    """Of kernels: at the bias of keys, and of mixed logits, the true gradient is zero."""
    refused = []
    for dtype in get_args(Arithmetic):
        try:
            require_gradients(model.clone(dtype=dtype))
        except ValueError:
            refused.append(dtype)
    assert refused == ['float16', 'float64']
    wanted, found = (kernels_gradients(model.clone(dtype=d)) for d in ('float32', 'bfloat16'))
    for path, grad in wanted.items():
        a, b = (np.asarray(g, np.float64).ravel() for g in (grad, found[path]))
        # A channel of 16-bit sums may cancel to 0, 1 of 48 on jax 0.12; underflow takes them all.
        assert (a != 0).any() and ((b == 0) & (a != 0)).mean() < 0.05, path
        assert a @ b > 0.999 * np.linalg.norm(a) * np.linalg.norm(b), path


def test_float16_is_refused_in_training_and_answers_in_inference(batch):
    model = MODEL.clone(dtype='float16')
    tx = optimizer(Optim(), 3)
    state = init_state(jax.random.key(0), model=model, tx=tx, image_shape=(8, 8, 3))
    for given in (model, model.clone(dtype=jnp.float16)):
        with pytest.raises(ValueError, match='float16 is for inference'):
            recipe = Recipe(model=given, tx=tx, augment=VARY)
            train_step(state, batch, jax.random.key(0), recipe)
    experiment = Experiment(model.clone(num_classes=10), Source('digits'), steps=1)
    with pytest.raises(ValueError, match='float16 is for inference'):
        trainer.make(experiment)
    images = normal(4, 8, 8, 3)
    logits, whole = (eval_step(state.params, images, model=m) for m in (model, MODEL))
    np.testing.assert_allclose(logits, whole, atol=2e-3)
