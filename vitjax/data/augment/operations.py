"""Pillow's operations on the device, on one image [H, W, 3] of whole numbers 0..255.

They return the same kind, equal to Pillow's unless their docstrings say otherwise. They are pure
and may be mapped over a batch (`jax.vmap`); their strengths may be traced.
"""

import functools
import math

import jax
import jax.numpy as jnp

from vitjax.data.preprocess import luma

Scalar = jax.Array | float


def blend(a: jax.Array, b: jax.Array, share: Scalar) -> jax.Array:
    """`a` at share 0, `b` at 1, and beyond: `Image.blend`, which cuts fractions off."""
    return jnp.floor(jnp.clip(a + share * (b - a), 0, 255))


def colour(image: jax.Array, factor: Scalar) -> jax.Array:
    """Saturation: grey at 0, the image at 1: `ImageEnhance.Color`."""
    return blend(luma(image), image, factor)


def contrast(image: jax.Array, factor: Scalar) -> jax.Array:
    """The mean luma everywhere at 0, the image at 1: `ImageEnhance.Contrast`."""
    mean = jnp.floor(luma(image)[..., 0].mean() + 0.5)
    return blend(jnp.full_like(image, mean), image, factor)


def brightness(image: jax.Array, factor: Scalar) -> jax.Array:
    """Black at 0, the image at 1: `ImageEnhance.Brightness`."""
    return blend(jnp.zeros_like(image), image, factor)


def sharpness(image: jax.Array, factor: Scalar) -> jax.Array:
    """Smoothed at 0, the image at 1, sharpened beyond: `ImageEnhance.Sharpness`."""
    height, width = image.shape[:2]
    around = sum(
        image[i : height - 2 + i, j : width - 2 + j] * (5 if (i, j) == (1, 1) else 1)
        for i in range(3)
        for j in range(3)
    )
    inside = jnp.floor(jnp.asarray(around) / 13 + 0.5)
    return blend(image.at[1:-1, 1:-1].set(inside), image, factor)  # edges stay as they are


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel stretched to 0..255: `ImageOps.autocontrast`.

    Pillow's result is 1 less if a product of its doubles falls just below a whole number.
    """
    low, high = image.min((0, 1)), image.max((0, 1))
    stretched = (255 * (image - low).astype(int)) // jnp.maximum(high - low, 1).astype(int)
    return jnp.where(high > low, stretched, image).astype(image.dtype)


def equalize(image: jax.Array) -> jax.Array:
    """Each channel's histogram made flat: `ImageOps.equalize`."""

    def channel(x: jax.Array) -> jax.Array:
        values = x.astype(jnp.int32)
        count = (values.reshape(-1, 1) == jnp.arange(256)).sum(0)
        last = count[jnp.where(count > 0, jnp.arange(256), 0).max()]
        step = (values.size - last) // 255
        below = jnp.cumsum(count) - count
        table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, table[values].astype(x.dtype), x)

    return jax.vmap(channel, 2, 2)(image)


def invert(image: jax.Array) -> jax.Array:
    """The negative: `ImageOps.invert`."""
    return 255 - image


def posterize(image: jax.Array, bits: Scalar) -> jax.Array:
    """Only the highest bits of each value, 0 to 8: `ImageOps.posterize`."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(image / step) * step


def solarize(image: jax.Array, threshold: Scalar = 128) -> jax.Array:
    """The negative of values from `threshold` on: `ImageOps.solarize`."""
    return jnp.where(image < threshold, image, 255 - image)


def solarize_add(image: jax.Array, add: Scalar) -> jax.Array:
    """Values below 128 raised by `add`, 255 at most, as in AutoAugment's published code."""
    return jnp.where(image < 128, jnp.minimum(image + add, 255), image)


def transform(image: jax.Array, matrix: jax.Array, offset: jax.Array, fill: jax.Array) -> jax.Array:
    """An affine map of the image onto itself, bilinear: `Image.transform`, to a digit at edges.

    Args:
        image: [H, W, 3].
        matrix: [2, 2], acts on (row, column) from the image's centre.
        offset: [2]; an output pixel at p reads the input at `matrix @ p + offset`.
        fill: [3], colour of pixels read outside.
    """
    return jnp.floor(sample(image, image.shape[:2], matrix, offset, fill) + 1e-3)


