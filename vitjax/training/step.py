"""Training step and evaluation step: pure functions of state, batch and key."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vitjax import ops
from vitjax.base.keys import purpose
from vitjax.base.types import Module, Params, PyTree, TrainState
from vitjax.experiment.loss import cross_entropy

Batch = dict[str, jax.Array]  # image [B, H, W, 3] uint8, label [B], index [B]: see `augment`
Metrics = dict[str, jax.Array]


def init_state(
    key: jax.Array, *, model: Module, tx: optax.GradientTransformation,
    image_shape: tuple[int, ...], ema: bool = False, params: PyTree = None,
) -> TrainState:  # fmt: skip
    """The state before the first step.

    Args:
        key: key of the initial weights.
        model: a linen module called as `(images, train)`.
        tx: the optimizer.
        image_shape: height, width and channels.
        ema: keep a moving average of the parameters.
        params: parameters to start from; None draws fresh ones.
    """
    if params is None:
        params = _fresh(model, key, image_shape)
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _fresh(model: Module, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
    return model.init(key, jnp.zeros((1, *image_shape), jnp.float32))['params']


def require_gradients(model: Module) -> None:
    """Refuses to train a model whose gradients its dtype cannot hold.

    float16 ends at 6e-8: (p - y) / batch times a LayerScale of 1e-5 is below, and whole trunks got
    gradients of exactly zero. It would need loss scaling. bfloat16 has float32's range, and
    inference in float16 is fine.

    Args:
        model: any module; one without a `dtype` passes.

    Raises:
        ValueError: if its `dtype` is float16, or float64: parameters and optimizer are float32.
    """
    dtype = getattr(model, 'dtype', None)
    reason = _INFERENCE.get(jnp.dtype(dtype).name) if dtype else None
    if reason:
        raise ValueError(
            f'{jnp.dtype(dtype).name} is for inference: {reason}. '
            'Train with --model.dtype bfloat16, or float32.'
        )


_INFERENCE = {
    'float16': 'small gradients become zero in it without loss scaling',
    'float64': 'parameters train in float32',
}


class Split(NamedTuple):
    """Division of a step over devices, as seen from inside it; the default is one device.

    Attributes:
        axis: name of the mapped axis over devices. Gradients and metrics are averaged over it, and
            each device draws its own dropout. Augmentation does not depend on it.
        slices: equal slices of the batch that the model takes one after the other. Each counts as
            a device of its own for dropout.
        gather: maps sharded parameters to those the model receives.
    """

    axis: str | None = None
    slices: int = 1
    gather: Callable[[Any], Any] = lambda params: params


WHOLE = Split()  # on one device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training step does to a state, a batch and a key.

    Attributes:
        model: a linen module called as `(images, train)`.
        tx: the optimizer.
        augment: `(key, images, labels, index) -> (images, soft labels)`.
        loss: `(logits, soft labels) -> scalar`.
        teacher: `(images, logits) -> scalar`, a second loss on the logits that `Model.loss_logits`
            gives for a teacher; None has none.
        share: weight of the teacher's loss; the labels get 1 - share.
        ema: decay rate of the parameters' moving average.
        accumulate: steps that `tx` accumulates into one update; the average moves when the
            parameters do.
        trainable: tree of booleans like the parameters; None trains all.
        split: division of the step over devices.
    """

    model: Module
    tx: optax.GradientTransformation
    augment: Callable[..., tuple[jax.Array, jax.Array]]
    loss: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy
    teacher: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    share: float = 0.0
    ema: float | jax.Array = 0.0
    accumulate: int = 1
    trainable: PyTree = None
    split: Split = WHOLE


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, recipe: Recipe
) -> tuple[TrainState, Metrics]:
    """One step of training on one batch.

    Args:
        state: state before the step.
        batch: `image`, `label` and `index`, the position in the global batch.
        key: the run's training key, the same at every step: the step is folded in here.
        recipe: what to do with them.

    Returns:
        The state after the step, and `loss`, `accuracy` and `top5` (against the likeliest class of
        the soft label) and `grad_norm`.

    Raises:
        ValueError: for a model in float16, as `require_gradients`.
    """
    require_gradients(recipe.model)
    key = jax.random.fold_in(key, state.step)
    with jax.named_scope('augment'):  # names the cost of operations outside of modules
        examples = batch['image'], batch['label'], batch['index']
        images, soft = recipe.augment(purpose(key, 'augment'), *examples)
    noise = _noise(purpose(key, 'dropout'), recipe.split)
    with ops.entered():
        value, logits, grads = _gradient(recipe, state.params, images, soft, noise)
    ahead = _ahead(logits, soft.argmax(-1, keepdims=True))
    accuracy, top5 = ((ahead < most).mean(dtype=jnp.float32) for most in (1, 5))
    metrics = {'loss': value, 'accuracy': accuracy, 'top5': top5}
    if recipe.split.axis is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), recipe.split.axis)
    metrics['grad_norm'] = optax.tree.norm(grads)
    with jax.named_scope('optimizer'):
        updates, opt_state = recipe.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state, _average(recipe, state, params)), metrics


