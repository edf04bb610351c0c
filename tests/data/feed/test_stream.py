import functools
import pathlib

import numpy as np
import pytest
from PIL import Image

from vitjax.data import feed, order, preprocess
from vitjax.data.augment.crop import Crop
from vitjax.data.feed import stream
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Encoded

pytest.importorskip('grain', reason="needs the extra 'stream'")
pytest.importorskip('cv2', reason="needs the extra 'stream'")

COUNT, BATCH, SIDE = 30, 8, 16
CROP = Crop(SIDE, 0.1)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """JPEGs of unequal sizes, with a PNG among them."""
    folder, random = tmp_path_factory.mktemp('files'), np.random.default_rng(0)
    paths = [folder / f'{i:02d}.{"png" if i == 7 else "jpg"}' for i in range(COUNT)]
    for path in paths:
        coarse = random.integers(0, 256, (4, 4, 3), np.uint8)
        size = tuple(random.integers(20, 60, 2).tolist())
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return paths


def encoded(files):
    square = functools.partial(preprocess.read_square, preprocessing=Preprocessing(12, 1.0))
    return Encoded(files, square, streams=True)


def read(files, start=0, steps=3, *, crop: Crop | None = CROP, count=0, seeds=(4,), **how):
    workers = stream.Workers(
        encoded(files), order.Order(seeds, COUNT, BATCH, **how), crop, count=count
    )
    out = taken(workers, start, steps)
    workers.close()
    return out.reshape(steps, len(seeds), -1, *out.shape[1:])


def taken(workers, start, steps):
    out = np.zeros((steps * workers.images_a_step, *workers.shape[1:]), np.uint8)
    workers.read(start, steps, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize('crop', [CROP, None])
def test_any_number_of_workers_makes_the_same_stream(files, monkeypatch, crop):
    monkeypatch.setattr(stream, 'PART', 3)  # which a batch is no multiple of
    monkeypatch.setattr(stream, 'SHORT', 3)
    wanted = read(files, crop=crop)
    np.testing.assert_array_equal(read(files, crop=crop, count=2), wanted)
    monkeypatch.setattr(stream, 'PART', 64)
    np.testing.assert_array_equal(read(files, crop=crop, count=1), wanted)


def test_a_stream_goes_on_from_any_step(files):
    wanted = read(files, steps=9)  # two epochs and some
    for start in (1, 3, 7):
        np.testing.assert_array_equal(read(files, start, 9 - start), wanted[start:])
    workers = stream.Workers(encoded(files), order.Order((4,), COUNT, BATCH), CROP, count=0)
    for step in (0, 1, 2, 5, 6, 1):
        np.testing.assert_array_equal(taken(workers, step, 1), wanted[step, 0])


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_read_slices_of_the_same_batches(files, processes):
    parts = [read(files, process=p, processes=processes) for p in range(processes)]
    np.testing.assert_array_equal(np.concatenate(parts, 2), read(files))


def test_an_example_is_cropped_anew_each_time(files):
    found = read(files, seeds=(0, 1), repeats=4, steps=2)
    rows = order.Order((0, 1), COUNT, BATCH, repeats=4).rows(0, 2, 2)
    assert len(np.unique(rows[:, 0])) == 4  # each comes four times, and all come out apart
    assert len({image.tobytes() for image in found.reshape(-1, SIDE * SIDE * 3)}) == rows.size


def test_without_a_crop_a_stream_is_what_the_data_decode_to(files):
    rows = order.Order((4,), COUNT, BATCH).rows(0, 3, 3)
    wanted = encoded(files)[rows.ravel()].reshape(*rows.shape, 12, 12, 3)
    np.testing.assert_array_equal(read(files, crop=None), wanted)


def until(step):
    return min(7, (step // 4 + 1) * 4)


def test_a_feed_of_a_stream_has_its_images_and_their_labels(files):
    data = Data(encoded(files), np.arange(COUNT, dtype=np.int32), ())
    fed = feed.feed(data, order.Order((4,), COUNT, BATCH), lambda *a: a, until, CROP)
    wanted, rows = read(files, steps=7), order.Order((4,), COUNT, BATCH).rows(0, 7, 7)
    step = 0
    for chunk in feed.chunks(fed, 0, until, feed.Pace(1.0)):
        found, labels = (values[: chunk.steps] for values in chunk.data)
        np.testing.assert_array_equal(found, wanted[step : step + chunk.steps])
        np.testing.assert_array_equal(labels, rows[step : step + chunk.steps])
        step += chunk.steps
    assert step == 7


@pytest.mark.parametrize('count', [0, 1])
def test_what_a_worker_refuses_is_raised_here(files, count):
    gone = [*files[:3], pathlib.Path('nowhere.jpg'), *files[4:]]
    workers = stream.Workers(encoded(gone), order.Order((4,), COUNT, BATCH), None, count=count)
    with pytest.raises(ValueError, match='there is no image nowhere.jpg'):
        taken(workers, 0, 12)
    workers.close()
