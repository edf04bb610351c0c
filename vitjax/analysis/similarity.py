"""How alike two representations are: every layer of one with every layer of the other.

A representation is a stack of layers `[L, n, f]`: n examples in the same order on both sides, f
features, any number of each. Layers of unequal widths come as a list of stacks or of single layers
`[n, f]`. Every measure returns a matrix `[layers of x, layers of y]`.

    cka(x, y)                             # all examples at once
    minibatch_cka(zip(xs, ys))            # a stream of batches, in constant memory

CKA's building block is `hsic`, whose result can be added: over batches, devices and processes.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax.experimental import multihost_utils
from scipy.spatial.distance import pdist

from vitjax.analysis import nearest

Stack = Any  # an array [L, n, f], or a list of arrays [L, n, f] and [n, f] of unequal widths

_CONSTANT = 1e-12  # variance over squared mean, below which float32 features are rounding alone
_RANK = 1e-5  # singular value over the largest, below which float32 cannot tell it from zero
_SLICE = 768  # features at a time on CPU: a slice of every layer stays in cache for its product


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hsic:
    """Sums of HSIC over batches, each weighted by its examples: CKA's numerator and denominators.

    `a + b` is the sum over the batches of both, whoever computed them; the leaves are arrays, so it
    can be summed over devices (`jax.lax.psum`), saved as any tree of arrays, and carried on.

    Attributes:
        xy: [Lx, Ly], of every layer of x with every layer of y.
        xx: [Lx], of every layer of x with itself; 0 for a constant layer.
        yy: [Ly], the same of y.
        examples: how many.
    """

    xy: Any
    xx: Any
    yy: Any
    examples: Any

    def __add__(self, other: 'Hsic') -> 'Hsic':
        return jax.tree.map(operator.add, self, other)

    def on_host(self) -> 'Hsic':
        """The same in float64 NumPy, in which sums over many batches keep their digits."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)

    def cka(
        self, x_names: Sequence[str] | None = None, y_names: Sequence[str] | None = None
    ) -> np.ndarray:
        """CKA [Lx, Ly]: `xy / sqrt(xx yy)`, of the sums and never of single batches.

        Args:
            x_names: what to call the layers of x in an error.
            y_names: the same of y.

        Raises:
            ValueError: names every layer that is constant over the examples or not finite.
        """
        total = self.on_host()
        wrong = []
        for side, own, names in (('x', total.xx, x_names), ('y', total.yy, y_names)):
            label = names or [f'layer {i} of {side}' for i in range(len(own))]
            wrong += [f'{label[i]} {_fault(v)}' for i, v in enumerate(own) if not 0 < v < np.inf]
        if wrong:
            raise ValueError(f'CKA is not defined, leave out: {"; ".join(dict.fromkeys(wrong))}.')
        return total.xy / np.sqrt(total.xx[:, None] * total.yy)


def _fault(value: float) -> str:
    if value <= 0:  # below 0 by rounding alone
        return 'is the same for every example'
    return 'has features that are NaN, infinite or too large for float32'


