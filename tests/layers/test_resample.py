import jax
import numpy as np
import pytest
from helpers import exact, normal
from PIL import Image

from vitjax.layers.resample import resample_patch_kernel, resample_positions


def keys_cubic(t, a):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def bicubic(image, new, a):
    """Resampling without antialiasing, one output pixel at a time, edges repeated."""
    old, out = image.shape, np.zeros(new)
    for i in range(new[0]):
        for j in range(new[1]):
            y, x = (i + 0.5) * old[0] / new[0] - 0.5, (j + 0.5) * old[1] / new[1] - 0.5
            for m in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for n in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    pixel = image[np.clip(m, 0, old[0] - 1), np.clip(n, 0, old[1] - 1)]
                    out[i, j] += keys_cubic(y - m, a) * keys_cubic(x - n, a) * pixel
    return out


@pytest.mark.slow
@pytest.mark.parametrize('new', [(7, 9), (3, 2), (5, 4), (1, 1), (11, 4)])
def test_positions_resample_as_transformers_dinov2_does(new):
    table = normal(1 + 20, 3)
    found = resample_positions(table, (5, 4), new, prefix=1, antialias=False)
    np.testing.assert_array_equal(found[0], table[0])
    for channel in range(3):
        expected = bicubic(exact(table[1:, channel]).reshape(5, 4), new, -0.75)
        np.testing.assert_allclose(found[1:, channel], expected.ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('new', [(9, 7), (3, 4), (6, 2), (14, 14)])
def test_positions_resample_antialiased_as_pillow_does(new):
    table = normal(48, 2)
    found = resample_positions(table, (6, 8), new)
    for channel in range(2):
        image = Image.fromarray(table[:, channel].reshape(6, 8))
        expected = np.asarray(image.resize(new[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(found[:, channel], expected.ravel(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('antialias', [False, True])
def test_resampling_keeps_the_same_grid_and_constants(antialias):
    table = normal(13, 4)
    same = resample_positions(table, (3, 4), (3, 4), prefix=1, antialias=antialias)
    np.testing.assert_array_equal(same, table)
    flat = resample_positions(np.full((12, 1), 0.7), (3, 4), (8, 2), antialias=antialias)
    np.testing.assert_allclose(flat, 0.7, rtol=1e-5)


def test_a_table_that_is_not_of_the_grid_is_an_error():
    with pytest.raises(ValueError, match=r'= 1 \+ 3x4 rows: got 12'):
        resample_positions(np.zeros((12, 4)), (3, 4), (6, 8), prefix=1)


def resized(patches, size):
    shape = (*patches.shape[:1], size, size, patches.shape[-1])
    return jax.image.resize(patches, shape, 'bilinear', antialias=False)


@pytest.mark.parametrize(('old', 'new'), [(4, 6), (3, 7), (4, 8)])
def test_a_larger_patch_kernel_embeds_resized_patches_alike(old, new):
    kernel, patches = normal(old * old * 3, 5), normal(10, old, old, 3, seed=1)
    larger = resample_patch_kernel(kernel, old, new)
    found = resized(patches, new).reshape(10, -1) @ larger
    np.testing.assert_allclose(found, patches.reshape(10, -1) @ kernel, rtol=1e-3, atol=1e-3)


def by_paper(kernel, old, new):
    """pinv(Bᵀ) w in float64, B column by column: what a bilinear resize makes of each pixel."""
    matrix = np.zeros((new * new, old * old))
    for row, column in np.ndindex(new, new):
        for (i, j), weight in _neighbours(row, column, old, new):
            matrix[row * new + column, i * old + j] += weight
    out = [np.linalg.pinv(matrix.T) @ w for w in np.moveaxis(kernel.reshape(old**2, -1), 1, 0)]
    return np.stack(out, 1).reshape(-1, kernel.shape[-1])


def _neighbours(row, column, old, new):
    """The four source pixels of an output, clamped at the edges, and their weights."""
    (y, x) = ((at + 0.5) * old / new - 0.5 for at in (row, column))
    for i, j in (
        (a, b) for a in (np.floor(y), np.floor(y) + 1) for b in (np.floor(x), np.floor(x) + 1)
    ):
        place = tuple(int(min(max(k, 0), old - 1)) for k in (i, j))
        yield place, (1 - abs(y - i)) * (1 - abs(x - j))


@pytest.mark.parametrize(('old', 'new'), [(6, 4), (5, 3), (16, 8), (16, 12), (8, 2), (4, 7)])
def test_a_patch_kernel_is_resized_by_flexivits_formula(old, new):
    kernel = normal(old * old * 3, 5).astype(np.float64)
    found = resample_patch_kernel(kernel, old, new)
    np.testing.assert_allclose(found, by_paper(kernel, old, new), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('old', 'new'), [(6, 4), (5, 3)])
def test_a_smaller_patch_kernel_is_the_least_squares_one(old, new):
    kernel = normal(old * old, 5)
    smaller = np.asarray(resample_patch_kernel(kernel, old, new))
    pixels = np.eye(old * old, dtype=np.float32).reshape(-1, old, old, 1)
    resize = np.asarray(resized(pixels, new)).reshape(old * old, new * new)  # Bᵀ
    residual = resize @ smaller - kernel
    assert np.abs(residual).max() > 0.1  # not all can be had
    np.testing.assert_allclose(resize.T @ residual, 0, atol=1e-4)
    np.testing.assert_array_equal(resample_patch_kernel(kernel, old, old), kernel)
