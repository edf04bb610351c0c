"""Nearest neighbours by cosine, exact also for vectors that are nearly parallel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.base.types import Array


def by_cosine(bank: Array, queries: Array | None = None, *, k: int) -> tuple[jax.Array, jax.Array]:
    """The k rows of a bank [n, f] with the largest cosine to each query [m, f], nearest first.

    A vector of zeros has cosine 0 with everything. Cost: n m f; memory: a few hundred rows of n
    cosines.

    >>> bank = np.array([[1, 0], [1, 1], [-1, 0]])
    >>> by_cosine(bank, np.array([[2, 0.1]]), k=2)[1]
    Array([[0, 1]], dtype=int32)

    Args:
        bank: rows to search.
        queries: vectors to search for; None is the bank's rows, each without itself.
        k: number of neighbours, at most n (n - 1 without queries).

    Returns:
        Each cosine minus the largest of its query, 0 or less, and the indices into the bank, both
        [m, k].
    """
    units = _units(bank)
    # Far from the origin all cosines are nearly 1, and float32 cannot tell them apart. Their
    # differences need no large terms: with m the mean unit vector, u = m + v and q = m + w,
    # u·q = v·w + m·v + (a term that is the same for every u).
    middle = units.mean(0)
    shifted = units - middle
    own = shifted @ middle
    asked = shifted if queries is None else _units(queries) - middle
    arrays = (np.asarray(a, np.float32) for a in (shifted, own - own.mean(), asked))
    return _nearest(*arrays, k, queries is None)


def _units(vectors: Array) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


@functools.partial(jax.jit, static_argnames=('k', 'others'))
def _nearest(
    units: jax.Array, own: jax.Array, queries: jax.Array, k: int, others: bool
) -> tuple[jax.Array, jax.Array]:
    def of_one(query: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, vector = query
        cosines = jnp.matmul(units, vector, precision='highest') + own
        cosines = cosines.at[index].set(-jnp.inf) if others else cosines
        largest, nearest = jax.lax.top_k(cosines, k)
        return largest - largest[0], nearest

    return jax.lax.map(of_one, (jnp.arange(len(queries)), queries), batch_size=256)
