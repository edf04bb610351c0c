"""Representations as stacks of layers [L, n, f], and checks common to all metrics."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.base.types import Array

Stacks: TypeAlias = tuple[Array, ...]  # one side: stacks [L, n, f] of unequal widths
# An array [L, n, f], or a list of arrays [L, n, f] and [n, f] of unequal widths.
Representation: TypeAlias = Array | Sequence[Array]

CONSTANT = 1e-12  # variance over squared mean, below which float32 features are rounding errors


def faults(squares: Array, side: str, names: Sequence[str] | None = None) -> list[str]:
    """Layers of a side whose squared norms are not positive and finite, with the reasons."""
    names = names or [f'layer {i} of {side}' for i in range(len(squares))]
    constant = 'is the same for every example'
    other = 'has features that are NaN, infinite or beyond float32'
    return [
        f'{name} {constant if square <= 0 else other}'  # below 0 only by rounding
        for name, square in zip(names, squares, strict=True)
        if not 0 < square < np.inf
    ]


def as_stacks(x: Representation) -> Stacks:
    """Any representation as a tuple of stacks [L, n, f], replicated on every device.

    Raises:
        ValueError: if an array has another shape.
    """
    single = isinstance(x, jax.Array | np.ndarray)
    stacks = []
    for array in [x] if single else x:
        if array.ndim not in (2, 3) or (array.ndim == 2 and single):
            raise ValueError(
                f'a representation must be [layers, examples, features]: got shape {array.shape}.'
            )
        stacks.append(_replicated(array if array.ndim == 3 else array[None]))
    return tuple(stacks)


def in_range(side: Stacks) -> tuple[Stacks, np.ndarray]:
    """A side with float64 layers near or beyond float32's range divided by a power of two.

    float32 would round them to 0 or to infinity. Also returns each layer's divisor, [L].
    """
    out, powers = [], []
    for stack in side:
        power = np.ones(len(stack))
        if isinstance(stack, np.ndarray) and stack.dtype == np.float64:
            largest = np.abs(stack).max((1, 2))
            fits = ((largest > 2.0**-100) & (largest < 2.0**100)) | (largest == 0)
            exponents = np.where(fits | ~np.isfinite(largest), 1, np.frexp(largest)[1])
            power = np.ldexp(1.0, exponents - 1)
            if not fits.all():
                stack = stack / power[:, None, None]
        out.append(stack)
        powers.append(power)
    return tuple(out), np.concatenate(powers)


def _replicated(array: Array) -> Array:
    # A Gram matrix is of all examples, also of those on other devices or in other processes.
    sharding = getattr(array, 'sharding', None)  # only concrete jax arrays have one
    if not isinstance(sharding, jax.sharding.NamedSharding) or sharding.is_fully_replicated:
        return array
    whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda a: a, out_shardings=whole)(array)


def count_examples(left: Stacks, right: Stacks | None) -> int:
    """Number of examples, the same for all layers; ValueError if they differ."""
    counts = sorted({stack.shape[1] for stack in (*left, *(right or ()))})
    if len(counts) != 1:
        raise ValueError(f'all layers must have the same examples: got {counts} of them.')
    return counts[0]


def both_sides(x: Representation, y: Representation | None) -> tuple[Stacks, Stacks]:
    """Both sides as stacks, the same object if y is x.

    Raises:
        ValueError: if the sides differ in examples; with every layer that is constant or not
            finite.
    """
    left, _ = in_range(as_stacks(x))
    right = left if y is None or y is x else in_range(as_stacks(y))[0]
    count_examples(left, right)
    wrong = []
    for name, side in (('x', left), ('y', right))[: 2 if right is not left else 1]:
        squares = np.concatenate([_squared_norms(stack) for stack in side])
        wrong += faults(squares, name)
    if wrong:
        raise ValueError(f'no similarity is defined: {"; ".join(wrong)}.')
    return left, right


@jax.jit
def _squared_norms(stack: Array) -> jax.Array:
    """Squared norms [L] of the centred features over `scale`, 0 if they are rounding errors."""
    scales = scale(stack)
    squares = jax.lax.map(lambda each: (centred(*each) ** 2).sum(), (stack, scales))
    return jnp.where(is_constant(squares, (stack,), scales), 0, squares)


def scale(stack: Array) -> jax.Array:
    """Largest power of two [L] that each layer's largest feature reaches.

    Division by it is exact, and the squares of the quotients fit float32: no metric depends on the
    scale of the features.
    """
    largest = jnp.abs(stack.astype(jnp.float32)).max((1, 2))
    exponent = jnp.where(largest > 0, jnp.frexp(largest)[1] - 1, 0)
    return jnp.ldexp(jnp.float32(1), jnp.clip(exponent, -126, 126))  # whose reciprocal is normal


def is_constant(squares: jax.Array, side: Stacks, scales: jax.Array) -> jax.Array:
    """True [L] for layers whose centred features are rounding errors.

    Args:
        squares: squared norms [L] of the centred features over their scales.
        side: stacks of the side.
        scales: divisors [L] of each layer's features.
    """
    ends = np.cumsum([len(stack) for stack in side])[:-1]
    parts = zip(side, jnp.split(scales, ends), strict=True)
    first = [((stack[:, 0] / own[:, None]) ** 2).sum(1) for stack, own in parts]
    return squares <= CONSTANT * side[0].shape[1] * jnp.concatenate(first)


def centred(layer: Array, scale: Array) -> jax.Array:
    """Layers [..., n, f] in float32 over their scale [...], minus their mean over the examples."""
    layer = jnp.asarray(layer, jnp.float32) / jnp.asarray(scale)[..., None, None]
    return layer - layer.mean(-2, keepdims=True)


def inner_products(a: Array, b: Array) -> jax.Array:
    """Inner products [L, M] of [L, ...] and [M, ...], as one matrix product."""
    flat = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return jnp.matmul(flat[0], flat[1].T, precision='highest')


def by_group(measure: Callable, left: Stacks, right: Stacks) -> jax.Array:
    """A measure of two stacks, for sides of several stacks: the blocks of the matrix."""
    return jnp.concatenate([jnp.concatenate([measure(a, b) for b in right], 1) for a in left])


Found = TypeVar('Found')


def each_layer(
    function: Callable[[np.ndarray, str], Found], left: Stacks, right: Stacks
) -> tuple[list[Found], list[Found]]:
    """Values of a function for every layer of both sides, computed once if both are the same.

    Args:
        function: maps a layer [n, f], float64 on the host, and its name in errors to a value.
        left: one side.
        right: the other side.
    """

    def each(name: str, side: Stacks) -> list[Found]:
        layers = enumerate(layer for stack in side for layer in stack)
        return [function(np.asarray(a, np.float64), f'layer {i} of {name}') for i, a in layers]

    found = each('x', left)
    return found, found if right is left else each('y', right)
