import pathlib
from typing import Any

import jax
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from vitjax.data import images, preprocess, statistics
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data

SAMPLE = pathlib.Path(__file__).parents[3] / 'shared' / 'imagenet_sample'


def picture(height=6, width=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def saved(tmp_path, image, name='image.png', **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.fixture(scope='module')
def photographs():
    """Two photographs [427, 640, 3]."""
    loaded: Any = sklearn.datasets.load_sample_images()
    return np.stack(loaded.images)


# On the host -----------------------------------------------------------------------------------


def test_an_image_of_the_right_size_is_unchanged():
    array = picture(32, 32)
    prepared = Preprocessing(32, 1.0)
    np.testing.assert_array_equal(preprocess.square(array, prepared), array)


def by_pillow(array, prepared):
    """All of the image resized, columns first, then the centre cut out."""
    height, width = array.shape[:2]
    size, short = prepared.size, int(prepared.size / prepared.crop)
    least = min(height, width)
    new = [
        short if side == least or prepared.squash else int(short * side / least)
        for side in (width, height)
    ]
    image, method = Image.fromarray(array), Image.Resampling[prepared.interpolation.upper()]
    image = image.convert('L').convert('RGB') if prepared.grey else image
    whole = np.asarray(image.resize((new[0], height), method).resize(new, method))
    left, top = (round((side - size) / 2) for side in new)
    return whole[top : top + size, left : left + size]


STRIPS = [(100, 1001), (1001, 100), (7, 29), (3, 900), (900, 3), (2, 2000), (300, 9000)]


@pytest.mark.parametrize(
    ('height', 'width'), [(40, 60), (60, 40), (41, 41), (7, 9), (300, 40), *STRIPS]
)
@pytest.mark.parametrize('crop', [1.0, 0.875, 0.9])
def test_short_side_then_centre(height, width, crop):
    """Whatever the aspect, to 1:1000: the square is that of the image resized as a whole."""
    array, prepared = picture(height, width), Preprocessing(28, crop)
    got = preprocess.square(array, prepared)
    assert got.shape == (28, 28, 3)
    np.testing.assert_array_equal(got, by_pillow(array, prepared))


def test_a_wide_strip_is_that_of_one_call_of_pillow():
    array = picture(100, 1001)
    whole = Image.fromarray(array).resize((int(224 * 1001 / 100), 224), Image.Resampling.BICUBIC)
    left = round((whole.width - 224) / 2)
    wanted = np.asarray(whole)[:, left : left + 224]
    np.testing.assert_array_equal(preprocess.square(array, Preprocessing(224, 1.0)), wanted)


CHANGES = [
    {'interpolation': 'bilinear'},
    {'interpolation': 'lanczos'},
    {'squash': True},
    {'grey': True},
    {'grey': True, 'squash': True, 'interpolation': 'bilinear'},
]


@pytest.mark.slow
@pytest.mark.parametrize('change', CHANGES, ids=str)
@pytest.mark.parametrize('shape', [(60, 90), (130, 20), (28, 28), (700, 800)])
def test_filters_squashing_and_grey_are_pillows_on_host_and_device(shape, change):
    noise = picture(*shape)
    array = np.where(noise > 200, 255, np.where(noise < 100, 0, noise))
    prepared = Preprocessing(28, 0.875, **change)
    wanted = by_pillow(array, prepared)
    np.testing.assert_array_equal(preprocess.square(array, prepared), wanted)
    np.testing.assert_array_equal(on_device(array[None], 28, 0.875, **change)[0], wanted)


def test_grey_photographs_are_one_input_with_their_colour_versions(photographs):
    prepared = Preprocessing(64, 0.875, grey=True)
    grey = np.stack(
        [np.asarray(Image.fromarray(x).convert('L').convert('RGB')) for x in photographs]
    )
    for way in (preprocess.squares, preprocess.inputs):
        colour = np.asarray(way(photographs, prepared))
        np.testing.assert_array_equal(colour, way(grey, prepared))
        assert (colour[..., 0] == colour[..., 1]).all() or way is preprocess.inputs
    plain = Preprocessing(64, 0.875)
    np.testing.assert_array_equal(
        preprocess.squares(grey, plain), preprocess.squares(grey, prepared)
    )


def test_a_long_strip_takes_no_more_memory_than_a_picture():
    strip = picture(2, 100_000)
    square = preprocess.square(strip, Preprocessing(224, 1.0))  # resized whole: 7.5 gigabytes
    assert square.shape == (224, 224, 3)


def test_squares_of_any_sizes():
    shapes = [(30, 20), (20, 31), (20, 20)]
    arrays = [picture(*shape) for shape in shapes]
    prepared = Preprocessing(16, 0.8)
    batch = preprocess.squares(arrays, prepared)
    assert batch.shape == (3, 16, 16, 3) and batch.dtype == np.uint8
    for array, got in zip(arrays, batch, strict=True):
        np.testing.assert_array_equal(got, preprocess.square(array, prepared))
    with pytest.raises(ValueError, match='at least one image: got none'):
        preprocess.squares([], prepared)


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


# On the device ---------------------------------------------------------------------------------


def on_device(pixels, size, crop, **change):
    level = 1 / 255
    plain = Preprocessing(size, crop, mean=(0, 0, 0), deviation=(level, level, level), **change)
    out = preprocess.inputs(pixels, plain)
    np.testing.assert_allclose(out, np.rint(out), atol=1e-4)  # whole levels of 255
    return np.rint(out)


@pytest.mark.slow
@pytest.mark.parametrize('crop', [1.0, 0.875])
@pytest.mark.parametrize('size', [8, 32, 224, 384])
def test_photographs_on_the_device_are_those_on_the_host(photographs, size, crop):
    prepared = Preprocessing(size, crop)
    wanted = preprocess.squares(photographs, prepared)
    np.testing.assert_array_equal(on_device(photographs, size, crop), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    'shape',
    [
        (8, 8),
        (7, 9),
        (48, 48),
        (41, 40),
        (97, 64),
        (60, 130),
        (130, 60),
        (2, 300),
        (900, 60),
        (60, 3000),
        (3000, 4),
        (1800, 1700),
    ],
)
@pytest.mark.parametrize(('size', 'crop'), [(48, 1.0), (32, 0.6), (5, 0.9)])
def test_any_pixels_on_the_device_are_those_on_the_host(shape, size, crop):
    # Noise between the extremes: overshoots are clipped, and many sums lie at a half.
    noise = picture(*shape)
    array = np.where(noise > 200, 255, np.where(noise < 100, 0, noise))
    wanted = preprocess.square(array, Preprocessing(size, crop))
    np.testing.assert_array_equal(on_device(array[None], size, crop)[0], wanted)


def test_real_halves_round_as_on_the_host():
    # From 256 to 384 pixels weights are multiples of 1/432, and one sum in 432 is at a half.
    array = picture(256, 256)
    wanted = preprocess.square(array, Preprocessing(384, 1.0))
    np.testing.assert_array_equal(on_device(array[None], 384, 1.0)[0], wanted)


def test_a_strip_on_the_device_takes_no_more_memory_than_a_picture():
    strip = picture(2, 100_000)
    wanted = preprocess.square(strip, Preprocessing(64, 1.0))
    np.testing.assert_array_equal(on_device(strip[None], 64, 1.0)[0], wanted)


@pytest.mark.skipif(not SAMPLE.exists(), reason='needs ../shared/imagenet_sample')
@pytest.mark.parametrize('crop', [1.0, 0.875])
def test_a_sample_of_imagenet_on_the_device_is_that_on_the_host(crop):
    for path in sorted(SAMPLE.glob('*.jpg'))[::100]:
        array = images.read(path)
        wanted = preprocess.square(array, Preprocessing(224, crop))
        np.testing.assert_array_equal(on_device(array[None], 224, crop)[0], wanted)


def test_inputs_are_jitted_and_split_over_devices():
    pixels, prepared = np.stack([picture(seed=i) for i in range(8)]), Preprocessing(8, 0.8)
    mesh = jax.make_mesh((len(jax.devices()),), ('batch',))
    split = jax.NamedSharding(mesh, jax.P('batch'))
    out = jax.jit(preprocess.inputs, static_argnums=1)(jax.device_put(pixels, split), prepared)
    assert out.sharding.is_equivalent_to(split, out.ndim)
    wanted = preprocess.normalise(preprocess.squares(pixels, prepared), prepared)
    np.testing.assert_allclose(out, wanted, atol=1e-6)


# One photograph, every way -----------------------------------------------------------------------


def test_one_photograph_is_one_input(photographs, tmp_path):
    """From a file, from memory, from pixels on the host and on the device."""
    prepared = Preprocessing(64, 0.875)
    path = saved(tmp_path, Image.fromarray(photographs[0]), 'photo.jpg', quality=90)
    pixels = images.read(path)[None]
    memory = images.InMemory(path.read_bytes(), 'photo')
    square = preprocess.squares(pixels, prepared)
    wanted = preprocess.load([path], prepared)
    assert 0.5 < wanted.std() < 2
    for got in (
        preprocess.load([memory], prepared),
        preprocess.normalise(square, prepared),
        preprocess.inputs(pixels, prepared),
        preprocess.finish(pixels, prepared, None),
        preprocess.finish(square, prepared, prepared),
    ):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_images_prepared_for_another_model_are_refused():
    square, small, large = picture(8, 8)[None], Preprocessing(8), Preprocessing(16)
    with pytest.raises(ValueError, match='size=8.*size=16'):
        preprocess.finish(square, large, small)


# Normalisation ---------------------------------------------------------------------------------


def test_normalise_in_numbers():
    prepared = Preprocessing(2, 1.0, mean=(0.5, 0.25, 0.0), deviation=(0.5, 0.25, 2.0))
    got = preprocess.normalise(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), prepared)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [[[-1, -1, 0], [1, 3, 0.5]]])


