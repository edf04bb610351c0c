"""From pixels to a model's input: one way, with the same result on the host and on the device.

It is the way of the weights' publishers (timm, DeiT, transformers): the short side is resized to
`int(size / crop)` pixels, bicubically and antialiased; the central square is cut out; the pixels
are normalised. On the host Pillow resizes (`squares`, `read_squares`, `load`); on the device
`inputs` does the same arithmetic as two products with Pillow's own weights.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vitjax.data import images as files
from vitjax.data.order import evenly
from vitjax.ranges import Finite, Positive, Side, number

if TYPE_CHECKING:
    from vitjax.data.kind import Data

Array = TypeVar('Array', np.ndarray, jax.Array)
Colour = tuple[float, float, float]
Crop = Annotated[float, number(0.01, 1)]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What turns an image into a model's input.

    The short side is resized to `size / crop` pixels, the central `size` x `size` cut out, pixels
    scaled to 0..1, then normalised per channel.

    Attributes:
        size: side of the square input in pixels.
        crop: share of the short side that the input covers, 0.01 to 1.
        mean: per channel, of pixels in 0..1.
        deviation: per channel, of pixels in 0..1.
    """

    size: Side = 224
    crop: Crop = 0.875
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)  # ImageNet's
    deviation: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)


# ---- On the host -------------------------------------------------------------------------------


def square(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """An image uint8 [H, W, 3] resized and cut to what a model sees: uint8 [size, size, 3]."""
    image = _middle(image)
    (high, wide), (top, left) = _geometry(image.shape[:2], preprocessing)
    if (high, wide) != image.shape[:2]:
        # Columns, then rows, as Pillow does too, but for tall images in its latest versions.
        picture = Image.fromarray(image).resize((wide, len(image)), Image.Resampling.BICUBIC)
        image = np.asarray(picture.resize((wide, high), Image.Resampling.BICUBIC))
    size = preprocessing.size
    return image[top : top + size, left : left + size]


def read_square(image: files.File | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """An image resized and cut to what a model sees: uint8 [size, size, 3].

    Args:
        image: a file, or an array uint8 [H, W, 3] of any size.
        preprocessing: the model's.

    Raises:
        ValueError: for a file that cannot be read, by name, and for another array.
    """
    if not isinstance(image, np.ndarray):
        image = files.read(image, short_side=int(preprocessing.size / preprocessing.crop))
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'an image must be uint8 [H, W, 3]: got {image.dtype} {[*image.shape]}.')
    return square(image, preprocessing)


def remark(file: files.File, preprocessing: Preprocessing) -> str:
    """What a model will not see of an image file, in a few words; empty where it sees enough.

    Worth a remark are less than half of the image in the square that is cut out, and a square that
    shrinks to fewer than 64 pixels a side, and to less than a quarter.
    """
    wide, high = files.size(file)
    size = preprocessing.size
    square = min(high, wide) * min(1.0, size / int(size / preprocessing.crop))
    share = square**2 / (high * wide)
    if share >= 0.5 and (size >= 64 or square <= 4 * size):
        return ''
    return (
        f'of {wide}x{high} pixels the model sees the central {square:.0f}x{square:.0f} '
        f'({share:.0%} of the image), as {size}x{size}'
    )


def squares(images: np.ndarray | Sequence[np.ndarray], preprocessing: Preprocessing) -> np.ndarray:
    """Images of any sizes, uint8 [H, W, 3] each, resized and cut: uint8 [B, size, size, 3].

    >>> wide, high = np.zeros((20, 30, 3), np.uint8), np.zeros((9, 5, 3), np.uint8)
    >>> squares([wide, high], Preprocessing(size=8)).shape
    (2, 8, 8, 3)

    Raises:
        ValueError: for another array, and if there are none.
    """
    return read_squares(images, preprocessing)


def read_squares(
    images: np.ndarray | Sequence[files.File | np.ndarray], preprocessing: Preprocessing
) -> np.ndarray:
    """Files and arrays of any sizes, as `read_square` takes them: uint8 [B, size, size, 3].

    Raises:
        ValueError: for a file that cannot be read, by name, another array, and if there are none.
    """
    if isinstance(images, str | pathlib.Path):
        raise ValueError(f'images must be a list of images: got {str(images)!r}.')
    if not len(images):
        raise ValueError('there must be at least one image: got none.')
    return np.stack([*files.THREADS.map(lambda image: read_square(image, preprocessing), images)])


def load(paths: Sequence[files.File], preprocessing: Preprocessing) -> np.ndarray:
    """Image files as a model's input: float32 [B, size, size, 3], normalised.

    Raises:
        ValueError: for a file that cannot be read, by name, and if there are none.
    """
    return normalise(read_squares(paths, preprocessing), preprocessing)


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
    pixels = _middle(jnp.asarray(pixels), first=1)
    new, corner = _geometry(pixels.shape[1:3], preprocessing)
    for axis in (1, 0):  # as on the host: each pass rounds, so their order matters
        pixels = _resize(pixels, axis + 1, new[axis], corner[axis], preprocessing.size)
    return normalise(pixels, preprocessing)


def normalise(pixels: Array, preprocessing: Preprocessing) -> Array:
    """Pixels 0..255 [..., 3] as a model takes them: float32, minus the mean, over the deviation."""
    mean = np.asarray(preprocessing.mean, np.float32)
    deviation = np.asarray(preprocessing.deviation, np.float32)
    return (pixels.astype(np.float32) / 255 - mean) / deviation


def finish(
    pixels: jax.Array | np.ndarray, preprocessing: Preprocessing, prepared: Preprocessing | None
) -> jax.Array:
    """What is left to do for images of `Data`: `normalise` if they are prepared, else `inputs`.

    Args:
        pixels: uint8 [B, H, W, 3].
        preprocessing: the model's.
        prepared: what the images were resized and cut for (`Data.prepared`); None is nothing.

    Raises:
        ValueError: if they were prepared for another model.
    """
    if prepared is None:
        return inputs(pixels, preprocessing)
    if prepared != preprocessing:
        raise ValueError(f'images prepared for {prepared} cannot be used with {preprocessing}.')
    return normalise(jnp.asarray(pixels), preprocessing)


def _resize(x: jax.Array, axis: int, new: int, start: int, size: int) -> jax.Array:
    """Resizes an axis to `new` pixels and takes `size` of them, from `start` on."""
    old = x.shape[axis]
    if new == old:
        return jax.lax.slice_in_dim(x, start, start + size, axis=axis)
    first, weights = _bicubic(old, new, start, size)
    x = jax.lax.slice_in_dim(x, first, first + weights.shape[1], axis=axis).astype(jnp.float32)
    # Accelerators multiply float32 with 8 to 11 bits unless told otherwise.
    x = jnp.tensordot(x, weights, ((axis,), (1,)), precision='highest').astype(jnp.int32)
    high, low = x[..., :size], x[..., size:]
    x = ((high << 11) + low + 2**21) >> 22  # rounds halves up
    return jnp.moveaxis(jnp.clip(x, 0, 255), -1, axis)


@functools.lru_cache(maxsize=32)
def _bicubic(old: int, new: int, start: int, size: int) -> tuple[int, np.ndarray]:
    """Pillow's weights for an axis resized from `old` to `new` pixels, of those that are kept.

    Pillow sums in integers, with 22 bits of each weight after the point. Those are cut into 11 high
    bits and 11 low ones: the sums of pixels times either are whole numbers below 2**24, which
    float32 holds exactly (the low ones beyond a shrinking by 16 almost always).

    Returns:
        The first pixel that is read, and weights [2 size, pixels read] from there on: float32 whole
        numbers, of all outputs first the high bits, then the low ones.
    """
    scale = old / new
    width = max(scale, 1.0)  # a kernel as wide as an output pixel antialiases
    centre = (np.arange(start, start + size)[:, None] + 0.5) * scale
    begin = np.maximum((centre - 2 * width + 0.5).astype(int), 0)
    end = np.minimum((centre + 2 * width + 0.5).astype(int), old)
    first = int(begin.min())
    pixel = np.arange(first, int(end.max()))
    x, a = np.abs((pixel + 0.5 - centre) / width), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0)) * ((begin <= pixel) & (pixel < end))
    weights = np.rint(weights / weights.sum(1, keepdims=True) * 2**22).astype(int)
    high = (weights + 2**10) >> 11
    return first, np.concatenate([high, weights - (high << 11)]).astype(np.float32)


