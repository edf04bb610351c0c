"""CKA against its equations, over batches, devices and processes."""

import functools
import operator
import pathlib
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from representations import each_pair, reference_cka, reference_hsic, representation, rotation

from vitjax.analysis import similarity
from vitjax.analysis.similarity import hsic
from vitjax.analysis.similarity.cka import by_examples

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'cka.npz'


def total(parts) -> Any:
    return functools.reduce(operator.add, parts)


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


def test_float16_is_computed_in_float32(x, y):
    half = x.astype(np.float16), y.astype(np.float16)
    whole = half[0].astype(np.float32), half[1].astype(np.float32)
    np.testing.assert_array_equal(similarity.cka(*half), similarity.cka(*whole))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 3, 4, 8, 16, 20, 50])
def test_intervals_over_few_batches_cover_as_often_as_over_many(count):
    rng = np.random.default_rng(count)
    x = rng.normal(size=(3000, 1, 16, 4)).astype(np.float32)
    y = x @ rng.normal(size=(4, 6)).astype(np.float32)
    y += 2 * rng.normal(size=y.shape).astype(np.float32)
    many = jax.tree.map(np.asarray, jax.vmap(hsic)(x, y))
    truth = total([jax.tree.map(lambda leaf: leaf.sum(0), many)]).cka()

    def taken():
        for i in rng.integers(0, len(x), count):
            yield jax.tree.map(lambda leaf, i=i: leaf[i], many)

    drawn = [similarity.bootstrap([*taken()], resamples=500) for _ in range(400)]
    inside = np.mean([(low <= truth) & (truth <= high) for low, high in drawn])
    assert 0.91 < inside < 0.98  # three deviations of 400 draws are 0.033


def test_a_small_last_batch_is_named(x, y):
    with pytest.raises(ValueError, match='batch 2: a batch must have 4 examples or more.*got 2'):
        similarity.minibatch_cka(batches_of(x[:, :38], y[:, :38], 18))
    with pytest.raises(ValueError, match='at least one batch'):
        similarity.minibatch_cka([])
