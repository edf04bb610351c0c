"""The training step and the evaluation step: pure functions of state, batch and key."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax import ops
from vitjax.base.keys import purpose
from vitjax.base.types import Module, Params, PyTree, TrainState

Batch = dict[str, jax.Array]  # image [B, H, W, 3] uint8, label [B], index [B]: see `augment`
Metrics = dict[str, jax.Array]


def init_state(
    key: jax.Array, *, model: Module, tx: optax.GradientTransformation,
    image_shape: tuple[int, ...], ema: bool = False, params: PyTree = None,
) -> TrainState:  # fmt: skip
    """The state before the first step.

    Args:
        key: of the initial weights.
        model: a linen module called as `(images, train)`.
        tx: the optimizer.
        image_shape: height, width and channels.
        ema: keep a moving average of the parameters.
        params: start from these instead of fresh ones.
    """
    if params is None:
        params = _fresh(model, key, image_shape)
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _fresh(model: Module, key: jax.Array, image_shape: tuple[int, ...]) -> Any:
    return model.init(key, jnp.zeros((1, *image_shape), jnp.float32))['params']


def require_gradients(model: Module) -> None:
    """Refuses to train a model whose gradients its arithmetic cannot hold.

    float16 ends at 6e-8: (p - y) / batch times a LayerScale of 1e-5 is below, and whole trunks got
    gradients of exactly zero. It needs loss scaling, which there is none of; bfloat16 has float32's
    range. Inference in float16 is right.

    Args:
        model: any module; one without a `dtype` passes.

    Raises:
        ValueError: if its `dtype` is float16, or float64: parameters and optimizer are float32.
    """
    dtype = getattr(model, 'dtype', None)
    if dtype is not None and jnp.dtype(dtype) == 'float64':
        raise ValueError(
            'float64 is for inference: parameters train in float32. '
            'Train with --model.dtype float32, or bfloat16.'
        )
    if dtype is not None and jnp.dtype(dtype) == jnp.float16:
        raise ValueError(
            'float16 is for inference: small gradients become zero in it without loss scaling. '
            'Train with --model.dtype bfloat16, or float32.'
        )


def cross_entropy(logits: jax.Array, soft_labels: jax.Array) -> jax.Array:
    """Mean over the batch of -Σ_k p_k log softmax(logits)_k, in nats, for soft labels [B, K]."""
    return optax.softmax_cross_entropy(logits, soft_labels).mean()


def binary_cross_entropy(logits: jax.Array, soft_labels: jax.Array) -> jax.Array:
    """Mean over batch and classes of a binary cross-entropy for each class, in nats.

    Every class that an image has a share of counts as present in it (Wightman et al. 2021,
    arXiv:2110.00476, section 3.1), as in the published code of PatchConvNet: labels must not be
    smoothed.
    """
    return optax.sigmoid_binary_cross_entropy(logits, soft_labels > 0).mean()


LOSSES = {'cross_entropy': cross_entropy, 'binary': binary_cross_entropy}


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, *, model: Module,
    tx: optax.GradientTransformation, augment: Callable[..., tuple[jax.Array, jax.Array]],
    loss: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy,
    teacher: Callable[[jax.Array, jax.Array], jax.Array] | None = None, share: float = 0.0,
    ema: float = 0.0, accumulate: int = 1, trainable: Any = None, axis: str | None = None,
    slices: int = 1, gather: Callable[[Any], Any] = lambda params: params,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """One step of training on one batch.

    Args:
        state: before the step.
        batch: `image`, `label` and `index`, the position in the global batch.
        key: the run's training key, the same at every step: the step is folded in here.
        model: a linen module called as `(images, train)`.
        tx: the optimizer.
        augment: `(key, images, labels, index) -> (images, soft labels)`.
        loss: `(logits, soft labels) -> scalar`.
        teacher: `(images, logits) -> scalar`, a second loss, of the logits that a model answers a
            teacher with (`Model.answers`); None has none.
        share: of that loss in the whole.
        ema: decay rate of the moving average of parameters.
        accumulate: steps that `tx` gathers into one update of the parameters; the average moves
            when they do.
        trainable: tree of booleans like the parameters; None trains all.
        axis: name of the mapped axis over devices: gradients and metrics are averaged over it, and
            dropout draws other bits on each device. Augmentation does not depend on it.
        slices: equal slices in which the model takes the batch, one after the other: for dropout
            each counts as a device of its own.
        gather: from the parameters to what the model is given for them: where they are split over
            devices, boxes that gather each where it is read.

    Returns:
        The state after it, and `loss`, `accuracy` and `top5` (against the likeliest class of the
        soft label) and `grad_norm`.

    Raises:
        ValueError: for a model in float16, as `require_gradients`.
    """
    require_gradients(model)
    key = jax.random.fold_in(key, state.step)
    seed = purpose(key, 'augment')
    with jax.named_scope('augment'):  # a cost that is not a module's finds its name here
        images, soft = augment(seed, batch['image'], batch['label'], batch['index'])
    noise = purpose(key, 'dropout')[None]
    if axis is not None or slices > 1:
        first = 0 if axis is None else slices * jax.lax.axis_index(axis)
        noise = jax.vmap(jax.random.fold_in, (None, 0))(noise[0], first + jnp.arange(slices))

    def objective(
        params: Params, images: jax.Array, soft: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if trainable is not None:  # no backward pass through what is frozen
            stop = jax.lax.stop_gradient
            params = jax.tree.map(lambda p, t: p if t else stop(p), params, trainable)
        variables = {'params': gather(params)}
        apply = functools.partial(model.apply, variables, images, rngs={'dropout': noise})
        if teacher is None:
            logits = apply(train=True)
            with jax.named_scope('loss'):
                return loss(logits, soft), logits
        logits, taught = apply(train=True, method='answers')
        value = teacher(images, taught)
        with jax.named_scope('loss'):
            return (1 - share) * loss(logits, soft) + share * value, logits

    gradient = jax.value_and_grad(objective, has_aux=True)
    with ops.entered():
        value, logits, grads = _in_slices(gradient, state.params, images, soft, noise)
    ahead = _ahead(logits, soft.argmax(-1, keepdims=True))
    accuracy, top5 = ((ahead < most).mean(dtype=jnp.float32) for most in (1, 5))
    metrics = {'loss': value, 'accuracy': accuracy, 'top5': top5}
    if axis is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis)
    metrics['grad_norm'] = optax.tree.norm(grads)
    with jax.named_scope('optimizer'):
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
    average = state.ema
    if average is not None:
        # Rounded, `ema` and `1 - ema` do not add up to 1: near 1 a sum of products would shrink.
        average = jax.tree.map(lambda a, p: a + (1 - ema) * (p - a), average, params)
        if accumulate > 1:
            moved = (state.step + 1) % accumulate == 0
            average = jax.tree.map(lambda new, old: jnp.where(moved, new, old), average, state.ema)
    return TrainState(state.step + 1, params, opt_state, average), metrics


def _in_slices(
    gradient: Callable[..., Any], params: Params, images: jax.Array, soft: jax.Array,
    noise: jax.Array,
) -> tuple[jax.Array, jax.Array, Params]:  # fmt: skip
    """Loss, logits and gradient of a batch, in as many slices as there are keys of dropout."""
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
    """How many classes are likelier than the label [B, 1], of equal ones the first; all for NaN.

    Counted, because XLA's `top_k` gathers a batch that is split over devices.
    """
    right, classes = jnp.take_along_axis(logits, label, -1), jnp.arange(logits.shape[-1])
    behind = (logits < right) | ((logits == right) & (classes >= label))
    return (~behind).sum(-1)


def eval_step(params: Params, images: jax.Array, *, model: Module) -> jax.Array:
    """Logits [B, num_classes] of prepared images [B, H, W, 3]."""
    with ops.entered():
        return model.apply({'params': params}, images, train=False)
