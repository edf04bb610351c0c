import numpy as np
import pytest

from vitjax.data import order


def batches(seed, start, steps, **what):
    """Rows [steps, batch] of one seed."""
    return order.Order((seed,), **what).rows(start, steps)[:, 0]


def test_every_example_comes_once_an_epoch():
    rows = batches(0, 0, 10, count=50, batch_size=5)
    assert sorted(rows.ravel()) == list(range(50))


def test_order_depends_on_seed_and_epoch_alone():
    def epoch(seed, index):
        return batches(seed, 10 * index, 10, count=50, batch_size=5)

    assert (epoch(0, 3) == epoch(0, 3)).all()
    assert (epoch(0, 3) != epoch(0, 4)).any()
    assert (epoch(0, 3) != epoch(1, 3)).any()


def test_any_start_gives_the_same_batches():
    whole = batches(1, 0, 23, count=31, batch_size=4)
    parts = [batches(1, s, n, count=31, batch_size=4) for s, n in ((0, 5), (5, 11), (16, 7))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_slice_the_same_batches(processes):
    whole = batches(0, 3, 4, count=64, batch_size=8)
    slices = [
        batches(0, 3, 4, count=64, batch_size=8, process=p, processes=processes)
        for p in range(processes)
    ]
    np.testing.assert_array_equal(np.concatenate(slices, axis=1), whole)


@pytest.mark.parametrize(('batch_size', 'repeats'), [(12, 3), (16, 3), (10, 2)])
def test_examples_are_repeated_apart_from_each_other(batch_size, repeats):
    steps = 60 // batch_size
    rows = batches(0, 2 * steps, steps, count=60, batch_size=batch_size, repeats=repeats)
    seen, times = np.unique(rows, return_counts=True)
    assert len(seen) == -(-rows.size // repeats) and times[:-1].max() == repeats
    assert sorted(times)[1] == repeats  # all but the last, which the epoch may cut
    assert set(seen) == set(order.order(0, 2, 60)[: len(seen)])
    assert (rows[:, ::2] != rows[:, 1::2]).all()  # what mixup pairs
    # Copies come in the same batch, or in the one that follows.
    for example in seen:
        steps, _ = np.nonzero(rows == example)
        assert np.ptp(steps) <= 1


def test_a_step_is_a_batch_of_its_epoch():
    rows = batches(0, 13, 1, count=31, batch_size=4)  # seven full batches of 4 in 31
    np.testing.assert_array_equal(rows[0], order.order(0, 1, 31)[24:28])


@pytest.mark.parametrize('batch_size', [0, 32])
def test_a_batch_must_fit_the_data(batch_size):
    with pytest.raises(ValueError, match=f'batch_size={batch_size}, 31 images'):
        batches(0, 0, 1, count=31, batch_size=batch_size)


def test_processes_must_divide_the_batch():
    with pytest.raises(ValueError, match='processes=3.*batch_size=4'):
        batches(0, 0, 1, count=31, batch_size=4, processes=3)


def test_evenly_takes_distinct_rows_with_the_first_and_the_last():
    rng = np.random.default_rng(0)
    counts = [*range(1, 40), *rng.integers(40, 2_000_000, 10)]
    for count in counts:
        for most in {1, count, *rng.integers(1, count + 1, 6)}:
            rows = order.evenly(int(count), int(most))
            assert len(rows) == most and rows[0] == 0 and (np.diff(rows) > 0).all()
            assert most == 1 or rows[-1] == count - 1
            steps = np.diff(rows)
            assert not len(steps) or steps.max() - steps.min() <= 1
    assert list(order.evenly(3, 8)) == [0, 1, 2] and not len(order.evenly(0, 8))


def test_as_many_examples_as_asked_for_or_none():
    assert list(order.exactly(10, 4)) == [0, 3, 6, 9]
    for wanted in (0, 11, -1):
        with pytest.raises(ValueError, match=f'from 1 to 10, the images there are: {wanted}'):
            order.exactly(10, wanted)
