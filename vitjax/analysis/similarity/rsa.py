"""Similarity of two geometries of examples: of their dissimilarities and nearest neighbours."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from scipy.spatial.distance import pdist

from vitjax.analysis import nearest
from vitjax.analysis.similarity import stacks
from vitjax.analysis.similarity.stacks import Representation


def rsa(
    x: Representation, y: Representation | None = None, *,
    comparison: str = 'spearman', dissimilarity: str = 'correlation',
) -> np.ndarray:  # fmt: skip
    """Representational similarity analysis [Lx, Ly] (Kriegeskorte et al. 2008).

    Each layer's dissimilarities between all pairs of examples, compared across layers. -1 to 1 for
    `spearman`, 0 to 1 for `cosine`. Invariant to scale and to a permutation of examples; with
    `euclidean` also to rotation and shift. Dissimilarities are differences in float64 on the host,
    so that equal ones stay equal. Cost: n² f a layer, n² log n for its ranks, n² a pair of layers.
    Memory: n² / 2 floats a layer, which allows a few thousand examples.

    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.normal(size=(2, 1, 100, 8))  # one layer, 100 examples, 8 features
    >>> rsa(x, np.concatenate([2 * x, x + noise])).round(2)
    array([[1.  , 0.47]], dtype=float32)

    Args:
        x: as in `hsic`; at least 3 examples.
        y: as in `hsic`.
        comparison: `spearman` (ranks, ties averaged) or `cosine`.
        dissimilarity: `correlation`, 1 - Pearson's over the features, or `euclidean`.

    Raises:
        ValueError: for fewer than 3 examples; if a layer is constant or not finite, has an example
            of equal features, whose correlation is not defined, or has equal dissimilarities
            (`cosine`: all 0), which have no ranks.
    """
    if comparison not in ('spearman', 'cosine'):
        raise ValueError(f"comparison must be 'spearman' or 'cosine': {comparison=}.")
    if dissimilarity not in ('correlation', 'euclidean'):
        raise ValueError(f"dissimilarity must be 'correlation' or 'euclidean': {dissimilarity=}.")
    left, right = stacks.both_sides(x, y)
    if (examples := stacks.count_examples(left, right)) < 3:
        raise ValueError(f'rsa needs 3 examples or more: got {examples}.')

    def table(layer: np.ndarray, label: str) -> np.ndarray:
        if dissimilarity == 'correlation' and _has_flat_example(layer):
            raise ValueError(
                f'correlation needs examples whose features are not all equal: {label} has one; '
                'use euclidean dissimilarity.'
            )
        values = _dissimilarities(layer, comparison, dissimilarity)
        norm = np.linalg.norm(values)
        if not norm:
            raise ValueError(f'rsa is not defined: {label} has dissimilarities that are all alike.')
        return (values / norm).astype(np.float32)

    rows, columns = stacks.each_layer(table, left, right)
    tables = np.stack(rows)
    others = tables if columns is rows else np.stack(columns)
    return np.asarray(stacks.inner_products(tables, others))


def mutual_knn(x: Representation, y: Representation | None = None, *, k: int = 10) -> np.ndarray:
    """Mutual k-nearest-neighbour overlap [Lx, Ly] (Huh et al. 2024, eq. 11).

    Fraction of an example's k nearest others in x (by cosine) that are among its k nearest in y,
    averaged over the examples. 0 to 1, k / (n - 1) by chance; invariant to rotation and scale, not
    to shift. Cost: n² f a layer, n k² a pair; memory: a few hundred rows of similarities.

    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.normal(size=(2, 1, 100, 8))  # one layer, 100 examples, 8 features
    >>> mutual_knn(x, np.concatenate([2 * x, x + noise]), k=5).round(2)
    array([[1.  , 0.21]], dtype=float32)

    Raises:
        ValueError: if k is not from 1 to n - 1, or a layer is constant or not finite.
    """
    left, right = stacks.both_sides(x, y)
    examples = stacks.count_examples(left, right)
    if not 1 <= k < examples:
        raise ValueError(f'k must be from 1 to the examples less one: {k=}, {examples} examples.')
    neighbours = stacks.each_layer(lambda layer, _: nearest.by_cosine(layer, k=k)[1], left, right)
    return np.asarray(_overlap(*map(jnp.stack, neighbours)))


def _has_flat_example(layer: np.ndarray) -> bool:
    reach = np.abs(layer - layer.mean(1, keepdims=True)).max(1)
    return bool((reach <= math.sqrt(stacks.CONSTANT) * np.abs(layer[:, 0])).any())


def _dissimilarities(layer: np.ndarray, comparison: str, dissimilarity: str) -> np.ndarray:
    """Dissimilarities [pairs], 0 if equal; `rsa` is the inner product of normalised ones."""
    # Computed from differences, not from norms and inner products: equal distances stay equal.
    if dissimilarity == 'euclidean':
        values = pdist(layer)
    else:
        layer = layer - layer.mean(1, keepdims=True)
        layer /= np.linalg.norm(layer, axis=1, keepdims=True)
        values = pdist(layer, 'sqeuclidean')  # twice 1 - Pearson's
        values[values < stacks.CONSTANT] = 0  # rounding of float32 features
    if comparison == 'spearman':
        values = scipy.stats.rankdata(values)
        values -= (len(values) + 1) / 2
    return values


@jax.jit
def _overlap(left: jax.Array, right: jax.Array) -> jax.Array:
    def share(a: jax.Array, b: jax.Array) -> jax.Array:
        return (a[:, :, None] == b[:, None, :]).sum() / a.size

    return jax.lax.map(lambda a: jax.lax.map(lambda b: share(a, b), right), left)
