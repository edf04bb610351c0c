"""Every measure against float64 NumPy written from its paper, and by its invariances."""

import functools
import operator
import pathlib
import socket
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.stats

from vitjax.analysis import similarity
from vitjax.analysis.similarity import hsic
from vitjax.analysis.similarity.cka import by_examples

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'cka.npz'


def representation(seed, layers=3, examples=40, features=12, like=None):
    """Layers with some structure in common and some of their own, far from the origin."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(layers, examples, features)) * np.geomspace(1, 4, features)
    shared = np.random.default_rng(99).normal(size=(examples, 5))
    share = np.linspace(0.2, 2, layers)[:, None, None]
    out = own + share * (shared @ rng.normal(size=(layers, 5, features))) + 10
    return out.astype(np.float32)


@pytest.fixture(scope='module')
def x():
    return representation(0)


@pytest.fixture(scope='module')
def y():
    return representation(1, layers=2, features=9)


def rotation(width, seed=0):
    return scipy.stats.ortho_group.rvs(width, random_state=seed).astype(np.float32)


def total(parts) -> Any:
    return functools.reduce(operator.add, parts)


def each_pair(measure, x, y):
    return np.array([[measure(np.float64(a), np.float64(b)) for b in y] for a in x])


# References, in float64, straight from the equations


def reference_hsic(x, y, kernel='linear', unbiased=True, bandwidth=1.0):
    def gram(a):
        if kernel == 'linear':
            return a @ a.T
        distances = np.sqrt(((a[:, None] - a[None]) ** 2).sum(-1))
        scale = bandwidth * np.median(distances[~np.eye(len(a), dtype=bool)])
        return np.exp(-(distances**2) / (2 * scale**2))

    k, m, n = gram(x), gram(y), len(x)
    if not unbiased:
        h = np.eye(n) - 1 / n
        return np.trace(k @ h @ m @ h) / (n - 1) ** 2
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return (
        np.trace(k @ m)
        + k.sum() * m.sum() / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (k.sum(0) @ m.sum(1))
    ) / (n * (n - 3))


def reference_cka(**how):
    def measure(a, b):
        return reference_hsic(a, b, **how) / np.sqrt(
            reference_hsic(a, a, **how) * reference_hsic(b, b, **how)
        )

    return measure


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors / np.sqrt(values)) @ vectors.T


def reference_cca(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return np.linalg.svd(inverse_root(a.T @ a) @ a.T @ b @ inverse_root(b.T @ b))


def reference_principal(a, variance):
    a = a - a.mean(0)
    u, s, v = np.linalg.svd(a, full_matrices=False)
    count = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), variance)) + 1
    return a @ v[:count].T


def reference_pwcca(a, b):
    centred = a - a.mean(0)
    u, rho, _ = reference_cca(a, b)
    h = centred @ inverse_root(centred.T @ centred) @ u[:, : len(rho)]
    weights = np.abs(h.T @ centred).sum(1)
    return (weights * rho).sum() / weights.sum()


def reference_procrustes(a, b):
    a, b = ((c - c.mean(0)) / np.linalg.norm(c - c.mean(0)) for c in (a, b))
    width = max(a.shape[1], b.shape[1])
    a, b = (np.pad(c, ((0, 0), (0, width - c.shape[1]))) for c in (a, b))
    q, _ = scipy.linalg.orthogonal_procrustes(b, a)
    return np.linalg.norm(a - b @ q)


def reference_rsa(comparison, dissimilarity):
    def measure(a, b):
        upper = np.triu_indices(len(a), 1)
        if dissimilarity == 'correlation':
            tables = [1 - np.corrcoef(c) for c in (a, b)]
        else:
            tables = [np.sqrt(((c[:, None] - c[None]) ** 2).sum(-1)) for c in (a, b)]
        u, v = (t[upper] for t in tables)
        if comparison == 'spearman':
            u, v = scipy.stats.rankdata(u), scipy.stats.rankdata(v)
            return np.corrcoef(u, v)[0, 1]
        return u @ v / np.linalg.norm(u) / np.linalg.norm(v)

    return measure


def reference_knn(k):
    def nearest(a):
        unit = a / np.linalg.norm(a, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        return [set(row) for row in np.argsort(-cosines, axis=1)[:, :k]]

    return lambda a, b: np.mean(
        [len(s & t) / k for s, t in zip(nearest(a), nearest(b), strict=True)]
    )


# CKA


@pytest.mark.parametrize('unbiased', [True, False])
@pytest.mark.parametrize('kernel', ['linear', 'rbf'])
@pytest.mark.parametrize('features', [5, 30, 900])  # fewer than examples; more; several slices
def test_cka_is_its_equation(kernel, unbiased, features):
    x, y = representation(0, 3, 24, features), representation(1, 2, 24, features - 1)
    how = {'kernel': kernel, 'unbiased': unbiased, 'bandwidth': 0.7}
    ours = similarity.cka(x, y, **how)
    np.testing.assert_allclose(ours, each_pair(reference_cka(**how), x, y), atol=2e-6)


def test_the_smaller_gram_is_chosen():
    def chosen(layers, n, f):
        stacks: Any = (np.zeros((layers, n, f), np.float16),)
        return by_examples(stacks, stacks)

    assert chosen(12, 64, 192 * 197)
    assert chosen(3, 24, 30)
    assert not chosen(12, 64 * 197, 192)
    assert not chosen(3, 24, 5)  # so the test above covers both


def test_minibatch_cka_is_the_independent_implementation():
    golden = np.load(GOLDEN)
    x, y, n = golden['x'], golden['y'], int(golden['batch'])
    batches = ((x[:, i : i + n], y[:, i : i + n]) for i in range(0, x.shape[1], n))
    np.testing.assert_allclose(similarity.minibatch_cka(batches), golden['cka'], atol=1e-5)


def test_minibatch_cka_averages_hsics_weighted_by_examples(x, y):
    cuts = [slice(0, 16), slice(16, 35), slice(35, 40)]

    def average(a, b):
        return sum(reference_hsic(a[c], b[c]) * len(a[c]) for c in cuts) / len(a)

    wanted = each_pair(lambda a, b: average(a, b) / np.sqrt(average(a, a) * average(b, b)), x, y)
    ours = similarity.minibatch_cka((x[:, c], y[:, c]) for c in cuts)
    np.testing.assert_allclose(ours, wanted, atol=2e-6)


def test_unbiased_cka_of_unrelated_features_is_about_zero_and_may_be_negative():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 64, 400)).astype(np.float32)
    unrelated = similarity.cka(x, y)
    assert np.abs(unrelated).max() < 0.05
    assert unrelated.min() < 0
    assert similarity.cka(x, y, unbiased=False).min() > 0.5  # what the bias does


@pytest.mark.parametrize('kernel', ['linear', 'rbf'])
def test_cka_invariances(x, y, kernel):
    before = similarity.cka(x, y, kernel=kernel)
    order = np.random.default_rng(0).permutation(x.shape[1])
    for same in (
        (x @ rotation(12), y),
        (x * 7, y * 0.01),
        (x - 3, y + 5),
        (x[:, order], y[:, order]),
    ):
        np.testing.assert_allclose(similarity.cka(*same, kernel=kernel), before, atol=3e-6)
    assert np.abs(similarity.cka(x[:, order], y, kernel=kernel) - before).max() > 0.05
    stretched = x * np.geomspace(1, 100, 12, dtype=np.float32)
    assert np.abs(similarity.cka(stretched, y, kernel=kernel) - before).max() > 0.05
    np.testing.assert_allclose(np.diag(similarity.cka(x, kernel=kernel)), 1, atol=1e-6)


def test_layers_of_unequal_widths_come_as_a_list(x, y):
    mixed = similarity.cka([x, y[0]], [y, x[1]])
    np.testing.assert_allclose(mixed[:3, :2], similarity.cka(x, y), atol=1e-6)
    np.testing.assert_allclose(mixed[1, 2], 1, atol=1e-6)
    np.testing.assert_allclose(mixed[3, 2], similarity.cka(x, y)[1, 0], atol=1e-6)
    narrow = similarity.procrustes([x, y[0]], [y, x[1]])
    np.testing.assert_allclose(narrow[:3, :2], similarity.procrustes(x, y), atol=1e-6)


def test_float16_is_computed_in_float32(x, y):
    half = x.astype(np.float16), y.astype(np.float16)
    whole = half[0].astype(np.float32), half[1].astype(np.float32)
    np.testing.assert_array_equal(similarity.cka(*half), similarity.cka(*whole))


# Streaming


def batches_of(x, y, size):
    return [(x[:, i : i + size], y[:, i : i + size]) for i in range(0, x.shape[1], size)]


@pytest.fixture(scope='module')
def stream():
    return batches_of(representation(3, 3, 128, 20), representation(4, 2, 128, 800), 16)


def test_eight_devices_give_the_same(stream):
    alone = similarity.minibatch_cka(stream)
    # One batch split over eight devices is gathered: it is one Gram matrix.
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, 'data'))
    spread = [(jax.device_put(a, split), jax.device_put(b, split)) for a, b in stream]
    np.testing.assert_allclose(similarity.minibatch_cka(spread), alone, atol=1e-6)
    # A batch for each device, then one sum.
    xs, ys = (np.stack(side) for side in zip(*stream, strict=True))
    total = jax.pmap(lambda a, b: jax.lax.psum(hsic(a, b), 'batch'), axis_name='batch')(xs, ys)
    np.testing.assert_allclose(jax.tree.map(lambda v: v[0], total).cka(), alone, atol=1e-6)


TWO = """
import os, sys
import jax
jax.config.update('jax_platforms', 'cpu')
address, index, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.distributed.initialize(address, num_processes=2, process_id=index)
import numpy as np
from vitjax.analysis import similarity
found = np.load(source)
parts = [similarity.hsic(a, b) for a, b in list(zip(found['x'], found['y']))[index::2]]
print('alternate', similarity.sum_over_processes(sum(parts[1:], parts[0])).cka().tolist())
# A batch that is split over both processes.
mesh = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, 'data'))
def share(a):
    return jax.make_array_from_process_local_data(split, np.split(a, 2, axis=1)[index])
