"""Dissimilarities and neighbours where digits are few."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
from representations import each_pair, reference_knn, reference_rsa, single

from vitjax.analysis import similarity


def euclidean(x, y):
    return similarity.rsa(x, y, dissimilarity='euclidean')


def test_ranks_of_ties_are_averaged():
    half = np.round(np.random.default_rng(0).normal(size=(2, 15, 2)) * 2).astype(np.float32)
    points = np.concatenate([half, -half], axis=1)  # on a lattice around 0: many equal distances
    ours = euclidean(points, points[::-1])
    wanted = each_pair(reference_rsa('spearman', 'euclidean'), points, points[::-1])
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize('comparison', ['spearman', 'cosine'])
def test_rsa_of_integers_breaks_no_ties(comparison):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (2, 2, 60, 8)).astype(np.float32)
    ours = similarity.rsa(x, y, comparison=comparison, dissimilarity='euclidean')
    wanted = each_pair(reference_rsa(comparison, 'euclidean'), x, y)
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_rsa_breaks_no_ties_of_examples_that_are_equal():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, 12, 7)).astype(np.float32)
    x = np.concatenate([x, x], axis=1)
    y = np.concatenate([y, y], axis=1)
    for kind in ('euclidean', 'correlation'):

        def reference(a, b, kind: Any = kind) -> Any:
            u, v = (np.round(scipy.spatial.distance.pdist(c, kind), 10) for c in (a, b))
            return scipy.stats.spearmanr(u, v)[0]

        ours = similarity.rsa(x, y, dissimilarity=kind)
        np.testing.assert_allclose(ours, each_pair(reference, x, y), atol=1e-6)


def test_rsa_keeps_its_digits_far_from_the_origin():
    rng = np.random.default_rng(0)
    pattern = 1000 * rng.normal(size=20)  # nearly all that examples are: correlations of 1 - 1e-6
    x, y = (pattern + rng.normal(size=(2, 2, 30, 20))).astype(np.float32)
    for how in (('spearman', 'correlation'), ('cosine', 'correlation'), ('spearman', 'euclidean')):
        ours = similarity.rsa(x, y, comparison=how[0], dissimilarity=how[1])
        np.testing.assert_allclose(ours, each_pair(reference_rsa(*how), x, y), atol=1e-4)


def test_rsa_of_dissimilarities_that_are_all_alike_is_an_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 8)).astype(np.float32)
    scaled, simplex = x.copy(), x.copy()
    scaled[1] = np.outer([1, 2, 3, 5, 7, 9], x[0, 0])
    simplex[0] = np.eye(6, 8)
    with pytest.raises(ValueError, match='layer 1 of y has dissimilarities that are all alike'):
        similarity.rsa(x, scaled)
    for dissimilarity in ('euclidean', 'correlation'):
        with pytest.raises(ValueError, match='layer 0 of x .*all alike'):
            similarity.rsa(simplex, x, dissimilarity=dissimilarity)
    assert np.isfinite(similarity.rsa(simplex, x, comparison='cosine')).all()
    with pytest.raises(ValueError, match='layer 1 of y .*all alike'):
        similarity.rsa(x, scaled, comparison='cosine')


@pytest.mark.parametrize('offset', [0, 100, 3000])
def test_knn_keeps_its_neighbours_far_from_the_origin(offset):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 1000, 16))
    y = x + 0.5 * rng.normal(size=x.shape)
    x, y = (single(a + offset * (1 + rng.random(16))) for a in (x, y))
    wanted = each_pair(reference_knn(10), x, y)
    assert 0.1 < wanted.item() < 0.9
    np.testing.assert_allclose(similarity.mutual_knn(x, y), wanted, atol=2e-4)


def test_knn_of_an_example_that_is_zero(x):
    """It is as far from all others as what is orthogonal to them."""
    y = x - 10
    y[:, 7] = 0
    units = y.astype(float) / np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-30)
    cosines = units @ units.mT
    cosines[:, range(40), range(40)] = -np.inf
    near = [[set(row) for row in np.argsort(-layer, axis=1)[:, :5]] for layer in cosines]
    share = [len(a & b) / 5 for a, b in zip(near[0], near[2], strict=True)]
    others = np.delete(np.arange(40), 7)  # its own neighbours are any
    ours = similarity.mutual_knn(y, k=5)[0, 2] * 40
    assert abs(ours - np.sum(np.array(share)[others])) <= 1 + 1e-5


def test_equal_features_within_an_example_have_no_correlation(x):
    flat = x.copy()
    flat[2, 5] = 1
    with pytest.raises(ValueError, match='layer 2 of x has one; use euclidean'):
        similarity.rsa(flat, x)
    assert jnp.isfinite(euclidean(flat, x)).all()
