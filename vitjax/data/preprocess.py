"""Preprocessing of images to a model's input: one path, equal bit for bit on host and device.

It is the path of the weights' publishers (timm, DeiT, transformers). The short side is resized to
`int(size / crop)` pixels with an antialiased filter, the central square is cut out, and the pixels
are normalised. On the host Pillow resizes (`squares`, `load`). On the device
`inputs` does the same arithmetic as two products with Pillow's own weights.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vitjax.base.ranges import Finite, Positive, Range, Side
from vitjax.data import images as files

Array = TypeVar('Array', np.ndarray, jax.Array)
Colour = tuple[float, float, float]
Crop = Annotated[float, Range(0.01, 1)]
Interpolation = Literal['bilinear', 'bicubic', 'lanczos']
IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean, deviation


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Everything that turns an image into a model's input.

    The short side is resized to `size / crop` pixels, the central `size` x `size` cut out, pixels
    scaled to 0..1, then normalised per channel.

    Attributes:
        size: side of the square input in pixels.
        crop: fraction of the short side that the input covers, 0.01 to 1.
        mean: per channel, of pixels in 0..1.
        deviation: per channel, of pixels in 0..1.
        interpolation: Pillow's filter for resizing, antialiased: `bilinear`, `bicubic`, `lanczos`.
        squash: resize both sides to `size / crop` pixels, whatever the image's aspect.
        grey: replace the three channels by their luma first (Pillow's `convert('L')`), for a
            model that was trained on grey images.
    """

    size: Side = 224
    crop: Crop = 0.875
    mean: tuple[Finite, Finite, Finite] = IMAGENET[0]
    deviation: tuple[Positive, Positive, Positive] = IMAGENET[1]
    interpolation: Interpolation = 'bicubic'
    squash: bool = False
    grey: bool = False


# ---- On the host -------------------------------------------------------------------------------