print('split', similarity.minibatch_cka(
    (share(a), share(b)) for a, b in zip(found['x'], found['y'])).tolist())
"""


def test_two_processes_give_the_same(stream, tmp_path):
    xs, ys = (np.stack(side) for side in zip(*stream, strict=True))
    np.savez(tmp_path / 'stream.npz', x=xs, y=ys)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    command = [sys.executable, '-c', TWO, address]
    processes = [
        subprocess.Popen(
            [*command, str(i), str(tmp_path / 'stream.npz')],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={'PATH': '', 'XLA_FLAGS': ''},
        )
        for i in range(2)
    ]
    outputs = [p.communicate(timeout=120) for p in processes]
    alone = similarity.minibatch_cka(stream)
    for out, err in outputs:
        lines = dict(line.split(' ', 1) for line in out.splitlines() if '[[' in line)
        assert set(lines) == {'alternate', 'split'}, err
        for value in lines.values():
            np.testing.assert_allclose(np.array(eval(value)), alone, atol=1e-6)


def test_sums_can_be_saved_and_carried_on(stream, tmp_path):
    parts = [hsic(a, b).on_host() for a, b in stream]
    half = total(parts[:4])
    leaves, tree = jax.tree.flatten(half)
    np.savez(tmp_path / 'half.npz', *leaves)
    back = tree.unflatten(list(np.load(tmp_path / 'half.npz').values()))
    whole = total([back, *parts[4:]])
    np.testing.assert_array_equal(whole.cka(), similarity.minibatch_cka(stream))
    assert whole.examples == 128


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    """Batches of one pair of representations: the interval holds the value of very many batches."""
    mixing = np.random.default_rng(0).normal(size=(6, 8))

    def parts(seed, count):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(count, 1, 32, 6)).astype(np.float32)
        y = (x @ mixing + 2 * rng.normal(size=(count, 1, 32, 8))).astype(np.float32)
        each = jax.vmap(hsic)(x, y)
        return [jax.tree.map(lambda v, i=i: np.asarray(v)[i], each) for i in range(count)]

    many = parts(123, 2000)
    truth = total(many).cka()
    inside, width = 0, {}
    for seed in range(60):
        low, high = similarity.bootstrap(parts(seed, 40), level=0.9, resamples=400, seed=seed)
        inside += bool((low < truth).all() and (truth < high).all())
    assert 45 <= inside <= 60  # 54 expected of 60
    for count in (40, 640):
        low, high = similarity.bootstrap(many[:count])
        width[count] = (high - low).item()
    assert 3 < width[40] / width[640] < 5.3  # falls as the square root: 4


# Errors


def test_a_small_last_batch_is_named(x, y):
    with pytest.raises(ValueError, match='batch 2: a batch must have 4 examples or more.*got 2'):
        similarity.minibatch_cka(batches_of(x[:, :38], y[:, :38], 18))
    with pytest.raises(ValueError, match='at least one batch'):
        similarity.minibatch_cka([])


def test_what_is_not_defined_is_named_by_layer_and_reason(x, y):
    broken, flat = x.copy(), y.copy()
    broken[1, 3, 4] = np.nan
    flat[0] = 3.7
    for call in (
        lambda: similarity.cka(broken, flat),
        lambda: similarity.cka(broken, flat, kernel='rbf'),
        lambda: similarity.minibatch_cka(batches_of(broken, flat, 10)),
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


# The other measures


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
    mapped = np.float32((x - x.mean(1, keepdims=True)) @ rotation(12, 1) * stretch @ rotation(12))
    assert np.abs(similarity.cca(mapped, y) - similarity.cca(x, y)).max() < 1e-6 * condition


def test_cca_of_features_that_depend_on_others(x, y):
    mixed = np.concatenate([x, x @ np.random.default_rng(0).normal(size=(12, 5))], axis=2)
    np.testing.assert_allclose(
        similarity.cca(np.float32(mixed), y), similarity.cca(x, y), atol=1e-5
    )


def test_svcca_needs_fewer_directions_than_examples_not_features():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(2, 30, 4)) @ rng.normal(size=(2, 4, 50)) + 5 for _ in range(2))

    def reference(a, b):
        parts = reference_principal(a, 0.99), reference_principal(b, 0.99)
        return reference_cca(*parts)[1].mean()

    wanted = each_pair(reference, x, y)
    assert wanted.max() < 0.8
    np.testing.assert_allclose(similarity.svcca(np.float32(x), np.float32(y)), wanted, atol=1e-5)
    noise = np.float32(rng.normal(size=(1, 30, 50)))
    with pytest.raises(ValueError, match='30 examples, layer 0 of y has 29 directions'):
        similarity.svcca(np.float32(x), noise, variance=1)
    whole = np.float32(x[..., :4])
    np.testing.assert_allclose(
        similarity.svcca(whole, variance=1), similarity.cca(whole), atol=1e-5
    )


@pytest.mark.parametrize('features', [12, 64, 300])
def test_procrustes_keeps_its_digits_near_zero(features):
    x = representation(0, 2, 100, features)
    assert np.diag(similarity.procrustes(x)).max() < 1e-6
    turned = similarity.procrustes(x, np.float32((x - 10) @ rotation(features) * 3))
    assert np.diag(turned).max() < 1e-5  # what float32 features have lost by being turned
    near = np.float32(x + 1e-4 * np.random.default_rng(1).normal(size=x.shape))
    wanted = each_pair(reference_procrustes, x, near)
    np.testing.assert_allclose(similarity.procrustes(x, near), wanted, rtol=1e-5)


def test_procrustes_of_more_features_than_examples():
    x, y = representation(0, 2, 20, 50), representation(1, 2, 20, 7)
    np.testing.assert_allclose(
        similarity.procrustes(x, y), each_pair(reference_procrustes, x, y), atol=1e-5
    )


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


def euclidean_rsa(x, y):
    return similarity.rsa(x, y, dissimilarity='euclidean')


ROTATION = [
    similarity.cca,
    similarity.svcca,
    similarity.procrustes,
    euclidean_rsa,
    similarity.mutual_knn,
]


@pytest.mark.parametrize('measure', ROTATION, ids=lambda m: m.__name__)
def test_invariance_to_rotation_and_scale(measure, x, y):
    before = measure(x, y)
    np.testing.assert_allclose(measure(x @ rotation(12), y @ rotation(9)), before, atol=2e-4)
    np.testing.assert_allclose(measure(x * 8, y / 4), before, atol=1e-5)


def test_who_is_invariant_to_what_else(x, y):
    invertible = np.random.default_rng(5).normal(size=(9, 9)).astype(np.float32)

    def change(measure, *other):
        return np.abs(measure(*other) - measure(x, y)).max()

    for measure in (similarity.cca, similarity.pwcca):
        assert change(measure, x, y @ invertible) < 1e-4
    for measure in (similarity.svcca, similarity.procrustes, similarity.rsa, similarity.mutual_knn):
        assert change(measure, x, y @ invertible) > 0.01
    for measure in (similarity.cca, similarity.svcca, similarity.procrustes, euclidean_rsa):
        assert change(measure, x, y + 5) < 1e-4
    assert change(similarity.mutual_knn, x, y - 10) > 0.01
    assert change(similarity.pwcca, x * 8, y) < 1e-5
    for measure in (similarity.rsa, similarity.pwcca):
        assert change(measure, x @ rotation(12), y) > 0.003


def test_ranks_of_ties_are_averaged():
    half = np.round(np.random.default_rng(0).normal(size=(2, 15, 2)) * 2).astype(np.float32)
    points = np.concatenate([half, -half], axis=1)  # on a lattice around 0: many equal distances
    ours = euclidean_rsa(points, points[::-1])
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
    x, y = (np.float32(a + offset * (1 + rng.random(16))) for a in (x, y))
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
    assert jnp.isfinite(euclidean_rsa(flat, x)).all()
