from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vitjax.layers.embed import (
    ConvStem,
    PatchEmbed,
    TokenEmbed,
    patchify,
    resample_patch_kernel,
    resample_positions,
    sincos_positions,
    unpatchify,
)

RNG = np.random.default_rng(0)


def exact(x) -> Any:
    return np.asarray(x, np.float64)


def normal(*size) -> Any:
    return np.float32(RNG.normal(size=size))


def random_params(module, *args):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)['params']
    return jax.tree.map(lambda x: normal(*x.shape), shapes)


def run(module, params, images) -> Any:
    return jax.jit(module.apply)({'params': params}, images)


def test_patches_are_cut_row_by_row():
    images = normal(2, 6, 9, 3)
    patches = patchify(images, 3)
    assert patches.shape == (2, 6, 27)
    np.testing.assert_array_equal(patches[1, 4], images[1, 3:6, 3:6].ravel())
    np.testing.assert_array_equal(unpatchify(patches, (2, 3)), images)


def test_patch_embedding_is_a_convolution_with_its_kernel_reshaped():
    images = normal(2, 8, 12, 3)
    params = random_params(PatchEmbed(4, 5), images)
    convolved = jax.lax.conv_general_dilated(
        images, params['projection']['kernel'].reshape(4, 4, 3, 5), (4, 4), 'VALID',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision='highest',
    )  # fmt: skip
    expected = convolved.reshape(2, 6, 5) + params['projection']['bias']
    found = run(PatchEmbed(4, 5), params, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_an_image_that_the_patch_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match='patch_size=5, image is 8x10 pixels'):
        patchify(jnp.ones((1, 8, 10, 3)), 5)


def gelu(x):
    return 0.5 * x * (1 + exact(jax.scipy.special.erf(np.float32(x / np.sqrt(2)))))


def convolve(x, kernel, stride):
    """A 3x3 convolution with one pixel of zeros all round, one output at a time."""
    x = np.pad(exact(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = ((n - 3) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[:, i, j] = np.tensordot(window, exact(kernel), 3)
    return out


@pytest.mark.parametrize('tutorial', [False, True])
def test_stem_is_stride_two_convolutions_with_gelu_between(tutorial):
    stem = ConvStem(4, 8, bias=tutorial, last_gelu=tutorial)
    images = normal(2, 8, 12, 3)
    params = random_params(stem, images)
    x = convolve(images, params['conv_1']['kernel'], 2)
    x = gelu(x + params['conv_1'].get('bias', 0))
    x = convolve(x, params['conv_2']['kernel'], 2) + params['conv_2'].get('bias', 0)
    x = gelu(x) if tutorial else x
    assert params['conv_1']['kernel'].shape == (3, 3, 3, 4)
    found = run(stem, params, images)
    np.testing.assert_allclose(found, x.reshape(2, 6, 8), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('patch', 'side', 'message'),
    [(12, 24, 'power of two .*patch_size=12'), (8, 20, 'patch_size=8, image is 20x20 pixels')],
)
def test_stem_says_what_patch_size_it_can_make(patch, side, message):
    with pytest.raises(ValueError, match=message):
        ConvStem(patch, 16).init(jax.random.key(0), jnp.ones((1, side, side, 3)))


def test_sincos_positions_are_those_of_plain_vit_baselines():
    found = sincos_positions((2, 3), 8)
    for token in range(6):
        row, column = divmod(token, 3)
        expected = [
            function(position / 10_000 ** (i / 1))
            for position in (column, row)
            for function in (np.sin, np.cos)
            for i in range(2)  # width / 4 frequencies, from 1 to 1 / 10,000
        ]
        np.testing.assert_allclose(found[token], expected, atol=1e-6)
    with pytest.raises(ValueError, match='multiple of 4 for sine-cosine positions: width=6'):
        sincos_positions((2, 3), 6)


def test_tokens_are_class_registers_patches_and_registers_have_no_position():
    embed = TokenEmbed(4, 8, class_tokens=1, registers=2)
    images = normal(2, 8, 8, 3)
    params = random_params(embed, images)
    tokens = np.asarray(run(embed, params, images))
    table = params['position']['table']
    assert tokens.shape == (2, 7, 8) and table.shape == (5, 8)
    for image in tokens:
        np.testing.assert_allclose(image[0], params['class_token'][0] + table[0], rtol=1e-6)
        np.testing.assert_array_equal(image[1:3], params['registers'])
    patches = run(PatchEmbed(4, 8), params['patch'], images)
    np.testing.assert_allclose(tokens[:, 3:], patches + table[1:], rtol=1e-5, atol=1e-5)


def test_sincos_leaves_the_class_token_alone_and_unknown_positions_are_an_error():
    images = normal(1, 8, 8, 3)
    embed = TokenEmbed(4, 8, class_tokens=1, position='sincos')
    params = random_params(embed, images)
    assert 'position' not in params
    tokens = run(embed, params, images)
    patches = run(PatchEmbed(4, 8), params['patch'], images)
    np.testing.assert_array_equal(tokens[:, :1], params['class_token'][None])
    np.testing.assert_allclose(tokens[:, 1:], patches + sincos_positions((2, 2), 8), rtol=1e-6)
    with pytest.raises(ValueError, match="'learned' or 'sincos': position='rotary'"):
        TokenEmbed(4, 8, position='rotary').init(jax.random.key(0), images)


def test_positions_of_another_grid_are_an_error_that_says_what_to_do():
    embed = TokenEmbed(4, 8, class_tokens=1)
    params = random_params(embed, normal(1, 8, 8, 3))
    with pytest.raises(ValueError, match=r'for 4 patches, this image has 6 \(2x3\): resample'):
        run(embed, params, normal(1, 8, 12, 3))


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
    return jax.image.resize(patches, shape, 'bilinear', antialias=True)


@pytest.mark.parametrize(('old', 'new'), [(4, 6), (3, 7), (4, 8)])
def test_a_larger_patch_kernel_embeds_resized_patches_alike(old, new):
    kernel, patches = normal(old * old * 3, 5), normal(10, old, old, 3)
    larger = resample_patch_kernel(kernel, old, new)
    found = resized(patches, new).reshape(10, -1) @ larger
    np.testing.assert_allclose(found, patches.reshape(10, -1) @ kernel, rtol=1e-3, atol=1e-3)


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
