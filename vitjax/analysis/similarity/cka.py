"""Centred kernel alignment: of all examples at once, or of a stream of batches."""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils

from vitjax.analysis.similarity import stacks
from vitjax.analysis.similarity.stacks import Representation, Stacks, centred
from vitjax.base.types import Array

_SLICE = 768  # features at a time on CPU: a slice of every layer stays in cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hsic:
    """Sums of HSIC over batches, each weighted by its examples: CKA's numerator and denominators.

    `a + b` is the sum over the batches of both. The leaves are arrays, which can be summed over
    devices (`jax.lax.psum`) and saved.

    Attributes:
        xy: [Lx, Ly], every layer of x with every layer of y.
        xx: [Lx], every layer of x with itself; 0 for a constant layer.
        yy: [Ly], every layer of y with itself.
        examples: number of examples.
    """

    xy: Array
    xx: Array
    yy: Array
    examples: Array

    def __add__(self, other: 'Hsic') -> 'Hsic':
        return jax.tree.map(operator.add, self, other)

    def on_host(self) -> 'Hsic':
        """The sums in float64 NumPy, in which many batches add without loss of digits."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)

    def cka(
        self, x_names: Sequence[str] | None = None, y_names: Sequence[str] | None = None
    ) -> np.ndarray:
        """CKA [Lx, Ly]: `xy / sqrt(xx yy)` of the sums, never of single batches.

        Args:
            x_names: names of x's layers in errors.
            y_names: names of y's layers in errors.

        Raises:
            ValueError: with every layer that is constant over the examples or not finite.
        """
        total = self.on_host()
        wrong = stacks.faults(total.xx, 'x', x_names) + stacks.faults(total.yy, 'y', y_names)
        if wrong:
            raise ValueError(f'CKA is not defined, leave out: {"; ".join(dict.fromkeys(wrong))}.')
        return np.asarray(total.xy / (np.sqrt(total.xx)[:, None] * np.sqrt(total.yy)))


def hsic(
    x: Representation, y: Representation | None = None, *,
    kernel: str = 'linear', unbiased: bool = True, bandwidth: float = 1.0,
) -> Hsic:  # fmt: skip
    """HSIC of every layer of x with every layer of y on one batch, times its examples.

    Biased (Gretton et al. 2005), with H the centring matrix, K and L the Gram matrices:
    `tr(K H L H) / (n - 1)²`. Unbiased (Song et al. 2012, eq. 5), with K̃ and L̃ the Gram matrices
    with a zero diagonal: `[tr(K̃ L̃) + 1ᵀK̃1 1ᵀL̃1 / ((n-1)(n-2)) - 2/(n-2) 1ᵀK̃L̃1] / (n(n-3))`, here
    as the inner product of U-centred matrices (Székely and Rizzo 2014), which loses no digits to
    cancellation. Features are centred before their products for the same reason; HSIC is invariant
    to it.

    Features may have any scale: the result is NumPy's float64. Inside `jax.jit` or another
    transformation it is float32, in which the fourth power of the scale must fit: 1e-9 to 1e8.

    Cost: each Gram matrix once, n² f per layer, and all pairs as one matrix product; or, if that
    is cheaper, the f x g cross-products, n f g per pair. Memory: Gram matrices (n² a layer), or a
    centred copy of the batch.

    Args:
        x: [Lx, n, f], or a list of layers of unequal widths. A sharded batch is gathered first: one
            batch is one Gram matrix.
        y: the other side, of the same examples in the same order; None is x.
        kernel: `linear`, or `rbf`: `exp(-|a - b|² / (2 s²))`, s being `bandwidth` times the median
            distance between two examples of the batch (Kornblith et al. 2019).
        unbiased: True for the unbiased estimator.
        bandwidth: width of `rbf`, relative to the median distance.

    Raises:
        ValueError: if x and y differ in examples, or a batch has fewer than 4 examples (2 biased).
    """
    found, *scales = _over_scales(x, y, kernel, unbiased, bandwidth)
    if isinstance(found.xy, Tracer):
        return _of_scale(found, *scales)
    # Only float64 holds the fourth power of a feature's scale.
    return _of_scale(found.on_host(), *(np.asarray(scale, np.float64) for scale in scales))


def _over_scales(
    x: Representation, y: Representation | None, kernel: str, unbiased: bool, bandwidth: float
) -> tuple[Hsic, Array, Array]:
    """HSIC of features divided by a scale per layer, and the scales; arguments as in `hsic`."""
    if kernel not in ('linear', 'rbf'):
        raise ValueError(f"kernel must be 'linear' or 'rbf': {kernel=}.")
    left, own = stacks.in_range(stacks.as_stacks(x))
    right, other = (None, own) if y is None or y is x else stacks.in_range(stacks.as_stacks(y))
    examples, least = stacks.count_examples(left, right), 4 if unbiased else 2
    if examples < least:
        kind = 'unbiased' if unbiased else 'biased'
        raise ValueError(
            f'a batch must have {least} examples or more for {kind} HSIC: got {examples}.'
        )
    found, *scales = _hsic(left, right, kernel, unbiased, bandwidth)
    if kernel == 'linear':  # traced scales stay float32
        kind = jnp if isinstance(found.xy, Tracer) else np
        scales = [kind.asarray(s) * p for s, p in zip(scales, (own, other), strict=True)]
    return found, scales[0], scales[1]


def _of_scale(found: Hsic, x: Array, y: Array) -> Hsic:
    """HSIC of features that are `x` and `y` [L] times as large; NaN if it overflows or underflows.

    Underflow to 0 would mean a constant layer.
    """

    def held(whole: Array, part: Array) -> Any:
        np_or_jnp: Any = np if isinstance(whole, np.ndarray) else jnp
        lost = np_or_jnp.isinf(whole) | ((whole == 0) & (part != 0))
        return np_or_jnp.where(lost, np.nan, whole)

    with np.errstate(over='ignore', invalid='ignore'):
        x, y = x**2, y**2
        xy = held(found.xy * x[:, None] * y, found.xy)
        xx, yy = held(found.xx * x * x, found.xx), held(found.yy * y * y, found.yy)
    return Hsic(xy, xx, yy, found.examples)


def cka(
    x: Representation, y: Representation | None = None, *,
    kernel: str = 'linear', unbiased: bool = True, bandwidth: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """Centred kernel alignment [Lx, Ly] (Kornblith et al. 2019): `HSIC(x,y) / √(HSIC(x)HSIC(y))`.

    1 on itself. The biased estimate is 0 to 1; the unbiased one is around 0, also slightly below,
    for unrelated representations. Invariant to rotation, scale and shift of either side, and to a
    permutation of the examples of both; not to other linear maps. All examples make one Gram
    matrix. Cost, arguments and errors as `hsic`.

    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.normal(size=(2, 1, 100, 8))  # one layer, 100 examples, 8 features
    >>> cka(x, np.concatenate([2 * x + 1, x + noise])).round(2)
    array([[1.  , 0.55]])
    """
    found, *_ = _over_scales(x, y, kernel, unbiased, bandwidth)
    return found.cka()


def minibatch_cka(
    batches: Iterable[tuple[Representation, Representation]], *,
    kernel: str = 'linear', bandwidth: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """Unbiased CKA [Lx, Ly] over a stream of batches (Nguyen et al. 2021, eq. 3).

    The HSICs are averaged over the batches, weighted by their examples, and CKA is the ratio of
    those averages; the average of CKAs would be biased. Range and invariances as `cka`. Memory is
    one batch and its Gram matrices, whatever the number of batches.

    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.normal(size=(2, 1, 100, 8))  # one layer, 100 examples, 8 features
    >>> y = np.concatenate([2 * x + 1, x + noise])
    >>> minibatch_cka((x[:, i : i + 25], y[:, i : i + 25]) for i in range(0, 100, 25)).round(2)
    array([[1.  , 0.57]])

    Args:
        batches: pairs `(x [Lx, n, f], y [Ly, n, g])`; n may differ from batch to batch.
        kernel: as in `hsic`.
        bandwidth: as in `hsic`.

    Raises:
        ValueError: for a batch of fewer than 4 examples (often the last), by its number; for no
            batch at all; for a layer that is constant or not finite, by name.
    """
    total = None
    for i, (x, y) in enumerate(batches):
        try:
            part = hsic(x, y, kernel=kernel, bandwidth=bandwidth)
        except ValueError as error:
            raise ValueError(f'batch {i}: {error}') from None
        total = part if total is None else total + part
    if total is None:
        raise ValueError('minibatch_cka needs at least one batch: got none.')
    return total.cka()


def sum_over_processes(part: Hsic) -> Hsic:
    """The sum over all processes in float64, in every process."""

    def summed(leaf: np.ndarray) -> np.ndarray:
        # As bytes: jax would round float64 to float32.
        rows = np.asarray(multihost_utils.process_allgather(leaf.ravel().view(np.uint8)))
        return rows.reshape(-1, leaf.nbytes).view(np.float64).sum(0).reshape(leaf.shape)

    return jax.tree.map(summed, part.on_host())


class _Side(NamedTuple):
    """A side of HSIC, its features centred and divided by a scale per layer.

    Attributes:
        scale: the divisors [L].
        norms: squared norms of the examples [L, n], the diagonals of their Gram matrices.
        form: centred Gram matrices [L, n, n], or the features, a tuple of [L, n, f].
        own: inner products of each centred Gram matrix with itself [L]; 0 for a constant layer.
    """

    scale: jax.Array
    norms: jax.Array
    form: Any
    own: jax.Array


@functools.partial(jax.jit, static_argnames=('kernel', 'unbiased'))
def _hsic(
    left: Stacks, right: Stacks | None, kernel: str, unbiased: bool, bandwidth: float
) -> tuple[Hsic, jax.Array, jax.Array]:
    """HSIC of features divided by a scale per layer, and both sides' scales, [Lx] and [Ly]."""
    n = left[0].shape[1]
    grams = kernel == 'rbf' or by_examples(left, left if right is None else right)

    def prepared(side: Stacks) -> _Side:
        scales = [stacks.scale(stack) for stack in side]
        if grams:
            norms, form, own = _of_grams(side, scales, kernel, unbiased, bandwidth)
        else:
            norms, form, own = _of_features(side, scales, unbiased)
        scale = jnp.concatenate(scales)
        own = jnp.where(stacks.is_constant(norms.sum(1), side, scale), 0, own)
        if kernel == 'rbf':  # its bandwidth scales with the features
            scale = jnp.ones_like(scale)
        return _Side(scale, norms, form, own)

    x = prepared(left)
    y = x if right is None else prepared(right)
    if grams:
        cross = stacks.inner_products(x.form, y.form)
    else:
        cross = stacks.by_group(_cross_products, x.form, y.form)
        if unbiased:
            cross += _without_diagonals(x.norms[:, None], y.norms)
    # Times n: batches are weighted by their examples.
    factor = 1 / (n - 3) if unbiased else n / (n - 1) ** 2
    return Hsic(cross * factor, x.own * factor, y.own * factor, jnp.float32(n)), x.scale, y.scale