@pytest.mark.parametrize('count', [3, 2500])
def test_statistics_are_those_of_all_pixels(count):
    pixels = np.random.default_rng(0).integers(0, 200, (count, 4, 5, 3), np.uint8) + 10
    data = Data(pixels, np.zeros(count, np.int32), ())
    mean, deviation = statistics.moments(data)
    np.testing.assert_allclose(mean, (pixels / 255).mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(deviation, (pixels / 255).std((0, 1, 2)), atol=1e-6)


def test_images_are_grey_when_every_one_is():
    def found(pixels):
        return statistics.is_grey(Data(pixels, np.zeros(len(pixels), np.int32), ()))

    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (3000, 4, 5, 1), np.uint8), 3, -1)
    assert found(grey)
    for place in (0, 7, 8, 1234, 2999):
        nearly = grey.copy()
        nearly[place, 1, 2, 2] ^= 1  # one level, in one channel of one pixel
        assert not found(nearly)


def test_a_remark_on_what_a_model_does_not_see(tmp_path):
    def remark(wide, high, size, crop=1.0):
        file = tmp_path / 'image.png'
        Image.new('RGB', (wide, high)).save(file)
        return preprocess.remark(file, Preprocessing(size, crop))

    assert remark(300, 200, 224) == remark(32, 32, 8) == remark(3000, 2000, 224, 0.875) == ''
    assert remark(450, 200, 224) == (
        'of 450x200 pixels the model sees the central 200x200 (44% of the image), as 224x224'
    )
    assert '(67% of the image), as 8x8' in remark(600, 400, 8)