def hsic(
    x: Stack,
    y: Stack | None = None,
    *,
    kernel: str = 'linear',
    unbiased: bool = True,
    bandwidth: float = 1.0,
) -> Hsic:
    """HSIC of every layer of x with every layer of y on one batch, times its examples.

    Biased (Gretton et al. 2005), with H the centring matrix, K and L the Gram matrices:
    `tr(K H L H) / (n - 1)²`. Unbiased (Song et al. 2012, eq. 5), with K̃ and L̃ the Gram matrices
    with a zero diagonal: `[tr(K̃ L̃) + 1ᵀK̃1 1ᵀL̃1 / ((n-1)(n-2)) - 2/(n-2) 1ᵀK̃L̃1] / (n(n-3))`, here
    as the inner product of U-centred matrices (Székely and Rizzo 2014), which loses no digits to
    cancellation. Features are centred before their products for the same reason; HSIC does not
    notice.

    Cost: each Gram matrix once, n² f per layer, and all pairs as one matrix product; where fewer
    operations, the f x g cross-products instead, n f g per pair. Memory: Gram matrices (n² a layer)
    or, then, a centred copy of the batch.

    Args:
        x: [Lx, n, f], or a list of layers of unequal widths. A batch that is split over devices is
            gathered first: one batch is one Gram matrix.
        y: the same of the other side, the same examples in the same order; None is x.
        kernel: `linear`, or `rbf`: `exp(-|a - b|² / (2 s²))`, s being `bandwidth` times the median
            distance between two examples of the batch (Kornblith et al. 2019).
        unbiased: which estimator.
        bandwidth: of `rbf`.

    Raises:
        ValueError: if x and y differ in examples, or a batch has fewer than 4 examples (2 biased).
    """
    if kernel not in ('linear', 'rbf'):
        raise ValueError(f"kernel must be 'linear' or 'rbf': {kernel=}.")
    left = _stacks(x)
    right = None if y is None else _stacks(y)
    examples, least = _examples(left, right), 4 if unbiased else 2
    if examples < least:
        raise ValueError(
            f'a batch must have {least} examples or more for '
            f'{"unbiased" if unbiased else "biased"} HSIC: got {examples}.'
        )
    return _hsic(left, right, kernel, unbiased, bandwidth)


def cka(
    x: Stack,
    y: Stack | None = None,
    *,
    kernel: str = 'linear',
    unbiased: bool = True,
    bandwidth: float = 1.0,
) -> np.ndarray:
    """Centred kernel alignment [Lx, Ly] (Kornblith et al. 2019): `HSIC(x,y) / √(HSIC(x)HSIC(y))`.

    1 on itself; 0 to 1 where biased; around 0, also slightly below, for unrelated representations
    where unbiased. Invariant to rotation, scale and shift of either side, and to a permutation of
    the examples of both; not to other linear maps. All examples make one Gram matrix here: cost as
    `hsic`. Arguments and errors as `hsic`.
    """
    return hsic(x, y, kernel=kernel, unbiased=unbiased, bandwidth=bandwidth).cka()


def minibatch_cka(
    batches: Iterable[tuple[Stack, Stack]], *, kernel: str = 'linear', bandwidth: float = 1.0
) -> np.ndarray:
    """Unbiased CKA [Lx, Ly] over a stream of batches (Nguyen et al. 2021, eq. 3).

    The HSICs are averaged over the batches, weighted by their examples, and CKA is the ratio of
    those averages; the average of CKAs would be biased. Range and invariances as `cka`. Memory is
    one batch and its Gram matrices, whatever the number of batches.

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
            part = hsic(x, y, kernel=kernel, bandwidth=bandwidth).on_host()
        except ValueError as error:
            raise ValueError(f'batch {i}: {error}') from None
        total = part if total is None else total + part
    if total is None:
        raise ValueError('minibatch_cka needs at least one batch: got none.')
    return total.cka()


def sum_over_processes(part: Hsic) -> Hsic:
    """The sum of every process's part, in every process, in float64."""
    # As bytes: jax would round float64 to float32 on the way.
    leaves, tree = jax.tree.flatten(part.on_host())
    flat = np.concatenate([leaf.ravel() for leaf in leaves])
    rows = np.asarray(multihost_utils.process_allgather(flat.view(np.uint8)))
    summed = rows.reshape(-1, flat.nbytes).view(np.float64).sum(0)
    parts = np.split(summed, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return tree.unflatten([p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)])


