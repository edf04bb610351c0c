"""Image files, safely, and the preprocessing that a model expects of a photograph."""

import dataclasses
import functools
import pathlib
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'AVIF', 'BMP', 'ICO')  # no plugin that starts a program
LARGE = 2**24  # pixels from which an image is reduced while it is read


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What turns an image into a model's input.

    The short side is resized to `size / crop` pixels, the central `size` x `size` cut out, pixels
    scaled to 0..1, then normalised per channel.

    Attributes:
        size: side of the square input in pixels.
        crop: share of the short side that the input covers, 0 to 1.
        mean: per channel, of pixels in 0..1.
        deviation: per channel, of pixels in 0..1.
    """

    size: int = 224
    crop: float = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)


def read(path: str | pathlib.Path, *, short_side: int | None = None) -> np.ndarray:
    """An image file as uint8 [H, W, 3], upright, in RGB.

    Grey and palette images become RGB, 16 bits become 8, transparent pixels lie on white, an
    animation is its first frame, and the camera's rotation (EXIF) is applied.

    Args:
        path: a JPEG, PNG, GIF, WebP, AVIF, BMP or ICO file.
        short_side: what the short side will be resized to. Images of more than 16 megapixels are
            then reduced by a whole factor first, to no less than twice that, so that what comes
            back is small, and a JPEG is never decoded in full.

    Raises:
        ValueError: for a file that is missing, truncated, of another kind, of more than 179
            megapixels or of one pixel's width or height, by name.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            array = np.asarray(_rgb(image, short_side))
    except FileNotFoundError:
        raise ValueError(f'there is no image {path}.') from None
    except UnidentifiedImageError:
        kinds = ', '.join(FORMATS)
        raise ValueError(f'{path} cannot be read: an image must be one of {kinds}.') from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(f'{path} cannot be read: {error}.') from None
    height, width = array.shape[:2]
    if min(height, width) < 2:
        raise ValueError(
            f'{path}: an image must have 2 pixels or more each way: it has {width}x{height}.'
        )
    return array


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _rgb(image: Image.Image, short_side: int | None) -> Image.Image:
    reduced = 2 * short_side if short_side and image.width * image.height > LARGE else 0
    if reduced:
        image.draft(None, (reduced, reduced))  # a JPEG is then decoded at 1/2 to 1/8
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith('I'):  # 16 bits, which Pillow's own conversion clips at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    mode = 'RGBA' if image.has_transparency_data else 'RGB'
    image = image if image.mode == mode else image.convert(mode)  # which always copies
    if reduced and min(image.size) >= 2 * reduced:
        image = image.reduce(min(image.size) // reduced)
    if image.mode == 'RGBA':
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, image).convert('RGB')
    return image


def central_square(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """An image [H, W, 3] resized (bicubic, antialiased) and cut: uint8 [size, size, 3]."""
    size = preprocessing.size
    short = int(size / preprocessing.crop)
    height, width = image.shape[:2]
    # Of a long strip only the middle is wanted: resizing all of it could take any memory.
    longest = 4 * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    image = image[top : top + longest, left : left + longest]
    height, width = image.shape[:2]
    scale = short / min(height, width)
    if scale != 1:
        wide = short if width <= height else int(short * width / height)
        high = short if height <= width else int(short * height / width)
        picture = Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC)
        image = np.asarray(picture)
    top, left = round((image.shape[0] - size) / 2), round((image.shape[1] - size) / 2)
    return image[top : top + size, left : left + size]


def normalise(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Pixels uint8 [..., 3] as a model takes them: float32, minus the mean, over the deviation."""
    mean = np.asarray(preprocessing.mean, np.float32)
    deviation = np.asarray(preprocessing.deviation, np.float32)
    return (images.astype(np.float32) / 255 - mean) / deviation


def squares(paths: Sequence[str | pathlib.Path], preprocessing: Preprocessing) -> np.ndarray:
    """Image files resized and cut to what a model sees: uint8 [B, size, size, 3].

    Raises:
        ValueError: for a file that cannot be read, and if there are none.
    """
    if not paths:
        raise ValueError('there must be at least one image: got none.')
    short = int(preprocessing.size / preprocessing.crop)
    return np.stack([central_square(read(p, short_side=short), preprocessing) for p in paths])


def load(paths: Sequence[str | pathlib.Path], preprocessing: Preprocessing) -> np.ndarray:
    """Image files as a model's input: float32 [B, size, size, 3], normalised.

    Raises:
        ValueError: for a file that cannot be read, and if there are none.
    """
    return normalise(squares(paths, preprocessing), preprocessing)


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet-1k's 1,000 classes, in the order of published weights' outputs."""
    lines = pathlib.Path(__file__).with_name('imagenet_classes.txt').read_text('utf-8')
    return tuple(lines.splitlines())
