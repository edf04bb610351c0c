from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import exact, normal, random_params
from references import gelu

from vitjax.layers.embed import (
    ConvStem,
    PatchEmbed,
    TokenEmbed,
    patchify,
    sincos_positions,
    unpatchify,
)


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
    with pytest.raises(ValueError, match="'learned', 'sincos' or 'none': position='rotary'"):
        TokenEmbed(4, 8, position='rotary').init(jax.random.key(0), images)


def test_positions_of_another_grid_are_an_error_that_says_what_to_do():
    embed = TokenEmbed(4, 8, class_tokens=1)
    params = random_params(embed, normal(1, 8, 8, 3))
    with pytest.raises(ValueError, match=r'for 4 patches, this image has 6 \(2x3\): resample'):
        run(embed, params, normal(1, 8, 12, 3))


def test_grids_are_compared_and_not_counts():
    """4x4, 2x8 and 8x2 patches are 16 each, of different places."""
    embed = TokenEmbed(4, 8, class_tokens=1)
    params = random_params(embed, normal(1, 16, 16, 3))
    for shape, grid in (((8, 32), '2x8'), ((32, 8), '8x2')):
        message = f'for 4x4 patches, this image has {grid}: resample'
        with pytest.raises(ValueError, match=message):
            run(embed, params, normal(1, *shape, 3))
        with pytest.raises(ValueError, match=message):  # nor can they be learned there unsaid
            embed.init(jax.random.key(0), normal(1, *shape, 3))
        said = embed.clone(position_grid=(shape[0] // 4, shape[1] // 4))
        assert run(said, params, normal(1, *shape, 3)).shape == (1, 17, 8)
        with pytest.raises(ValueError, match=f'for {grid} patches, this image has 4x4: resample'):
            run(said, params, normal(1, 16, 16, 3))
    said = embed.clone(position_grid=(2, 3))
    params = random_params(said, normal(1, 8, 12, 3))
    with pytest.raises(ValueError, match='for 2x3 patches, this image has 3x2: resample'):
        run(said, params, normal(1, 12, 8, 3))
