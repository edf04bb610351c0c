import numpy as np
import pytest

from vitjax.data import feed
from vitjax.data.order import Order
from vitjax.data.source import Data, Encoded

COUNT, BATCH, TOTAL = 20, 4, 23


@pytest.fixture
def data():
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
    return Data(images, np.arange(COUNT, dtype=np.int32), ())


def encoded(data):
    return Data(Encoded(range(COUNT), lambda i: data.images[i]), data.labels, ())


def until(step):
    return min(TOTAL, (step // 5 + 1) * 5)


def examples(chunk):
    """Images and labels of a chunk's steps, which says by rows where it has all there are."""
    taken = chunk.rows if chunk.data[1].ndim == 1 else np.arange(len(chunk.rows))
    return tuple(values[taken[: chunk.steps]] for values in chunk.data)


def shown(data, seeds, seconds=10.0):
    """Labels [steps, seeds, batch] of all steps, and how many steps each chunk had."""
    order = Order(seeds, COUNT, BATCH)
    source = feed.feed(data, order, lambda *arrays: arrays, until)
    pace, labels, steps = feed.Pace(seconds), [], []
    for chunk in feed.chunks(source, 0, until, pace):
        images, of_images = examples(chunk)
        wanted = data.images[of_images.ravel()].reshape(images.shape)
        np.testing.assert_array_equal(images, wanted)
        assert chunk.rows.shape[0] == source.most
        labels.append(of_images)
        steps.append(chunk.steps)
        pace.note(chunk.steps, 1.0)
    return np.concatenate(labels), steps


@pytest.mark.parametrize('seeds', [(3,), (0, 7)])
def test_every_way_shows_the_examples_of_the_order(data, seeds):
    wanted = Order(seeds, COUNT, BATCH).rows(0, TOTAL)
    for source in (data, encoded(data)):
        labels, steps = shown(source, seeds)
        np.testing.assert_array_equal(labels, wanted)
        assert sum(steps) == TOTAL


def test_chunks_double_at_most_and_end_where_there_is_something_to_do(data):
    _, steps = shown(data, (0,))
    assert steps == [1, 2, 2, 5, 5, 5, 3]


def test_what_is_decoded_for_a_chunk_is_bounded(data, monkeypatch):
    monkeypatch.setattr(feed, 'BYTES', 3 * BATCH * 48)
    source = feed.feed(encoded(data), Order((0,), COUNT, BATCH), lambda *a: a, until)
    assert source.most == 3
    chunk = source.take(0, 3)
    assert chunk.data[0].shape == (3, 1, BATCH, 4, 4, 3)


def test_processes_take_slices_of_the_same_batches(data):
    whole = Order((1,), COUNT, BATCH).rows(2, 3, 5)
    parts = [Order((1,), COUNT, BATCH, p, 2).rows(2, 3, 5) for p in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, -1), whole)
    assert (whole[3:] == 0).all()


def test_pace_keeps_a_chunk_at_its_seconds():
    pace = feed.Pace(1.0)
    for _ in range(10):
        pace.note(pace.steps, 0.1 * pace.steps)
    assert pace.steps == 10
    pace.note(10, 100.0)
    assert pace.steps == 1