def by_examples(left: Stacks, right: Stacks) -> bool:
    """True if n x n Gram matrices take less memory, or are small and take fewer operations."""
    n = left[0].shape[1]
    layers = [sum(len(stack) for stack in side) for side in (left, right)]
    widths = [sum(len(stack) * stack.shape[2] for stack in side) for side in (left, right)]
    own = sum(len(stack) * stack.shape[2] ** 2 for stack in (*left, *right))
    operations = n * n * (sum(widths) + math.prod(layers))
    otherwise = n * (math.prod(widths) + own)
    return n * sum(layers) <= sum(widths) or (n <= 1024 and operations <= otherwise)


def _of_grams(
    side: Stacks, scales: Sequence[Array], kernel: str, unbiased: bool, bandwidth: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Norms, form and own of a `_Side`, from n x n Gram matrices."""
    gram = jnp.concatenate(list(map(_grams, side, scales)))
    norms = jnp.diagonal(gram, axis1=1, axis2=2)
    if kernel == 'rbf':
        gram = _rbf(gram, bandwidth)
    gram = _u_centred(gram) if unbiased else _double_centred(gram)
    return norms, gram, (gram**2).sum((1, 2))


def _grams(stack: Array, scale: Array) -> jax.Array:
    """Gram matrices [L, n, n] of the centred features of a stack [L, n, f] over a scale [L].

    On CPU a slice of all layers' features is centred and multiplied at a time, in cache. That is 3
    times as fast as layer by layer, and its sums are more exact.
    """
    layers, n, width = stack.shape

    def gram(part: Array) -> jax.Array:
        return jnp.stack([jnp.matmul(a, a.T, precision='highest') for a in centred(part, scale)])

    step = min(_SLICE, width) if jax.default_backend() == 'cpu' else width
    whole = width // step

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + gram(jax.lax.dynamic_slice_in_dim(stack, i * step, step, axis=2))

    total = jax.lax.fori_loop(0, whole, add, jnp.zeros((layers, n, n)))
    return total + gram(stack[:, :, whole * step :]) if width % step else total


def _rbf(gram: jax.Array, bandwidth: float) -> jax.Array:
    """Gram matrices [L, n, n] of the Gaussian kernel, from linear ones; see `hsic`."""
    norms = jnp.diagonal(gram, axis1=1, axis2=2)
    squares = jnp.maximum(norms[:, :, None] + norms[:, None, :] - 2 * gram, 0)
    others = ~np.eye(gram.shape[1], dtype=bool)
    scale = bandwidth * jnp.median(jnp.sqrt(squares[:, others]), axis=1)
    return jnp.exp(-squares / (2 * scale[:, None, None] ** 2))


def _double_centred(gram: jax.Array) -> jax.Array:
    """H K H of Gram matrices [L, n, n]: rows and columns sum to 0."""
    rows = gram.mean(2)
    return gram - rows[:, :, None] - rows[:, None, :] + rows.mean(1)[:, None, None]


def _u_centred(gram: jax.Array) -> jax.Array:
    """U-centred Gram matrices [L, n, n] (Székely and Rizzo 2014, def. 2).

    The diagonal is excluded from the means and set to 0; rows and columns sum to 0.
    """
    n = gram.shape[1]
    others = 1 - jnp.eye(n)
    rows = (gram * others).sum(2)
    total = rows.sum(1)[:, None, None] / ((n - 1) * (n - 2))
    return (gram - (rows[:, :, None] + rows[:, None, :]) / (n - 2) + total) * others


def _of_features(
    side: Stacks, scales: Sequence[Array], unbiased: bool
) -> tuple[jax.Array, Stacks, jax.Array]:
    """Norms, form and own of a `_Side`, from f x f products of features."""

    def squared(layer: jax.Array) -> jax.Array:
        return (jnp.matmul(layer.T, layer, precision='highest') ** 2).sum()

    features = tuple(map(centred, side, scales))
    norms = jnp.concatenate([(stack**2).sum(2) for stack in features])
    own = jnp.concatenate([jax.lax.map(squared, stack) for stack in features])
    return norms, features, own + _without_diagonals(norms, norms) if unbiased else own


def _cross_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """|XᵀY|², the inner product of Gram matrices, of every layer of two stacks [L, n, f]."""
    wide = y.transpose(1, 0, 2).reshape(y.shape[1], -1)  # one large product per layer of x

    def row(layer: jax.Array) -> jax.Array:
        squares = jnp.matmul(layer.T, wide, precision='highest') ** 2
        return squares.sum(0).reshape(len(y), -1).sum(1)

    return jax.lax.map(row, x)


def _without_diagonals(d: jax.Array, e: jax.Array) -> jax.Array:
    """Terms that the unbiased estimator adds to |XᵀY|², from the diagonals [..., n] of K and L.

    With K = XXᵀ and L = YYᵀ, tr(KL) = |XᵀY|². Centred features have K1 = 0, so the rows of K̃, K
    without its diagonal d, sum to -d. The terms of Song et al.'s equation become
    `tr(K̃L̃) = |XᵀY|² - d·e, 1ᵀK̃1 1ᵀL̃1 = Σd Σe, 1ᵀK̃L̃1 = d·e`. Their sum is
    `|XᵀY|² + Σd Σe / ((n-1)(n-2)) - d·e (1 + 2/(n-2))`, the last factor n/(n-2).
    """
    n = d.shape[-1]
    return d.sum(-1) * e.sum(-1) / ((n - 1) * (n - 2)) - (d * e).sum(-1) * n / (n - 2)