def bootstrap(
    parts: Sequence[Hsic], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval `(low, high)`, each [Lx, Ly], of CKA over batches.

    Percentiles of CKA over batches drawn with replacement (Efron 1979). Cost: resamples x batches
    x pairs; memory: four bytes a pair and batch, what `parts` holds.

    Args:
        parts: `hsic` of each batch.
        level: share of the resamples inside the interval, 0 to 1.
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two batches, which say nothing of their spread.
    """
    if len(parts) < 2:
        raise ValueError(f'an interval needs two batches or more: got {len(parts)}.')
    hosts = [part.on_host() for part in parts]
    share = np.full(len(parts), 1 / len(parts))
    draws = np.random.default_rng(seed).multinomial(len(parts), share, resamples).astype(float)
    xx = draws @ np.stack([part.xx for part in hosts])
    yy = draws @ np.stack([part.yy for part in hosts])
    low, high = np.empty((2, xx.shape[1], yy.shape[1]))
    for i in range(xx.shape[1]):
        values = draws @ np.stack([part.xy[i] for part in hosts])
        values /= np.sqrt(xx[:, i, None] * yy)
        low[i], high[i] = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def cca(x: Stack, y: Stack | None = None) -> np.ndarray:
    """Mean canonical correlation [Lx, Ly] (Hotelling 1936; Raghu et al. 2017).

    With Q_x, Q_y orthonormal bases of the centred features, the canonical correlations are the
    singular values of `Q_xᵀ Q_y`; their sum is divided by the smaller rank. 0 to 1; invariant to
    shift and to any invertible linear map of either side: to the scale of each feature exactly, to
    others while float32 features can hold them. (Once features are scaled alike, directions of less
    than 1e-5 of the largest singular value are taken for rounding.) Cost, in float64 on the host:
    f² n a layer and n f g + f g min(f, g) a pair.

    Raises:
        ValueError: for fewer examples than features and two more (then it is 1, whatever they
            are); for a layer that is constant or not finite.
    """
    return _canonical('cca', x, y)


def svcca(x: Stack, y: Stack | None = None, *, variance: float = 0.99) -> np.ndarray:
    """SVCCA [Lx, Ly]: `cca` of the leading principal directions (Raghu et al. 2017).

    Of each layer the fewest singular directions are kept that hold `variance` of the variance. Of
    these alone there must be two fewer than examples, so there may be more features than examples.
    0 to 1; invariant to rotation, scale and shift; cost and other errors as `cca`.
    """
    if not 0 < variance <= 1:
        raise ValueError(f'variance must be above 0 and at most 1: {variance=}.')
    return _canonical('svcca', x, y, variance=variance)


def pwcca(x: Stack, y: Stack | None = None) -> np.ndarray:
    """Projection-weighted CCA [Lx, Ly] (Morcos et al. 2018, eq. 6).

    The canonical correlations ρ_i averaged with weights `Σ_j |⟨h_i, x_j⟩|`: how much of x's
    features x_j lies along the canonical variable h_i of x. 0 to 1; not symmetric in x and y;
    invariant to any invertible map of y (as `cca`), to shift and scale of x. Cost and errors as
    `cca`.
    """
    return _canonical('pwcca', x, y, weighted=True)


def procrustes(x: Stack, y: Stack | None = None) -> np.ndarray:
    """Orthogonal Procrustes distance [Lx, Ly]: `min over rotations Q of |X - Y Q|` (Frobenius).

    Features are centred and each layer scaled to norm 1: `√(2 - 2 |XᵀY|_*)` (Ding et al. 2021, who
    give its square; Williams et al. 2021, the narrower side padded with zeros). 0 to √2; a metric;
    invariant to rotation, scale and shift. In float64 on the host, so that a layer's distance to
    itself is below 1e-6. Cost: f² n a layer, n f g + f g min(f, g) a pair, with n in the place of f
    where there are fewer examples than features.

    Raises:
        ValueError: for a layer that is constant or not finite.
    """
    left, right = _each(_unit_norm, *_both(x, y))
    nuclear = [[np.linalg.svd(a.T @ b, compute_uv=False).sum() for b in right] for a in left]
    return np.sqrt(np.maximum(2 - 2 * np.array(nuclear), 0))


def procrustes_angle(x: Stack, y: Stack | None = None) -> np.ndarray:
    """The angle in radians of `procrustes`, `arccos |XᵀY|_*` (Williams et al. 2021, eq. 7).

    0 to π/2; a metric. As `2 arcsin(distance / 2)`, which keeps its digits near 0.
    """
    return 2 * np.arcsin(np.clip(procrustes(x, y) / 2, 0, math.sqrt(0.5)))


def rsa(
    x: Stack,
    y: Stack | None = None,
    *,
    comparison: str = 'spearman',
    dissimilarity: str = 'correlation',
) -> np.ndarray:
    """Representational similarity analysis [Lx, Ly] (Kriegeskorte et al. 2008).

    Each layer's dissimilarities between all pairs of examples, compared across layers. -1 to 1 for
    `spearman`, 0 to 1 for `cosine`. Invariant to scale and to a permutation of examples; with
    `euclidean` also to rotation and shift. Dissimilarities are differences in float64 on the host,
    so that equal ones stay equal. Cost: n² f a layer, n² log n its ranks, n² a pair of layers;
    memory: n² / 2 floats a layer, so a few thousand examples.

    Args:
        x: as in `hsic`; at least 3 examples.
        y: as in `hsic`.
        comparison: `spearman` (ranks, ties averaged) or `cosine`.
        dissimilarity: `correlation`, 1 - Pearson's over the features, or `euclidean`.

    Raises:
        ValueError: for fewer than 3 examples; for a layer that is constant or not finite, that has
            an example of equal features, whose correlation is not defined, or whose dissimilarities
            are all alike (`cosine`: all 0), which have no ranks.
    """
    if comparison not in ('spearman', 'cosine'):
        raise ValueError(f"comparison must be 'spearman' or 'cosine': {comparison=}.")
    if dissimilarity not in ('correlation', 'euclidean'):
        raise ValueError(f"dissimilarity must be 'correlation' or 'euclidean': {dissimilarity=}.")
    left, right = _both(x, y)
    if _examples(left, right) < 3:
        raise ValueError(f'rsa needs 3 examples or more: got {_examples(left, right)}.')
    tables = []
    for name, side in (('x', left), ('y', right))[: 2 if right is not left else 1]:
        rows = []
        for i, layer in enumerate(_layers(side)):
            if dissimilarity == 'correlation' and _has_flat_example(layer):
                raise ValueError(
                    f'correlation needs examples whose features are not all equal: layer {i} of '
                    f'{name} has one; use euclidean dissimilarity.'
                )
            rows.append(_dissimilarities(layer, comparison, dissimilarity))
            if np.isnan(rows[-1][0]):
                raise ValueError(
                    f'rsa is not defined: layer {i} of {name} has dissimilarities that are all '
                    'alike.'
                )
        tables.append(np.stack(rows))
    return np.asarray(_product(tables[0], tables[-1]))


def mutual_knn(x: Stack, y: Stack | None = None, *, k: int = 10) -> np.ndarray:
    """Mutual k-nearest-neighbour overlap [Lx, Ly] (Huh et al. 2024, eq. 11).

    The share of an example's k nearest others in x (by cosine) that are among its k nearest in y,
    averaged over the examples. 0 to 1, k / (n - 1) by chance; invariant to rotation and scale, not
    to shift. Cost: n² f a layer, n k² a pair; memory: a few hundred rows of similarities.

    Raises:
        ValueError: if k is not from 1 to n - 1; for a layer that is constant or not finite.
    """
    left, right = _both(x, y)
    examples = _examples(left, right)
    if not 1 <= k < examples:
        raise ValueError(f'k must be from 1 to the examples less one: {k=}, {examples} examples.')
    neighbours = _each(lambda layer: nearest.by_cosine(layer, k=k)[1], left, right)
    return np.asarray(_overlap(*map(jnp.stack, neighbours)))


# Stacks


def _stacks(x: Stack) -> tuple[jax.Array, ...]:
    """Any representation as a tuple of stacks [L, n, f], whole on every device."""
    given = list(x) if isinstance(x, list | tuple) else [x]
    stacks = []
    for array in given:
        if array.ndim not in (2, 3) or (array.ndim == 2 and not isinstance(x, list | tuple)):
            raise ValueError(
                f'a representation must be [layers, examples, features]: got shape {array.shape}.'
            )
        array = _gathered(array)
        stacks.append(array[None] if array.ndim == 2 else array)
    return tuple(stacks)


def _gathered(array: Any) -> Any:
    sharding = getattr(array, 'sharding', None)
    if not isinstance(sharding, jax.sharding.NamedSharding) or array.is_fully_replicated:
        return array
    whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda a: a, out_shardings=whole)(array)


def _examples(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...] | None) -> int:
    counts = sorted({stack.shape[1] for stack in (*left, *(right or ()))})
    if len(counts) != 1:
        raise ValueError(f'all layers must have the same examples: got {counts} of them.')
    return counts[0]


def _both(x: Stack, y: Stack | None) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Both sides as stacks, looked through for what no measure is defined on."""
    left = _stacks(x)
    right = left if y is None or y is x else _stacks(y)
    _examples(left, right)
    wrong = []
    for name, side in (('x', left), ('y', right))[: 2 if right is not left else 1]:
        spreads = np.concatenate([np.asarray(_spread(stack)) for stack in side])
        wrong += [
            f'layer {i} of {name} {_fault(spread)}'
            for i, spread in enumerate(spreads)
            if not 0 < spread < np.inf
        ]
    if wrong:
        raise ValueError(f'no similarity is defined: {"; ".join(wrong)}.')
    return left, right


@jax.jit
def _spread(stack: jax.Array) -> jax.Array:
    """[L]: the squared norm of the centred features, 0 where it is rounding alone."""
    squares = jax.lax.map(lambda layer: (_centred(layer) ** 2).sum(), stack)
    return jnp.where(_constant(squares, stack), 0, squares)


def _constant(squares: jax.Array, stack: jax.Array) -> jax.Array:
    first = stack[:, 0].astype(jnp.float32)
    return squares <= _CONSTANT * stack.shape[1] * (first**2).sum(1)


def _centred(layer: jax.Array) -> jax.Array:
    layer = layer.astype(jnp.float32)
    return layer - layer.mean(-2, keepdims=True)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[L, ...] and [M, ...] to the inner products [L, M], as one matrix product."""
    flat = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return jnp.matmul(flat[0], flat[1].T, precision='highest')


def _by_group(
    measure: Callable, left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]
) -> jax.Array:
    """A measure of two stacks, for sides that are several stacks: the blocks of the matrix."""
    return jnp.concatenate([jnp.concatenate([measure(a, b) for b in right], 1) for a in left])


# HSIC


@functools.partial(jax.jit, static_argnames=('kernel', 'unbiased'))
def _hsic(
    left: tuple[jax.Array, ...],
    right: tuple[jax.Array, ...] | None,
    kernel: str,
    unbiased: bool,
    bandwidth: float,
) -> Hsic:
    n = left[0].shape[1]
    sides = [left] if right is None else [left, right]
    if kernel == 'rbf' or _by_examples(sides[0], sides[-1]):
        grams = [jnp.concatenate([_grams(stack) for stack in side]) for side in sides]
        norms = [jnp.diagonal(gram, axis1=1, axis2=2) for gram in grams]
        if kernel == 'rbf':
            grams = [_rbf(gram, bandwidth) for gram in grams]
        centre = _u_centred if unbiased else _double_centred
        grams = [centre(gram) for gram in grams]
        cross = _product(grams[0], grams[-1])
        own = [(gram**2).sum((1, 2)) for gram in grams]
    else:
        cross, own, norms = _cross_products(sides, unbiased)
    # Times n: batches weigh by their examples.
    scale = 1 / (n - 3) if unbiased else n / (n - 1) ** 2
    for i, side in enumerate(sides):
        squares = norms[i].sum(1)
        parts = jnp.split(squares, np.cumsum([len(stack) for stack in side])[:-1])
        flat = [_constant(p, stack) for p, stack in zip(parts, side, strict=True)]
        own[i] = jnp.where(jnp.concatenate(flat), 0, own[i] * scale)
    return Hsic(cross * scale, own[0], own[-1], jnp.float32(n))


def _by_examples(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]) -> bool:
    """Whether n x n Gram matrices are the smaller ones, or small and the cheaper ones."""
    n = left[0].shape[1]
    layers = [sum(len(stack) for stack in side) for side in (left, right)]
    widths = [sum(len(stack) * stack.shape[2] for stack in side) for side in (left, right)]
    own = sum(len(stack) * stack.shape[2] ** 2 for stack in (*left, *right))
    by_examples = n * n * (sum(widths) + math.prod(layers))
    by_features = n * (math.prod(widths) + own)
    return n * sum(layers) <= sum(widths) or (n <= 1024 and by_examples <= by_features)


def _grams(stack: jax.Array) -> jax.Array:
    """Gram matrices [L, n, n] of the centred features of a stack [L, n, f].

    On CPU a slice of all layers' features at a time: centred in cache, multiplied there, never
    stored as a whole. That is 3 times as fast as layer by layer, and sums more exactly.
    """
    layers, n, width = stack.shape

    def gram(part: jax.Array) -> jax.Array:
        return jnp.stack([jnp.matmul(a, a.T, precision='highest') for a in _centred(part)])

    step = min(_SLICE, width) if jax.default_backend() == 'cpu' else width
    whole = width // step

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + gram(jax.lax.dynamic_slice_in_dim(stack, i * step, step, axis=2))

    total = jax.lax.fori_loop(0, whole, add, jnp.zeros((layers, n, n)))
    return total + gram(stack[:, :, whole * step :]) if width % step else total


def _rbf(gram: jax.Array, bandwidth: float) -> jax.Array:
    squares = _squared_distances(gram)
    others = ~np.eye(gram.shape[1], dtype=bool)
    scale = bandwidth * jnp.median(jnp.sqrt(squares[:, others]), axis=1)
    return jnp.exp(-squares / (2 * scale[:, None, None] ** 2))


def _squared_distances(gram: jax.Array) -> jax.Array:
    norms = jnp.diagonal(gram, axis1=-2, axis2=-1)
    return jnp.maximum(norms[..., :, None] + norms[..., None, :] - 2 * gram, 0)


def _double_centred(gram: jax.Array) -> jax.Array:
    rows = gram.mean(2)
    return gram - rows[:, :, None] - rows[:, None, :] + rows.mean(1)[:, None, None]


def _u_centred(gram: jax.Array) -> jax.Array:
    n = gram.shape[1]
    others = 1 - jnp.eye(n)
    rows = (gram * others).sum(2)
    total = rows.sum(1)[:, None, None] / ((n - 1) * (n - 2))
    return (gram - (rows[:, :, None] + rows[:, None, :]) / (n - 2) + total) * others


def _cross_products(
    sides: Sequence[tuple[jax.Array, ...]], unbiased: bool
) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
    """What `_product` of centred Gram matrices gives, from f x g matrices: `tr(KL) = |XᵀY|²`.

    For centred features K1 = 0, so without its diagonal d a row of K sums to -d.
    """
    centred = [[_centred(stack) for stack in side] for side in sides]
    norms = [jnp.concatenate([(stack**2).sum(2) for stack in side]) for side in centred]
    n = norms[0].shape[1]

    def across(x: jax.Array, y: jax.Array) -> jax.Array:
        wide = y.transpose(1, 0, 2).reshape(n, -1)  # one large product a layer of x

        def row(layer: jax.Array) -> jax.Array:
            squares = jnp.matmul(layer.T, wide, precision='highest') ** 2
            return squares.sum(0).reshape(len(y), -1).sum(1)

        return jax.lax.map(row, x)

    def squared(layer: jax.Array) -> jax.Array:
        return (jnp.matmul(layer.T, layer, precision='highest') ** 2).sum()

    cross = _by_group(across, tuple(centred[0]), tuple(centred[-1]))
    own = [jnp.concatenate([jax.lax.map(squared, stack) for stack in side]) for side in centred]
    if unbiased:
        sums = [d.sum(1) for d in norms]
        pairs = sums[0][:, None] * sums[-1]
        cross += pairs / ((n - 1) * (n - 2)) - _product(norms[0], norms[-1]) * n / (n - 2)
        for i, d in enumerate(norms):
            own[i] += sums[i] ** 2 / ((n - 1) * (n - 2)) - (d**2).sum(1) * n / (n - 2)
    return cross, own, norms


# The other measures: in float64 on the host, where ties and small differences are what counts


def _layers(side: tuple[jax.Array, ...]) -> Iterator[np.ndarray]:
    return (np.asarray(layer, np.float64) for stack in side for layer in stack)


def _each(function: Callable, left: Any, right: Any) -> tuple[list, list]:
    """A function of every layer of both sides, once where they are one."""
    found = [function(layer) for layer in _layers(left)]
    return found, found if right is left else [function(layer) for layer in _layers(right)]


def _canonical(
    name: str, x: Stack, y: Stack | None, *, variance: float | None = None, weighted: bool = False
) -> np.ndarray:
    left, right = _both(x, y)
    examples = _examples(left, right)
    reason = f'{name} needs two examples more than directions (or it is 1, whatever they are)'
    for side, stacks in (('x', left), ('y', right)):
        widest = max(stack.shape[2] for stack in stacks)
        if variance is None and widest > examples - 2:
            raise ValueError(f'{reason}: {examples} examples, {side} has {widest} features.')
    bases = _each(functools.partial(_basis, variance=variance), left, right)
    for side, found in zip('xy', bases, strict=True):
        for i, (basis, _) in enumerate(found):
            if basis.shape[1] > examples - 2:
                raise ValueError(
                    f'{reason}: {examples} examples, layer {i} of {side} has {basis.shape[1]} '
                    f'directions that hold {variance:.2%} of its variance.'
                )

    def measure(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
        product = a[0].T @ b[0]
        if not weighted:
            return np.linalg.svd(product, compute_uv=False).mean()
        w, rho, _ = np.linalg.svd(product, full_matrices=False)
        weights = np.abs(w.T @ a[1]).sum(1)
        return (weights * rho).sum() / weights.sum()

    return np.minimum([[measure(a, b) for b in bases[1]] for a in bases[0]], 1)


def _basis(layer: np.ndarray, variance: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions of a layer's examples [n, r], and its features along them [r, f]."""
    centred = layer - layer.mean(0)
    reach = np.ones(centred.shape[1])
    if variance is None:
        # A direction's rank must not hang on the units of features: all are scaled alike first.
        reach = np.abs(centred).max(0)
        varies = reach > math.sqrt(_CONSTANT) * np.abs(layer[0])
        centred, reach = centred[:, varies], reach[varies]
    u, s, v = np.linalg.svd(centred / reach, full_matrices=False)
    keep = s > _RANK * s[0]
    if variance is not None:
        held = np.cumsum(s[::-1] ** 2)[::-1]  # by a direction and all after it: small terms first
        keep &= held > (1 - variance) * held[0]
    return u[:, keep], s[keep, None] * v[keep] * reach


def _unit_norm(layer: np.ndarray) -> np.ndarray:
    layer = layer - layer.mean(0)
    if layer.shape[0] < layer.shape[1]:  # examples x examples, with the same Gram matrix
        layer = np.linalg.qr(layer.T)[1].T
    return layer / np.linalg.norm(layer)


def _has_flat_example(layer: np.ndarray) -> bool:
    reach = np.abs(layer - layer.mean(1, keepdims=True)).max(1)
    return bool((reach <= math.sqrt(_CONSTANT) * np.abs(layer[:, 0])).any())


def _dissimilarities(layer: np.ndarray, comparison: str, dissimilarity: str) -> np.ndarray:
    """[pairs] of norm 1 (NaN if all alike), whose inner products are what `rsa` compares by."""
    # From differences, never from norms and inner products: equal distances stay equal.
    if dissimilarity == 'euclidean':
        values = pdist(layer)
    else:
        layer = layer - layer.mean(1, keepdims=True)
        layer /= np.linalg.norm(layer, axis=1, keepdims=True)
        values = pdist(layer, 'sqeuclidean')  # twice 1 - Pearson's
        values[values < _CONSTANT] = 0  # the rounding of float32 features
    if comparison == 'spearman':
        values = scipy.stats.rankdata(values)
        values -= (len(values) + 1) / 2
    norm = np.linalg.norm(values)
    return (values / norm if norm else np.full(len(values), np.nan)).astype(np.float32)


@jax.jit
def _overlap(left: jax.Array, right: jax.Array) -> jax.Array:
    def share(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a[:, :, None] == b[:, None, :]).sum() / a.size

    return jax.lax.map(lambda a: jax.lax.map(lambda b: share(a, b), right), left)
