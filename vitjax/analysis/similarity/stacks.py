"""Representations as stacks of layers [L, n, f], and what every measure asks of them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Stack = Any  # an array [L, n, f], or a list of arrays [L, n, f] and [n, f] of unequal widths

CONSTANT = 1e-12  # variance over squared mean, below which float32 features are rounding alone


def fault(value: float) -> str:
    """What is wrong with a layer of this squared norm, which is not positive and finite."""
    if value <= 0:  # below 0 by rounding alone
        return 'is the same for every example'
    return 'has features that are NaN, infinite or too large for float32'


def as_stacks(x: Stack) -> tuple[jax.Array, ...]:
    """Any representation as a tuple of stacks [L, n, f], whole on every device."""
    given = list(x) if isinstance(x, list | tuple) else [x]
    stacks = []
    for array in given:
        if array.ndim not in (2, 3) or (array.ndim == 2 and not isinstance(x, list | tuple)):
            raise ValueError(
                f'a representation must be [layers, examples, features]: got shape {array.shape}.'
            )
        array = _replicated(array)
        stacks.append(array[None] if array.ndim == 2 else array)
    return tuple(stacks)


def _replicated(array: Any) -> Any:
    sharding = getattr(array, 'sharding', None)
    if not isinstance(sharding, jax.sharding.NamedSharding) or array.is_fully_replicated:
        return array
    whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda a: a, out_shardings=whole)(array)


def count_examples(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...] | None) -> int:
    """How many examples all layers have; an error where they differ."""
    counts = sorted({stack.shape[1] for stack in (*left, *(right or ()))})
    if len(counts) != 1:
        raise ValueError(f'all layers must have the same examples: got {counts} of them.')
    return counts[0]


def both_sides(x: Stack, y: Stack | None) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Both sides as stacks, looked through for what no measure is defined on."""
    left = as_stacks(x)
    right = left if y is None or y is x else as_stacks(y)
    count_examples(left, right)
    wrong = []
    for name, side in (('x', left), ('y', right))[: 2 if right is not left else 1]:
        spreads = np.concatenate([np.asarray(_spread(stack)) for stack in side])
        wrong += [
            f'layer {i} of {name} {fault(spread)}'
            for i, spread in enumerate(spreads)
            if not 0 < spread < np.inf
        ]
    if wrong:
        raise ValueError(f'no similarity is defined: {"; ".join(wrong)}.')
    return left, right


@jax.jit
def _spread(stack: jax.Array) -> jax.Array:
    """[L]: the squared norm of the centred features, 0 where it is rounding alone."""
    squares = jax.lax.map(lambda layer: (centred(layer) ** 2).sum(), stack)
    return jnp.where(is_constant(squares, stack), 0, squares)


def is_constant(squares: jax.Array, stack: jax.Array) -> jax.Array:
    """[L]: whether these squared norms of centred features are rounding alone."""
    first = stack[:, 0].astype(jnp.float32)
    return squares <= CONSTANT * stack.shape[1] * (first**2).sum(1)


def centred(layer: jax.Array) -> jax.Array:
    """A layer [n, f] in float32, less its mean over the examples."""
    layer = layer.astype(jnp.float32)
    return layer - layer.mean(-2, keepdims=True)


def inner_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """[L, ...] and [M, ...] to the inner products [L, M], as one matrix product."""
    flat = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return jnp.matmul(flat[0], flat[1].T, precision='highest')


def by_group(
    measure: Callable, left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]
) -> jax.Array:
    """A measure of two stacks, for sides that are several stacks: the blocks of the matrix."""
    return jnp.concatenate([jnp.concatenate([measure(a, b) for b in right], 1) for a in left])


def layers(side: tuple[jax.Array, ...]) -> Iterator[np.ndarray]:
    """Every layer of one side [n, f], in float64 on the host."""
    return (np.asarray(layer, np.float64) for stack in side for layer in stack)


def each_layer(function: Callable, left: Any, right: Any) -> tuple[list, list]:
    """A function of every layer of both sides, once where they are one."""
    found = [function(layer) for layer in layers(left)]
    return found, found if right is left else [function(layer) for layer in layers(right)]