# ---- On either ---------------------------------------------------------------------------------


def _middle(pixels: Array, first: int = 0) -> Array:
    """The middle of a long strip: resizing all of it to cut out a square could take any memory."""
    sides = pixels.shape[first : first + 2]
    longest = 4 * min(sides)
    starts = (max(0, side - longest) // 2 for side in sides)
    cut = (slice(start, start + longest) for start in starts)
    return pixels[(*[slice(None)] * first, *cut)]


def _geometry(
    sides: tuple[int, ...], preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The height and width that an image is resized to, and the corner of the square cut out."""
    short = int(preprocessing.size / preprocessing.crop)
    high, wide = (short if side == min(sides) else int(short * side / min(sides)) for side in sides)
    top, left = (round((side - preprocessing.size) / 2) for side in (high, wide))
    return (high, wide), (top, left)


# ---- From the training images ------------------------------------------------------------------


def statistics(data: 'Data') -> tuple[Colour, Colour]:
    """Mean and deviation per channel of pixels in 0..1, over at most 50,000 images, evenly spread.

    Of images that stream 5,000 are read. Both are rounded to 6 decimals, so that they can be
    written and read again.
    """
    most = 5_000 if getattr(data.images, 'streams', False) else 50_000
    chosen = evenly(len(data), most)
    first = second = np.zeros(3)
    for part in np.array_split(chosen, -(-len(chosen) // 1000)):
        pixels = data.images[part].reshape(-1, 3).astype(np.float32) / 255
        first = first + pixels.sum(0, dtype=np.float64)
        second = second + (pixels**2).sum(0, dtype=np.float64)
    count = len(chosen) * data.images.shape[1] * data.images.shape[2]
    mean = first / count
    deviation = np.sqrt(np.maximum(second / count - mean**2, 1e-12))
    return _colour(mean), _colour(deviation)


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue
