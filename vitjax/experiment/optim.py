"""Optimizers: schedule, update rule, and the parameters that decay or train."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from vitjax.base.ranges import Amount, Count, Pattern, Rate
from vitjax.base.types import Params
from vitjax.experiment import registry


def adamw(settings: 'Optim', rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    return _decayed(_adam(settings), settings, rate)


def lamb(settings: 'Optim', rate: optax.Schedule) -> optax.GradientTransformation:
    """LAMB (You et al. 2020, arXiv:1904.00962); with a decay of 0 it is Adam, as in timm."""
    trust = optax.stateless(functools.partial(_trust, settings.decay))
    return _decayed(_adam(settings, eps=1e-6), settings, rate, trust)


def muon(settings: 'Optim', rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon (`_muon`) for the matrices of blocks, AdamW for all else."""
    moments = optax.partition({True: _muon(settings.moment), False: _adam(settings)}, _hidden)
    return _decayed(moments, settings, rate)


def rmsprop(settings: 'Optim', rate: optax.Schedule) -> optax.GradientTransformation:
    """RMSProp (Tieleman and Hinton 2012, lecture 6.5) without momentum, as in Keras."""
    return _decayed(optax.scale_by_rms(0.9, eps=1e-7), settings, rate)


def sgd(settings: 'Optim', rate: optax.Schedule) -> optax.GradientTransformation:
    """Gradient descent, without momentum or decay."""
    return optax.sgd(rate)


# `(settings, schedule) -> transformation`; clipping, freezing and accumulation surround it. A new
# optimizer is a function and an entry here, or a function of a user's module, named MODULE:NAME.
OPTIMIZERS = {each.__name__: each for each in (adamw, lamb, muon, rmsprop, sgd)}


