"""Probes against scikit-learn and float64 NumPy, and on labels whose answer is known."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.preprocessing

from vitjax.analysis import probe

PROBES = [probe.knn, probe.ridge, probe.linear]


@pytest.fixture(scope='module')
def material():
    """Three layers that tell four classes apart ever better, features on unequal scales."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 10))
    labels, truth = rng.integers(0, 4, 240), rng.integers(0, 4, 150)

    def layers(which, seed):
        noise = np.random.default_rng(seed).normal(size=(3, len(which), 10))
        strength = np.array([0, 0.5, 2])[:, None, None]
        out = (strength * centres[which] + noise) * np.geomspace(0.1, 50, 10) + 3
        return out.astype(np.float32)

    return layers(labels, 1), labels, layers(truth, 2), truth


@pytest.mark.parametrize('measure', PROBES, ids=lambda m: m.__name__)
def test_the_better_the_layer_the_better_the_probe(measure, material):
    found = measure(*material)
    assert found.shape == (3,)
    assert 0.1 < found[0] < 0.4  # a guess is right in a quarter
    assert found[1] > found[0] + 0.05
    assert found[2] > (0.6 if measure is probe.knn else 0.95)  # cosine sees the large features


@pytest.mark.parametrize('measure', PROBES, ids=lambda m: m.__name__)
def test_probes_do_not_see_the_order_of_examples_or_test_labels(measure, material):
    train, labels, test, truth = material
    order = np.random.default_rng(0).permutation(len(labels))
    before = measure(*material)
    np.testing.assert_allclose(
        measure(train[:, order], labels[order], test, truth), before, atol=1 / len(truth)
    )
    right = measure(train, labels, test[:, ::-1], truth[::-1])
    np.testing.assert_allclose(right, before, atol=1e-7)
    shuffled = measure(train, np.random.default_rng(0).permutation(labels), test, truth)
    assert shuffled.max() < 0.45


@pytest.mark.parametrize('offset', [0, 3000])  # far from the origin all cosines are nearly 1
def test_knn_is_a_weighted_vote(material, offset):
    train, labels, test, truth = material
    train, test = train + np.float32(offset), test + np.float32(offset)
    wanted = []
    for a, b in zip(train.astype(float), test.astype(float), strict=True):
        a, b = (c / np.linalg.norm(c, axis=1, keepdims=True) for c in (a, b))
        right = 0
        for example, label in zip(b, truth, strict=True):
            similar = a @ example
            votes = np.zeros(4)
            for i in np.argsort(-similar)[:7]:
                votes[labels[i]] += np.exp(similar[i] / 0.07)
            right += votes.argmax() == label
        wanted.append(right / len(truth))
    np.testing.assert_allclose(probe.knn(train, labels, test, truth, k=7), wanted)
    np.testing.assert_array_equal(probe.knn(train, labels, train, labels, k=1), 1)


def test_ridge_is_scikit_learns(material):
    train, labels, test, truth = material
    wanted = []
    for a, b in zip(train.astype(float), test.astype(float), strict=True):
        scale = sklearn.preprocessing.StandardScaler().fit(a)
        model = sklearn.linear_model.Ridge(alpha=0.01 * len(a))
        model.fit(scale.transform(a), np.eye(4)[labels])
        wanted.append((model.predict(scale.transform(b)).argmax(1) == truth).mean())
    np.testing.assert_allclose(probe.ridge(*material, penalty=0.01), wanted)


def test_linear_is_scikit_learns(material):
    train, labels, test, truth = material
    wanted = []
    for a, b in zip(train.astype(float), test.astype(float), strict=True):
        scale = sklearn.preprocessing.StandardScaler().fit(a)
        model = sklearn.linear_model.LogisticRegression(C=1 / (0.01 * len(a)), max_iter=1000)
        model.fit(scale.transform(a), labels)
        wanted.append((model.predict(scale.transform(b)) == truth).mean())
    np.testing.assert_allclose(probe.linear(*material, penalty=0.01), wanted, atol=1 / len(truth))


def test_constant_features_do_no_harm(material):
    train, labels, test, truth = material
    constant = [np.concatenate([c, np.full((*c.shape[:2], 1), 0.1, np.float32)], 2)
                for c in (train, test)]  # fmt: skip
    for measure in (probe.ridge, probe.linear):
        found = measure(constant[0], labels, constant[1], truth)
        np.testing.assert_allclose(found, measure(*material), atol=1 / len(truth))


def test_wilson_is_its_equation():
    low, high = probe.wilson(np.array([0.9, 0, 1]), 100)
    # The bounds are where the true share's own normal interval just reaches what was seen.
    for share, bounds in zip((0.9, 0, 1), zip(low, high, strict=True), strict=True):
        for p in bounds:
            reach = 1.96 * np.sqrt(p * (1 - p) / 100)
            assert abs(abs(share - p) - reach) < 1e-7
    assert low[1] == pytest.approx(0, abs=1e-12) and high[1] > 0.03


def test_errors_say_what_does_not_fit(material):
    train, labels, test, truth = material
    with pytest.raises(ValueError, match=r'train \(3, 240, 10\) with 239'):
        probe.ridge(train, labels[1:], test, truth)
    with pytest.raises(ValueError, match=r'test \(3, 150, 9\)'):
        probe.linear(train, labels, test[..., 1:], truth)
    with pytest.raises(ValueError, match='k=241, 240 examples'):
        probe.knn(*material, k=241)
    with pytest.raises(ValueError, match='penalty=0'):
        probe.ridge(*material, penalty=0)
    broken = test.copy()
    broken[1, 0, 0] = np.inf
    with pytest.raises(ValueError, match='layer 1 of test'):
        probe.knn(train, labels, broken, truth)
    with pytest.raises(ValueError, match='negative'):
        probe.knn(train, labels - 1, test, truth)
