import pathlib

import numpy as np
import pytest
from PIL import Image

from vitjax.data import preprocess
from vitjax.data.preprocess import Preprocessing

PHOTOS = pathlib.Path(__file__).parents[3] / 'shared' / 'photos'


def picture(height=6, width=9, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def saved(tmp_path, image, name='image.png', **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_an_image_of_the_right_size_is_left_alone():
    array = picture(32, 32)
    prepared = Preprocessing(32, 1.0)
    np.testing.assert_array_equal(preprocess.square(array, prepared), array)


@pytest.mark.parametrize(('height', 'width'), [(40, 60), (60, 40), (41, 41), (7, 9), (300, 40)])
@pytest.mark.parametrize('crop', [1.0, 0.875, 0.9])
def test_short_side_then_centre(height, width, crop):
    """Against the two steps written out: resize all of it, then cut."""
    array = picture(height, width)
    size = 28
    short = int(size / crop)
    scale = short / min(height, width)
    new = [short if side == min(height, width) else int(side * scale) for side in (width, height)]
    if height / width > 4:  # only the middle of a long strip is resized
        array = array[(height - 4 * width) // 2 :][: 4 * width]
        new = [short, 4 * short]
    whole = np.asarray(Image.fromarray(array).resize(new, Image.Resampling.BICUBIC))
    left, top = (round((side - size) / 2) for side in new)
    wanted = whole[top : top + size, left : left + size]
    got = preprocess.square(array, Preprocessing(size, crop))
    assert got.shape == (size, size, 3)
    np.testing.assert_array_equal(got, wanted)


def test_a_long_strip_takes_no_more_memory_than_a_picture():
    strip = picture(2, 100_000)
    square = preprocess.square(strip, Preprocessing(224, 1.0))  # resized whole: 7.5 gigabytes
    assert square.shape == (224, 224, 3)


def test_normalise_in_numbers():
    prepared = Preprocessing(2, 1.0, mean=(0.5, 0.25, 0.0), deviation=(0.5, 0.25, 2.0))
    got = preprocess.normalise(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), prepared)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[[-1, -1, 0], [1, 3, 0.5]]])


def test_load_stacks_files(tmp_path):
    paths = [
        saved(tmp_path, Image.fromarray(picture(*size)), f'{i}.png')
        for i, size in enumerate([(30, 20), (20, 30), (20, 20)])
    ]
    prepared = Preprocessing(20, 1.0)
    batch = preprocess.load(paths, prepared)
    assert batch.shape == (3, 20, 20, 3)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[2], preprocess.normalise(picture(20, 20), prepared))
    with pytest.raises(ValueError, match='at least one image: got none'):
        preprocess.load([], prepared)


@pytest.mark.skipif(not PHOTOS.exists(), reason='needs ../shared/photos')
def test_real_photographs():
    paths = sorted(PHOTOS.glob('*.jpg'))
    batch = preprocess.load(paths, Preprocessing(224, 0.875))
    assert batch.shape == (4, 224, 224, 3)
    assert 0.5 < batch.std() < 2