def square(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """An image uint8 [H, W, 3] resized and cut to what a model sees: uint8 [size, size, 3]."""
    image = _luma(image) if preprocessing.grey else image
    new, corner = _geometry(image.shape[:2], preprocessing)
    if max(new) > 4 * min(new):  # resized as a whole, a strip could take any memory
        return _cut_strip(image, new, corner, preprocessing)
    high, wide = new
    if new != image.shape[:2]:
        # Columns first: Pillow's own order depends on its version for tall images (from 13 on).
        method = Image.Resampling[preprocessing.interpolation.upper()]
        picture = Image.fromarray(image).resize((wide, len(image)), method)
        image = np.asarray(picture.resize((wide, high), method))
    (top, left), size = corner, preprocessing.size
    return image[top : top + size, left : left + size]


def _cut_strip(
    image: np.ndarray, new: tuple[int, int], corner: tuple[int, int], preprocessing: Preprocessing
) -> np.ndarray:
    """The central square of the resized image, computed from the pixels that it depends on."""
    kernels = _kernels(image.shape[:2], new, corner, preprocessing)
    image = _read_by(image, kernels)
    for axis in (1, 0):  # float64 holds Pillow's integer sums exactly
        sums = np.tensordot(image.astype(np.float64), kernels[axis].weights, ((axis,), (1,)))
        levels = (sums.astype(np.int64) + 2**21) >> 22
        image = np.moveaxis(levels.clip(0, 255).astype(np.uint8), -1, axis)
    return image


def read_square(image: files.File | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """An image resized and cut to what a model sees: uint8 [size, size, 3].

    Args:
        image: a file, or an array uint8 [H, W, 3] of any size.
        preprocessing: the model's.

    Raises:
        ValueError: if the file cannot be read (by name), or the array is another one.
    """
    if not isinstance(image, np.ndarray):
        image = files.read(image, short_side=int(preprocessing.size / preprocessing.crop))
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'an image must be uint8 [H, W, 3]: got {image.dtype} {[*image.shape]}.')
    return square(image, preprocessing)


def remark(file: files.File, preprocessing: Preprocessing) -> str:
    """Note on the part of an image file that a model does not see; empty if it sees enough.

    A note is due if the square that is cut out has less than half of the image, or shrinks to less
    than 64 pixels a side and less than a quarter.
    """
    wide, high = files.size(file)
    size = preprocessing.size
    if preprocessing.squash:
        return ''
    square = min(high, wide) * min(1.0, size / int(size / preprocessing.crop))
    share = square**2 / (high * wide)
    if share >= 0.5 and (size >= 64 or square <= 4 * size):
        return ''
    return (
        f'of {wide}x{high} pixels the model sees the central {square:.0f}x{square:.0f} '
        f'({share:.0%} of the image), as {size}x{size}'
    )


def squares(
    images: np.ndarray | Sequence[files.File | np.ndarray], preprocessing: Preprocessing
) -> np.ndarray:
    """Files and arrays of any sizes, as `read_square` takes them: uint8 [B, size, size, 3].

    >>> wide, high = np.zeros((20, 30, 3), np.uint8), np.zeros((9, 5, 3), np.uint8)
    >>> squares([wide, high], Preprocessing(size=8)).shape
    (2, 8, 8, 3)

    Raises:
        ValueError: if a file cannot be read (by name), an array is no image, or there are none.
    """
    if isinstance(images, str | pathlib.Path):
        raise ValueError(f'images must be a list of images: got {str(images)!r}.')
    if not len(images):
        raise ValueError('there must be at least one image: got none.')
    return np.stack([*files.THREADS.map(lambda image: read_square(image, preprocessing), images)])


def photographs(
    images: Sequence[files.File | np.ndarray], preprocessing: Preprocessing, most: int
) -> np.ndarray:
    """The squares that a model sees at the images' own resolution: uint8 [B, S, S, 3].

    S is that of the largest image: at most `most` pixels, and at least the model's size.

    >>> wide, high = np.zeros((20, 30, 3), np.uint8), np.zeros((9, 5, 3), np.uint8)
    >>> photographs([wide, high], Preprocessing(size=8, crop=0.5), 64).shape
    (2, 10, 10, 3)
    """
    short = max(
        min(image.shape[:2] if isinstance(image, np.ndarray) else files.size(image))
        for image in images
    )
    size = max(preprocessing.size, min(int(short * preprocessing.crop), most))
    return squares(images, dataclasses.replace(preprocessing, size=size))


def load(paths: Sequence[files.File], preprocessing: Preprocessing) -> np.ndarray:
    """Image files as a model's input: float32 [B, size, size, 3], normalised.

    Raises:
        ValueError: if a file cannot be read (by name), or there are none.
    """
    return normalise(squares(paths, preprocessing), preprocessing)


# ---- On the device -----------------------------------------------------------------------------


def inputs(pixels: jax.Array | np.ndarray, preprocessing: Preprocessing) -> jax.Array:
    """Images of one size as a model's input: uint8 [B, H, W, 3] to float32 [B, size, size, 3].

    Pure; jit it with `preprocessing` static. The pixels are those of `squares` to the bit, by exact
    sums; `normalise` may then differ in the last bits of a float32, at most 1e-6.

    >>> pixels = np.full((2, 30, 20, 3), 255, np.uint8)
    >>> half, quarter = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    >>> x = inputs(pixels, Preprocessing(size=8, mean=half, deviation=quarter))
    >>> x.shape, float(x.min()), float(x.max())
    ((2, 8, 8, 3), 2.0, 2.0)
    """
    pixels = jnp.asarray(pixels)
    pixels = _luma(pixels) if preprocessing.grey else pixels
    new, corner = _geometry(pixels.shape[1:3], preprocessing)
    kernels = _kernels(pixels.shape[1:3], new, corner, preprocessing)
    pixels = _read_by(pixels, kernels, first=1)
    for axis in (1, 0):  # as on the host: each pass rounds, so their order matters
        pixels = _resize(pixels, axis + 1, kernels[axis])
    return normalise(pixels, preprocessing)


def normalise(pixels: Array, preprocessing: Preprocessing) -> Array:
    """Pixels 0..255 [..., 3] as a model takes them: float32, minus the mean, over the deviation."""
    mean = np.asarray(preprocessing.mean, np.float32)
    deviation = np.asarray(preprocessing.deviation, np.float32)
    return (pixels.astype(np.float32) / 255 - mean) / deviation


def finish(
    pixels: jax.Array | np.ndarray, preprocessing: Preprocessing, prepared: Preprocessing | None
) -> jax.Array:
    """Remaining steps for images of `Data`: `normalise` if they are prepared, else `inputs`.

    Args:
        pixels: uint8 [B, H, W, 3].
        preprocessing: the model's.
        prepared: preprocessing that the images were resized and cut for (`Data.prepared`); None if
            they are as in their source.

    Raises:
        ValueError: if they were prepared for another model.
    """
    if prepared is None:
        return inputs(pixels, preprocessing)
    if prepared != preprocessing:
        raise ValueError(f'images prepared for {prepared} cannot be used with {preprocessing}.')
    return normalise(jnp.asarray(pixels), preprocessing)


def _resize(x: jax.Array, axis: int, kernel: '_Kernel') -> jax.Array:
    """One pass of Pillow's resize along an axis, in sums that float32 holds exactly.

    The 22 bits of each weight are cut into 11 high and 11 low ones. Sums of pixels times either
    are exact below 2**24; a long sum is taken in parts.
    """
    if kernel.identity:
        return x
    weights = kernel.weights
    high = (weights + 2**10) >> 11
    halves = np.concatenate([high, weights - (high << 11)]).astype(np.float32)
    low, cuts = np.abs(halves[len(weights) :]), 1
    while max(low[:, i::cuts].sum(1).max() for i in range(cuts)) * 255 >= 2**24:
        cuts += 1  # beyond a shrinking by about 32
    sums = jnp.zeros((), jnp.int32)
    for i in range(cuts):
        part = jax.lax.slice_in_dim(x, i, x.shape[axis], cuts, axis).astype(jnp.float32)
        # Accelerators multiply float32 with 8 to 11 bits unless told otherwise.
        part = jnp.tensordot(part, halves[:, i::cuts], ((axis,), (1,)), precision='highest')
        sums = sums + part.astype(jnp.int32)
    size = len(weights)
    x = ((sums[..., :size] << 11) + sums[..., size:] + 2**21) >> 22  # rounds halves up
    return jnp.moveaxis(jnp.clip(x, 0, 255), -1, axis)


# ---- On either ---------------------------------------------------------------------------------


class _Kernel(NamedTuple):
    """Pillow's resize of one axis, for the outputs that are kept.

    Attributes:
        first: first pixel that is read.
        weights: [outputs, pixels read] from there on, whole numbers with 22 bits after the point.
        identity: True if the axis keeps its size, so that pixels are only cut out.
    """

    first: int
    weights: np.ndarray
    identity: bool


def _bicubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _sinc(x: np.ndarray) -> np.ndarray:
    angle = np.where(x == 0, 1.0, x * math.pi)
    sine: Any = np.frompyfunc(math.sin, 1, 1)  # the C library's, as Pillow's: numpy's may differ
    return np.where(x == 0, 1.0, sine(angle).astype(float) / angle)


_FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {  # with their reach
    'bilinear': (lambda x: np.maximum(1 - np.abs(x), 0), 1.0),
    'bicubic': (_bicubic, 2.0),
    'lanczos': (lambda x: np.where((-3 <= x) & (x < 3), _sinc(x) * _sinc(x / 3), 0), 3.0),
}


@functools.lru_cache(maxsize=32)
def _kernel(old: int, new: int, start: int, size: int, interpolation: Interpolation) -> _Kernel:
    """Pillow's weights for an axis resized from `old` to `new` pixels, `size` kept from `start`.

    In the order of Pillow's own double arithmetic, whose last bits decide how weights round.
    """
    if old == new:
        return _Kernel(start, np.eye(size, dtype=int) << 22, True)
    function, support = _FILTERS[interpolation]
    scale = old / new
    width = max(scale, 1.0)  # a filter as wide as an output pixel antialiases
    reach = support * width
    centre = (np.arange(start, start + size)[:, None] + 0.5) * scale
    begin = np.maximum((centre - reach + 0.5).astype(int), 0)
    end = np.minimum((centre + reach + 0.5).astype(int), old)
    first = int(begin.min())
    pixel = np.arange(first, int(end.max()))
    weights = function((pixel - centre + 0.5) * (1 / width)) * ((begin <= pixel) & (pixel < end))
    weights = weights / np.cumsum(weights, 1)[:, -1:] * 2**22
    return _Kernel(first, np.trunc(weights + np.copysign(0.5, weights)).astype(int), False)


def _kernels(
    old: tuple[int, ...], new: tuple[int, int], corner: tuple[int, int],
    preprocessing: Preprocessing,
) -> tuple[_Kernel, _Kernel]:  # fmt: skip
    """The kernels of the rows' and the columns' resize."""
    size, interpolation = preprocessing.size, preprocessing.interpolation
    rows, columns = (
        _kernel(old[axis], new[axis], corner[axis], size, interpolation) for axis in (0, 1)
    )
    return rows, columns


def _read_by(pixels: Array, kernels: Sequence[_Kernel], first: int = 0) -> Array:
    """The rows and columns that kernels read."""
    cut = (slice(k.first, k.first + k.weights.shape[1]) for k in kernels)
    return pixels[(*[slice(None)] * first, *cut)]


def _luma(pixels: Array) -> Array:
    """Luma (ITU-R 601-2) of uint8 [..., 3] in all three channels, as `convert('L')` rounds it."""
    red, green, blue = (pixels[..., i : i + 1].astype(np.int32) for i in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    xp: Any = np if isinstance(pixels, np.ndarray) else jnp
    return xp.broadcast_to(luma.astype(np.uint8), pixels.shape)


def _geometry(
    sides: tuple[int, ...], preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The height and width that an image is resized to, and the corner of the square cut out."""
    short = int(preprocessing.size / preprocessing.crop)
    high, wide = (
        short if preprocessing.squash or side == min(sides) else int(short * side / min(sides))
        for side in sides
    )
    top, left = (round((side - preprocessing.size) / 2) for side in (high, wide))
    return (high, wide), (top, left)