def sample(
    image: jax.Array, shape: tuple[int, ...], matrix: jax.Array, offset: jax.Array,
    fill: jax.Array | float | None = None,
) -> jax.Array:  # fmt: skip
    """Bilinear samples of an image [H, W, C] on a grid of `shape`, as `transform` places it.

    Positions beyond the edges read `fill`, or are mirrored if it is None, with edge pixels
    repeated. An edge pixel covers half a pixel beyond itself.
    """
    height, width = image.shape[:2]
    down, right = (jnp.arange(n) - (n - 1) / 2 for n in shape)
    rows = matrix[0, 0] * down[:, None] + matrix[0, 1] * right + offset[0] + (height - 1) / 2
    columns = matrix[1, 0] * down[:, None] + matrix[1, 1] * right + offset[1] + (width - 1) / 2
    out = jnp.zeros((*shape, image.shape[2]))
    for dy in (0, 1):  # the four input pixels around each position, weighted by nearness
        for dx in (0, 1):
            y, x = jnp.floor(rows) + dy, jnp.floor(columns) + dx
            weight = (1 - jnp.abs(rows - y)) * (1 - jnp.abs(columns - x))
            if fill is None:
                y, x = _reflect(y, height), _reflect(x, width)
            else:
                y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
            out += weight[..., None] * image[y.astype(int), x.astype(int)]
    if fill is None:
        return out
    inside = (rows > -0.5) & (rows < height - 0.5) & (columns > -0.5) & (columns < width - 0.5)
    return jnp.where(inside[..., None], out, fill)


def sample_upright(
    image: jax.Array, shape: tuple[int, ...], matrix: jax.Array, offset: jax.Array,
    fill: float | None = None,
) -> jax.Array:  # fmt: skip
    """`sample` for a diagonal `matrix` and a `fill` of None or 0.

    Rows and columns are resampled one after the other, by products of matrices: gathers of single
    pixels are slow on accelerators.
    """

    def weights(pixels: int, size: int, step: jax.Array, offset: jax.Array) -> jax.Array:
        position = step * (jnp.arange(pixels) - (pixels - 1) / 2) + offset + (size - 1) / 2
        out = jnp.zeros((pixels, size))
        for near in (jnp.floor(position), jnp.floor(position) + 1):
            read = jnp.clip(near, 0, size - 1) if fill == 0 else _reflect(near, size)
            weight = 1 - jnp.abs(position - near)
            out += jnp.where(read[:, None] == jnp.arange(size), weight[:, None], 0)
        inside = (position > -0.5) & (position < size - 0.5)
        return out if fill is None else jnp.where(inside[:, None], out, 0)

    rows, columns = map(weights, shape, image.shape[:2], jnp.diagonal(matrix), offset)
    return _separable(image, rows, columns)


def resize_box(image: jax.Array, corner: jax.Array, box: jax.Array, size: int) -> jax.Array:
    """A box of an image [H, W, C], resized to [size, size, C].

    Bilinear, with a kernel as wide as the shrinking, and nothing read beyond the box: Pillow's
    `crop` and `resize` by `BILINEAR`, without its rounding.

    Args:
        image: [H, W, C].
        corner: top and left of the box, whole pixels.
        box: its height and width, whole pixels.
        size: side of the output.
    """

    def weights(pixels: int, start: jax.Array, extent: jax.Array) -> jax.Array:
        scale = extent / size
        centre = start + (jnp.arange(size) + 0.5) * scale
        at = jnp.arange(pixels) + 0.5
        near = jnp.maximum(1 - jnp.abs(at - centre[:, None]) / jnp.maximum(scale, 1), 0)
        near = jnp.where((at > start) & (at < start + extent), near, 0)
        return near / near.sum(1, keepdims=True)

    return _separable(image, *map(weights, image.shape[:2], corner, box))


def _separable(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Weights [I, H] of rows and [J, W] of columns on an image [H, W, C]: [I, J, C]."""
    product = functools.partial(jnp.einsum, precision='highest')  # else of 8 bits on TPU
    return product('jw,iwc->ijc', columns, product('ih,hwc->iwc', rows, image))


def _reflect(position: jax.Array, size: int) -> jax.Array:
    """Mirrors positions at the edges, the edge pixel repeated: -1 is 0, `size` is size - 1."""
    position = jnp.mod(position, 2 * size)
    return jnp.minimum(position, 2 * size - 1 - position)


def blur(image: jax.Array, deviation: Scalar, largest: float) -> jax.Array:
    """A Gaussian blur, cut off at three `largest` deviations; edges repeat their last pixel.

    Rounded to whole numbers, and within 1 of 255 of the exact Gaussian. Pillow's
    `ImageFilter.GaussianBlur` approximates it by three box blurs, whose error in photographs is
    below 1 of 255 in the mean and up to 20 at single pixels, and up to 41 in noise.

    Args:
        image: [H, W, 3].
        deviation: standard deviation in pixels, above 0 and at most `largest`.
        largest: bound of `deviation`, which sets the size of the kernel.
    """
    reach = math.ceil(3 * largest)
    kernel = jnp.exp(-(jnp.arange(-reach, reach + 1) ** 2) / (2 * jnp.square(deviation)))
    kernel /= kernel.sum()
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), 'edge')
    height, width = image.shape[:2]
    rows = sum(kernel[i] * padded[i : i + height] for i in range(2 * reach + 1))
    both = sum(kernel[j] * jnp.asarray(rows)[:, j : j + width] for j in range(2 * reach + 1))
    return jnp.floor(jnp.asarray(both) + 0.5)
