"""Against Pillow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vitjax.data.augment import operations as op
from vitjax.data.preprocess import luma


def picture(seed, low=0, high=256, shape=(17, 23, 3)):
    """Smooth noise within a range, as photographs are smooth."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize(shape[1::-1], Image.Resampling.BICUBIC))
    return (low + smooth / 256 * (high - low)).astype(np.uint8)


PICTURES = [
    picture(0), picture(1, 40, 200), picture(2, 100, 104), np.full((9, 9, 3), 77, np.uint8),
    np.random.default_rng(3).integers(0, 256, (31, 13, 3), np.uint8),
    np.random.default_rng(4).choice([3, 250], (8, 8, 3)).astype(np.uint8),
]  # fmt: skip
ENHANCED = [('Color', op.colour), ('Contrast', op.contrast), ('Brightness', op.brightness),
            ('Sharpness', op.sharpness)]  # fmt: skip


def check(ours, theirs, *args, within=0):
    for pixels in PICTURES:
        got = np.asarray(jax.jit(ours)(jnp.asarray(pixels, jnp.float32), *args))
        want = np.asarray(theirs(Image.fromarray(pixels)), np.float32)
        assert np.abs(got - want).max() <= within


@pytest.mark.parametrize('factor', [0.0, 0.1, 0.75, 1.0, 1.3, 1.9])
@pytest.mark.parametrize(('name', 'ours'), ENHANCED)
def test_enhancements(name, ours, factor):
    check(ours, lambda image: getattr(ImageEnhance, name)(image).enhance(factor), factor)


@pytest.mark.parametrize(('name', 'within'), [('autocontrast', 1), ('equalize', 0), ('invert', 0)])
def test_operations_on_values(name, within):
    check(getattr(op, name), getattr(ImageOps, name), within=within)


def test_operations_on_values_with_a_strength():
    for bits in range(1, 9):
        check(op.posterize, functools.partial(ImageOps.posterize, bits=bits), bits)
    for threshold in (0, 1, 100, 128, 256):
        check(op.solarize, functools.partial(ImageOps.solarize, threshold=threshold), threshold)
    table = [min(255, i + 50) if i < 128 else i for i in range(256)]
    check(op.solarize_add, lambda image: image.point(table * 3), 50)
    check(luma, lambda image: image.convert('L').convert('RGB'))


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 1), (3, 1), (1, 3), (2, 3), (3, 3)])
def test_operations_on_images_of_a_few_pixels(shape):
    """Those smaller than a kernel of 3x3 stay as they are where Pillow leaves them so."""
    ways = [
        *((functools.partial(ours, factor=factor),
           lambda image, name=name, factor=factor: getattr(ImageEnhance, name)(image).enhance(
               factor)) for name, ours in ENHANCED for factor in (0.0, 1.9)),
        (op.equalize, ImageOps.equalize), (op.invert, ImageOps.invert),
        (op.autocontrast, ImageOps.autocontrast), (op.solarize, ImageOps.solarize),
        (luma, lambda image: image.convert('L').convert('RGB')),
    ]  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for i, (ours, theirs) in enumerate(ways):
        found = np.asarray(ours(jnp.asarray(pixels, jnp.float32)))
        wanted = np.asarray(theirs(Image.fromarray(pixels)), np.float32)
        assert np.abs(found - wanted).max() <= (ours is op.autocontrast), i
    sharp = op.blur(jnp.asarray(pixels, jnp.float32), 0.05, 2.0)
    np.testing.assert_array_equal(sharp, pixels)
    wide = scipy.ndimage.gaussian_filter(
        pixels.astype(float), (2.0, 2.0, 0), mode='nearest', truncate=20
    )
    assert np.abs(op.blur(jnp.asarray(pixels, jnp.float32), 2.0, 2.0) - wide).max() <= 1.5


@pytest.mark.parametrize('degrees', [-30, 0, 12.5])
@pytest.mark.parametrize('shear', [(0.0, 0.0), (0.3, 0.0), (0.0, -0.2)])
def test_transform(degrees, shear):
    angle = np.deg2rad(degrees)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, offset = turned @ np.array([[1, shear[0]], [shear[1], 1]]), np.array([1.5, -2.25])
    pixels = picture(5)
    height, width, _ = pixels.shape
    # Pillow reads (x, y) = (a x + b y + c, d x + e y + f), from the upper left corner.
    swapped = matrix[::-1, ::-1]
    centre = np.array([width, height]) / 2
    constant = centre - swapped @ centre + offset[::-1]
    data = (*swapped[0], constant[0], *swapped[1], constant[1])
    want = Image.fromarray(pixels).transform(
        (width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR,
        fillcolor=(7, 8, 9),
    )  # fmt: skip
    fill = jnp.array([7.0, 8, 9])
    given = jnp.asarray(pixels, jnp.float32), jnp.asarray(matrix), jnp.asarray(offset)
    got = op.transform(*given, fill)
    off = np.abs(np.asarray(got) - np.asarray(want, np.float32)).max(-1)
    assert (off > 1).mean() < 0.01  # positions on the very border of the image


@pytest.mark.parametrize('deviation', [0.1, 0.3, 0.5, 1.0, 2.0])
def test_blur_is_the_gaussian(deviation):
    """The exact one, in float64 and not cut off; Pillow's is what the docstring says."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    square = np.zeros((48, 48, 3), np.uint8)
    square[20:28, 20:28] = 255
    for pixels in (noise, square, picture(6, shape=(40, 48, 3))):
        got = np.asarray(op.blur(jnp.asarray(pixels, jnp.float32), deviation, 2.0))
        want = scipy.ndimage.gaussian_filter(
            pixels.astype(float), (deviation, deviation, 0), mode='nearest', truncate=12
        )
        assert np.abs(got - want).max() < 1
        theirs = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(deviation))
        assert np.abs(got - np.asarray(theirs, np.float32)).max() <= 41


@pytest.mark.parametrize('fill', [None, 0.0])
def test_an_upright_sample_is_a_sample(fill):
    image = jnp.asarray(np.random.default_rng(0).random((9, 12, 3)), jnp.float32)
    for step, offset in (((1, 1), (0, 0)), ((0.7, -1.2), (2.3, -4)), ((1.3, 2), (0.25, 9))):
        args = image, (14, 7), jnp.diag(jnp.array(step, float)), jnp.array(offset, float), fill
        np.testing.assert_allclose(op.sample_upright(*args), op.sample(*args), atol=1e-5)


@pytest.mark.parametrize('box', [(0, 0, 40, 50), (3, 7, 30, 41), (5, 2, 8, 48), (31, 44, 6, 5)])
def test_a_box_resized(box):
    image = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    top, left, height, width = box
    ours = op.resize_box(jnp.asarray(image), jnp.array(box[:2]), jnp.array(box[2:]), 16)
    for channel in range(3):
        part = Image.fromarray(image[..., channel]).crop((left, top, left + width, top + height))
        theirs = np.asarray(part.resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(ours[..., channel], theirs, atol=2e-6)
