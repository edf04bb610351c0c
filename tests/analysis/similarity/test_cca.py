"""Properties of canonical correlations and Procrustes distance beyond their equations."""

import numpy as np
import pytest
from representations import (
    each_pair,
    inverse_root,
    reference_cca,
    reference_principal,
    reference_procrustes,
    reference_pwcca,
    representation,
    rotation,
    single,
)

from vitjax.analysis import similarity


def test_cca_does_not_see_the_scale_of_features(x, y):
    """Also not where all but a few hold next to none of the variance."""
    wanted = each_pair(lambda a, b: reference_cca(a, b)[1].mean(), x, y)
    weighted = each_pair(reference_pwcca, y, x)
    for scale in (3e-4, 1e-9, 1e7):
        scaled = x * np.where(np.arange(12) < 6, scale, 1).astype(np.float32)
        np.testing.assert_allclose(similarity.cca(scaled, y), wanted, atol=1e-5)
        np.testing.assert_allclose(similarity.pwcca(y, scaled), weighted, atol=1e-5)
        # The weights of pwcca are of x's own features, as they are scaled.
        np.testing.assert_allclose(
            similarity.pwcca(scaled, y), each_pair(rescaled_pwcca(scale), x, y), atol=1e-5
        )


def rescaled_pwcca(scale):
    """`reference_pwcca` of `a` with half its features scaled, by the bases of `a` unscaled."""

    def measure(a, b):
        centred = a - a.mean(0)
        u, rho, _ = reference_cca(a, b)
        h = centred @ inverse_root(centred.T @ centred) @ u[:, : len(rho)]
        weights = np.abs(h.T @ (centred * np.where(np.arange(12) < 6, scale, 1))).sum(1)
        return (weights * rho).sum() / weights.sum()

    return measure


@pytest.mark.parametrize('condition', [1e2, 1e4])
def test_cca_does_not_see_linear_maps_that_float32_can_hold(x, y, condition):
    stretch = np.geomspace(1, 1 / condition, 12)
    mapped = single((x - x.mean(1, keepdims=True)) @ rotation(12, 1) * stretch @ rotation(12))
    assert np.abs(similarity.cca(mapped, y) - similarity.cca(x, y)).max() < 1e-6 * condition


def test_cca_of_features_that_depend_on_others(x, y):
    mixed = np.concatenate([x, x @ np.random.default_rng(0).normal(size=(12, 5))], axis=2)
    np.testing.assert_allclose(similarity.cca(single(mixed), y), similarity.cca(x, y), atol=1e-5)


def test_svcca_needs_fewer_directions_than_examples_not_features():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(2, 30, 4)) @ rng.normal(size=(2, 4, 50)) + 5 for _ in range(2))

    def reference(a, b):
        parts = reference_principal(a, 0.99), reference_principal(b, 0.99)
        return reference_cca(*parts)[1].mean()

    wanted = each_pair(reference, x, y)
    assert wanted.max() < 0.8
    np.testing.assert_allclose(similarity.svcca(single(x), single(y)), wanted, atol=1e-5)
    noise = single(rng.normal(size=(1, 30, 50)))
    with pytest.raises(ValueError, match='30 examples, layer 0 of y has 29 directions'):
        similarity.svcca(single(x), noise, variance=1)
    whole = single(x[..., :4])
    np.testing.assert_allclose(
        similarity.svcca(whole, variance=1), similarity.cca(whole), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize('features', [12, 64, 300])
def test_procrustes_keeps_its_digits_near_zero(features):
    x = representation(0, 2, 100, features)
    assert np.diag(similarity.procrustes(x)).max() < 1e-6
    turned = similarity.procrustes(x, single((x - 10) @ rotation(features) * 3))
    assert np.diag(turned).max() < 1e-5  # what float32 features have lost by being turned
    near = single(x + 1e-4 * np.random.default_rng(1).normal(size=x.shape))
    wanted = each_pair(reference_procrustes, x, near)
    np.testing.assert_allclose(similarity.procrustes(x, near), wanted, rtol=1e-5)


def test_procrustes_of_more_features_than_examples():
    x, y = representation(0, 2, 20, 50), representation(1, 2, 20, 7)
    np.testing.assert_allclose(
        similarity.procrustes(x, y), each_pair(reference_procrustes, x, y), atol=1e-5
    )