def _noise(key: jax.Array, split: Split) -> jax.Array:
    """Dropout keys of this device's slices."""
    axis, slices, _ = split
    if axis is None and slices == 1:
        return key[None]
    first = 0 if axis is None else slices * jax.lax.axis_index(axis)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(slices))


def _objective(
    recipe: Recipe, params: Params, images: jax.Array, soft: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Loss and logits of some images."""
    if recipe.trainable is not None:  # no backward pass through what is frozen
        stop = jax.lax.stop_gradient
        params = jax.tree.map(lambda p, t: p if t else stop(p), params, recipe.trainable)
    variables = {'params': recipe.split.gather(params)}
    apply = functools.partial(recipe.model.apply, variables, images, rngs={'dropout': noise})
    if recipe.teacher is None:
        logits = apply(train=True)
        with jax.named_scope('loss'):
            return recipe.loss(logits, soft), logits
    logits, taught = apply(train=True, method='loss_logits')
    value = recipe.teacher(images, taught)
    with jax.named_scope('loss'):
        return (1 - recipe.share) * recipe.loss(logits, soft) + recipe.share * value, logits


def _average(recipe: Recipe, state: TrainState, params: PyTree) -> PyTree:
    """The parameters' moving average after an update; None if the run keeps none."""
    if state.ema is None:
        return None
    # Rounded, `ema` and `1 - ema` do not add up to 1: near 1 a sum of products would shrink.
    average = jax.tree.map(lambda a, p: a + (1 - recipe.ema) * (p - a), state.ema, params)
    if recipe.accumulate > 1:
        moved = (state.step + 1) % recipe.accumulate == 0
        average = jax.tree.map(lambda new, old: jnp.where(moved, new, old), average, state.ema)
    return average


def _gradient(
    recipe: Recipe, params: Params, images: jax.Array, soft: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array, Params]:
    """Loss, logits and gradient of a batch, in as many slices as there are keys of dropout."""
    gradient = jax.value_and_grad(functools.partial(_objective, recipe), has_aux=True)
    if len(noise) == 1:
        (value, logits), grads = gradient(params, images, soft, noise[0])
        return value, logits, grads

    def add(total: PyTree, part: Any) -> tuple[PyTree, jax.Array]:
        (value, logits), grads = gradient(params, *part)
        return jax.tree.map(jnp.add, total, (value, grads)), logits

    parts = [x.reshape(len(noise), -1, *x.shape[1:]) for x in (images, soft)]
    nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    total, logits = jax.lax.scan(add, nothing, (*parts, noise))
    value, grads = jax.tree.map(lambda x: x / len(noise), total)
    return value, logits.reshape(len(images), -1), grads


def _ahead(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Number of classes likelier than the label [B, 1]; all of them for NaN.

    Of equal logits the first is the likelier. XLA's `top_k` would gather a sharded batch.
    """
    right, classes = jnp.take_along_axis(logits, label, -1), jnp.arange(logits.shape[-1])
    behind = (logits < right) | ((logits == right) & (classes >= label))
    return (~behind).sum(-1)


def eval_step(params: Params, images: jax.Array, *, model: Module) -> jax.Array:
    """Logits [B, num_classes] of prepared images [B, H, W, 3]."""
    with ops.entered():
        return model.apply({'params': params}, images, train=False)
