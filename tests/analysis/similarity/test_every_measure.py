"""Every measure against float64 NumPy written from its paper, and by its invariances."""

from typing import Any

import jax
import numpy as np
import pytest
from representations import (
    each_pair,
    reference_cca,
    reference_knn,
    reference_principal,
    reference_procrustes,
    reference_pwcca,
    reference_rsa,
    representation,
    rotation,
)

from vitjax.analysis import similarity
from vitjax.analysis.similarity import hsic


def euclidean(x, y):
    return similarity.rsa(x, y, dissimilarity='euclidean')


def test_layers_of_unequal_widths_come_as_a_list(x, y):
    mixed = similarity.cka([x, y[0]], [y, x[1]])
    np.testing.assert_allclose(mixed[:3, :2], similarity.cka(x, y), atol=1e-6)
    np.testing.assert_allclose(mixed[1, 2], 1, atol=1e-6)
    np.testing.assert_allclose(mixed[3, 2], similarity.cka(x, y)[1, 0], atol=1e-6)
    narrow = similarity.procrustes([x, y[0]], [y, x[1]])
    np.testing.assert_allclose(narrow[:3, :2], similarity.procrustes(x, y), atol=1e-6)


def test_undefined_layers_are_named_with_the_reason(x, y):
    broken, flat = x.copy(), y.copy()
    broken[1, 3, 4] = np.nan
    flat[0] = 3.7
    for call in (
        lambda: similarity.cka(broken, flat),
        lambda: similarity.cka(broken, flat, kernel='rbf'),
        lambda: similarity.minibatch_cka([(broken, flat)]),
        lambda: similarity.procrustes(broken, flat),
        lambda: similarity.cca(broken, flat),
        lambda: similarity.rsa(broken, flat),
        lambda: similarity.mutual_knn(broken, flat),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert 'layer 1 of x has features that are NaN' in str(error.value)
        assert 'layer 0 of y is the same for every example' in str(error.value)
        assert 'layer 0 of x' not in str(error.value)
    with pytest.raises(ValueError, match='blocks 1 has features that are NaN'):
        hsic(broken, flat).cka(['embed', 'blocks 1', 'blocks 2'], ['a', 'b'])


def test_one_dead_feature_changes_nothing(x, y):
    dead = np.concatenate([x, np.full((*x.shape[:2], 1), 2, np.float32)], axis=2)
    for measure in (similarity.cka, similarity.cca):
        np.testing.assert_allclose(measure(dead, y), measure(x, y), atol=1e-5)


def test_other_errors_say_both_values(x, y):
    with pytest.raises(ValueError, match=r'same examples: got \[39, 40\]'):
        similarity.cka(x, y[:, 1:])
    with pytest.raises(ValueError, match="kernel='cubic'"):
        similarity.cka(x, y, kernel='cubic')
    with pytest.raises(ValueError, match='40 examples, x has 50 features'):
        similarity.cca(representation(0, features=50), y)
    with pytest.raises(ValueError, match='pwcca needs two .*40 examples, y has 40 features'):
        similarity.pwcca(y, representation(0, features=40))
    with pytest.raises(ValueError, match='k=40, 40 examples'):
        similarity.mutual_knn(x, y, k=40)
    with pytest.raises(ValueError, match=r'\[layers, examples, features\]: got shape \(40, 12\)'):
        similarity.cka(x[0], y)
    with pytest.raises(ValueError, match='two batches or more: got 1'):
        similarity.bootstrap([hsic(x, y)])


@pytest.mark.parametrize(
    ('measure', 'reference'),
    [
        (similarity.cca, lambda a, b: reference_cca(a, b)[1].mean()),
        (
            lambda x, y: similarity.svcca(x, y, variance=0.9),
            lambda a, b: reference_cca(reference_principal(a, 0.9), reference_principal(b, 0.9))[
                1
            ].mean(),
        ),
        (similarity.pwcca, reference_pwcca),
        (similarity.procrustes, reference_procrustes),
        (
            similarity.procrustes_angle,
            lambda a, b: np.arccos(1 - reference_procrustes(a, b) ** 2 / 2),
        ),
        (similarity.rsa, reference_rsa('spearman', 'correlation')),
        (
            lambda x, y: similarity.rsa(x, y, comparison='cosine', dissimilarity='euclidean'),
            reference_rsa('cosine', 'euclidean'),
        ),
        (lambda x, y: similarity.mutual_knn(x, y, k=5), reference_knn(5)),
    ],
    ids=['cca', 'svcca', 'pwcca', 'procrustes', 'angle', 'spearman', 'cosine', 'knn'],
)
def test_measures_are_their_equations(measure, reference, x, y):
    np.testing.assert_allclose(measure(x, y), each_pair(reference, x, y), atol=1e-5)
    np.testing.assert_allclose(measure(y, x), each_pair(reference, y, x), atol=1e-5)


SELF = {
    similarity.cca: 1,
    similarity.svcca: 1,
    similarity.pwcca: 1,
    similarity.procrustes: 0,
    similarity.procrustes_angle: 0,
    similarity.rsa: 1,
    similarity.mutual_knn: 1,
}


@pytest.mark.parametrize(
    ('measure', 'value'), SELF.items(), ids=lambda m: getattr(m, '__name__', '')
)
def test_measures_of_a_representation_with_itself(measure, value, x):
    np.testing.assert_allclose(np.diag(measure(x)), value, atol=1e-5)
    np.testing.assert_array_equal(measure(x), measure(x, x))


@pytest.mark.parametrize('measure', SELF, ids=lambda m: m.__name__)
def test_measures_and_the_order_of_examples(measure, x, y):
    before = measure(x, y)
    order = np.random.default_rng(0).permutation(x.shape[1])
    np.testing.assert_allclose(measure(x[:, order], y[:, order]), before, atol=1e-5)
    assert np.abs(measure(x[:, order], y) - before).max() > 0.02


ROTATION = [
    similarity.cca,
    similarity.svcca,
    similarity.procrustes,
    euclidean,
    similarity.mutual_knn,
]


@pytest.mark.parametrize('measure', ROTATION, ids=lambda m: m.__name__)
def test_invariance_to_rotation_and_scale(measure, x, y):
    before = measure(x, y)
    np.testing.assert_allclose(measure(x @ rotation(12), y @ rotation(9)), before, atol=2e-4)
    np.testing.assert_allclose(measure(x * 8, y / 4), before, atol=1e-5)


def streamed(x, y):
    return similarity.minibatch_cka([(x[:, :20], y[:, :20]), (x[:, 20:], y[:, 20:])])


def by_kernel(x, y):
    return similarity.cka(x, y, kernel='rbf')


def of_products(x, y):
    """The way by f x g products, for fewer features than examples."""
    return similarity.cka(x[..., :3], y[..., :4])


OF_ANY_SCALE = [
    *SELF, similarity.cka, streamed, by_kernel, of_products, euclidean,
]  # fmt: skip


@pytest.mark.parametrize('measure', OF_ANY_SCALE, ids=lambda m: m.__name__)
def test_the_scale_of_either_side_changes_nothing(measure, x, y):
    before = measure(x, y)
    for a, b in ((1e-30, 1), (1, 1e30), (1e-30, 1e30), (1e8, 1e-11), (1e30, 1e30)):
        found = measure(x * np.float32(a), y * np.float32(b))
        np.testing.assert_allclose(found, before, atol=1e-5)
    one = x.copy()
    one[1] *= np.float32(1e-30)  # a layer of its own scale, in the same stack
    np.testing.assert_allclose(measure(one, y), before, atol=1e-5)


@pytest.mark.parametrize('measure', OF_ANY_SCALE, ids=lambda m: m.__name__)
@pytest.mark.parametrize('scale', [1e-45, 1e-38, 1e38, 1e45])
def test_float64_beyond_float32_changes_nothing(measure, scale, x, y):
    large = np.float64(x) * scale
    np.testing.assert_allclose(measure(large, y), measure(x, y), atol=1e-5)
    large[0] = x[0]  # a layer of its own scale
    np.testing.assert_allclose(measure(large, y), measure(x, y), atol=1e-5)


def test_scales_whose_sums_float64_cannot_hold(x, y):
    for scale in (1e-300, 1e-100, 1e100, 1e300):
        large: Any = np.asarray(x, np.float64) * scale
        np.testing.assert_allclose(similarity.cka(large, y), similarity.cka(x, y), atol=1e-5)
        with pytest.raises(ValueError, match='layer 0 of x has features that are .*beyond'):
            streamed(large, y)


@pytest.mark.parametrize('scale', [1e-30, 1e-11, 1, 1e8, 1e30])
def test_constant_layers_are_refused_at_any_scale(scale, x, y):
    flat = x * np.float32(scale)
    flat[1] = flat[1, :1]
    for measure in (similarity.cka, streamed, similarity.procrustes, similarity.cca):
        with pytest.raises(ValueError, match='layer 1 of x is the same for every example'):
            measure(flat, y)


def test_traced_sums_that_float32_cannot_hold_are_not_called_constant(x, y):
    with pytest.raises(ValueError, match='layer 0 of x has features that are .*beyond float32'):
        jax.jit(hsic)(x * np.float32(1e-20), y).cka()
    found = jax.jit(hsic)(x * np.float32(1e-6), y * np.float32(1e6)).cka()
    np.testing.assert_allclose(found, similarity.cka(x, y), atol=1e-5)


def test_batches_weigh_by_their_own_scale(x, y):
    """The larger half outweighs the other, whatever each was divided by on the way."""
    halves = [(x[:, :20], y[:, :20]), (1e4 * x[:, 20:], 1e4 * y[:, 20:])]
    np.testing.assert_allclose(
        similarity.minibatch_cka(halves), similarity.minibatch_cka(halves[1:]), atol=1e-5
    )


def test_who_is_invariant_to_what_else(x, y):
    invertible = np.random.default_rng(5).normal(size=(9, 9)).astype(np.float32)

    def change(measure, *other):
        return np.abs(measure(*other) - measure(x, y)).max()

    for measure in (similarity.cca, similarity.pwcca):
        assert change(measure, x, y @ invertible) < 1e-4
    for measure in (similarity.svcca, similarity.procrustes, similarity.rsa, similarity.mutual_knn):
        assert change(measure, x, y @ invertible) > 0.01
    for measure in (similarity.cca, similarity.svcca, similarity.procrustes, euclidean):
        assert change(measure, x, y + 5) < 1e-4
    assert change(similarity.mutual_knn, x, y - 10) > 0.01
    assert change(similarity.pwcca, x * 8, y) < 1e-5
    for measure in (similarity.rsa, similarity.pwcca):
        assert change(measure, x @ rotation(12), y) > 0.003