def _adam(settings: 'Optim', eps: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_adam(settings.b1, settings.b2, eps, mu_dtype=settings.moment)


def _decayed(
    moments: optax.GradientTransformation, settings: 'Optim', rate: optax.Schedule,
    *after: optax.GradientTransformation,
) -> optax.GradientTransformation:  # fmt: skip
    """Adds weight decay on kernels, and what comes after it, to the scaling of gradients."""
    decay = optax.add_decayed_weights(settings.decay, mask=_kernels)
    return optax.chain(moments, decay, *after, optax.scale_by_learning_rate(rate))


@dataclasses.dataclass(frozen=True)
class Optim:
    """AdamW, or another optimizer, with warm-up and cosine decay.

    Attributes:
        peak: learning rate after warm-up.
        start: learning rate of the first update, if there is warm-up.
        end: learning rate at the end of the half cosine, one update after the last (as in optax
            and timm).
        warmup: fraction of all steps that warm up, 0 to 1.
        decay: weight decay, on kernels only.
        b1: decay rate of the first moment.
        b2: decay rate of the second moment.
        clip: largest global norm of the gradient; 0 does not clip.
        accumulate: batches whose gradients are averaged into one update.
        ema: decay rate of the parameters' moving average at each update; 0 keeps none.
        train: regular expression of the parameter paths that train, `head.*` for instance.
        name: adamw; lamb (You et al. 2020, arXiv:1904.00962; with a decay of 0 it is Adam, as in
            timm); muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; in optax's variant,
            whose momentum is corrected for its bias), which orthogonalizes the momentum of every
            matrix in a block, scaled so that AdamW's rate and decay suit (Liu et al. 2025,
            arXiv:2502.16982), and is AdamW for all else; rmsprop (Tieleman and Hinton 2012, lecture
            6.5), without momentum, its second moment decaying by 0.9 as in Keras; sgd, without
            momentum or decay; or MODULE:NAME, a function like those in `OPTIMIZERS`.
        moment: dtype of the first moment.
    """

    peak: Amount = 1e-3
    start: Amount = 0.0
    end: Amount = 0.0
    warmup: Rate = 0.05
    decay: Amount = 1e-4
    b1: Rate = 0.9
    b2: Rate = 0.999
    clip: Amount = 1.0
    accumulate: Count = 1
    ema: Rate = 0.0
    train: Pattern = '.*'
    name: Annotated[str, registry.Named(OPTIMIZERS)] = 'adamw'
    moment: Literal['float32', 'bfloat16'] = 'float32'


def schedule(settings: Optim, steps: int | jax.Array) -> optax.Schedule:
    """Learning rate at each update: linear from `start` to `peak`, then a half cosine to `end`.

    Of N updates, w = round(`warmup` N) of them warming up (N - 1 at most), update n from 0 has
    `start + (peak - start) n / w` below w, and from there on
    `end + (peak - end) (1 + cos(π (n - w) / (N - w))) / 2`.
    """
    updates = jnp.maximum(1, steps // settings.accumulate)
    warmup = jnp.minimum(jnp.round(settings.warmup * updates), updates - 1)

    # optax's own warm-up and cosine takes Python numbers only.
    def rate(count: Any) -> jax.Array:
        rising = settings.start + (settings.peak - settings.start) * count / jnp.maximum(warmup, 1)
        done = jnp.minimum((count - warmup) / (updates - warmup), 1)
        falling = settings.end + (settings.peak - settings.end) * (1 + jnp.cos(jnp.pi * done)) / 2
        return jnp.where(count < warmup, rising, falling)

    return rate


def optimizer(settings: Optim, steps: int | jax.Array) -> optax.GradientTransformation:
    """The optimizer of a run of `steps` steps: clipping, update rule, freezing and accumulation.

    Numbers in `settings`, and `steps`, may be traced: one program then serves all their values. A
    traced `clip` clips.

    Raises:
        ValueError: for an unknown name, or a `train` that is no regular expression.
    """
    make = registry.find('optim.name', OPTIMIZERS, settings.name)
    update = make(settings, schedule(settings, steps))
    if isinstance(settings.clip, jax.Array) or settings.clip:
        update = optax.chain(optax.clip_by_global_norm(settings.clip), update)
    if settings.train != '.*':
        label = {True: 'train', False: 'freeze'}
        update = optax.partition(
            {'train': update, 'freeze': optax.set_to_zero()},
            lambda params: jax.tree.map(label.get, trainable(params, settings.train)),
        )
    if settings.accumulate > 1:
        update = optax.MultiSteps(update, settings.accumulate).gradient_transformation()
    return update


def _trust(decay: Any, updates: Any, params: Any) -> Any:
    """Scales each kernel's update to the kernel's own norm: LAMB's trust ratio.

    As in apex and timm only decayed kernels have one: with a `decay` of 0 LAMB is Adam with an
    epsilon of 1e-6 (their `always_adapt` and `trust_clip` are off). Each layer of a stack has a
    kernel of its own.
    """

    def scale(update: jax.Array, param: jax.Array) -> Any:
        return optax.scale_by_trust_ratio().update(update, optax.EmptyState(), param)[0]

    def leaf(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
        if not name.endswith('kernel'):
            return update
        adapted = (jax.vmap(scale) if 'blocks/' in name else scale)(update, param)
        return jnp.where(jnp.asarray(decay) > 0, adapted, update)  # `decay` may be traced

    return _by_name(leaf, updates, params)


def _muon(moment: str) -> optax.GradientTransformation:
    """Muon for the kernels of stacks, [depth, ..., in, out], of which all axes but two are rows.

    Queries, keys and values are matrices of their own. The root mean square of an update is Adam's,
    0.2 (Liu et al. 2025, eq. 4), where Jordan's code scales by max(1, out / in)^½. The momentum m
    decays by b = 0.95, as published.

    This is optax's variant. At update t it orthogonalizes b m / (1 - b^(t+1)) + (1 - b) g /
    (1 - b^t), in float32: the bias of both terms is corrected, as in NAdam. Jordan's code
    orthogonalizes b m + (1 - b) g, in bfloat16. Single updates of a random matrix differ by up to a
    tenth at first, the sum of the first 12 by 1 to 7%; the difference fades as b^t does.
    """

    def split(name: str, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], 3, -1) if name.endswith('qkv/kernel') else x

    def matrices(name: str, x: jax.Array) -> optax.contrib.MuonDimensionNumbers:
        last = x.ndim - (2 if name.endswith('qkv/kernel') else 1)
        return optax.contrib.MuonDimensionNumbers(tuple(range(1, last)), -1)

    inner = optax.contrib.scale_by_muon(
        weight_dimension_numbers=functools.partial(_by_name, matrices), mu_dtype=moment
    )

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        out, state = inner.update(_by_name(split, updates), state)

        def scaled(x: jax.Array, like: jax.Array) -> jax.Array:
            rows = math.prod(like.shape[1:-1])
            return 0.2 * max(rows, x.shape[-1]) ** 0.5 * x.reshape(like.shape)

        return jax.tree.map(scaled, out, updates), state

    def init(params: Any) -> Any:
        return inner.init(_by_name(split, params))

    return optax.GradientTransformation(init, update)


def _hidden(params: Params) -> Any:
    """Mask of Muon's parameters: kernels inside stacks, except depthwise convolutions'."""

    def hidden(name: str, param: jax.Array) -> bool:
        return name.endswith('kernel') and 'blocks/' in name and param.shape[-2] > 1

    return _by_name(hidden, params)


def trainable(params: Params, pattern: str) -> Any:
    """Tree of booleans like `params`: True if `pattern` matches the whole of a path.

    Raises:
        ValueError: if it matches none, with the first parts of the paths there are.
    """
    try:
        mask = _by_name(lambda name, _: re.fullmatch(pattern, name) is not None, params)
    except re.error as error:
        rule = 'optim.train must be a regular expression'
        raise ValueError(f'{rule}: {pattern!r}: {error}.') from None
    if not any(jax.tree.leaves(mask)):
        there = f'{pattern!r} matches none under {", ".join(sorted(params))}'
        raise ValueError(f'optim.train must match a parameter: {there}.')
    return mask


def _kernels(params: Params) -> Any:
    # By name: in a stack every bias and norm scale has two axes or more.
    return _by_name(lambda name, _: name.endswith('kernel'), params)


def _by_name(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Maps a function of a parameter's name, as `blocks/norm_1/scale`, and its leaves."""
    name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
    with_path = jax.tree_util.tree_map_with_path
    return with_path(lambda path, *leaves: function(name(path), *leaves), tree, *others)
