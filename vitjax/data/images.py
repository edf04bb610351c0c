"""Image files, safely, as arrays."""

import contextlib
import functools
import io
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitjax.base import quiet
from vitjax.base.files import first_line, irregular
from vitjax.base.processes import cores

# Formats that are opened (no plugin that starts a program), and their suffixes.
FORMATS = ('JPEG', 'PNG', 'GIF', 'WEBP', 'AVIF', 'BMP', 'ICO', 'TIFF', 'PPM')
SUFFIXES = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.gif', '.webp', '.avif', '.avifs', '.bmp',
    '.ico', '.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm',
)  # fmt: skip
LARGE = 2**24  # pixels from which an image is reduced while it is read
THREADS = ThreadPoolExecutor(cores(), 'images')  # Pillow works outside the GIL


class InMemory(NamedTuple):
    """Image file in memory: its bytes, and a name for messages."""

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


File = str | pathlib.Path | InMemory


def read(file: File, *, short_side: int | None = None) -> np.ndarray:
    """An image file as uint8 [H, W, 3], upright, in RGB.

    Grey and palette images become RGB, 16 bits become 8, transparent pixels lie on white, an
    animation is its first frame, and the camera's rotation (EXIF) is applied.

    Args:
        file: an image of one of `FORMATS`, on disk or in memory.
        short_side: pixels that the short side will be resized to. Images of more than 16 megapixels
            are first reduced by a whole factor, to no less than twice that: the result is small,
            and a JPEG is never decoded in full.

    Raises:
        ValueError: if the file is missing, not regular (a directory, a pipe), truncated, of another
            format, of floating-point numbers, of more than 179 megapixels, or one pixel wide or
            high. The message names it.
    """
    try:
        with of_any_size(), Image.open(_regular(file), formats=_formats()) as image:
            array = np.asarray(_rgb(image, short_side))
    except FileNotFoundError:
        raise ValueError(f'there is no image {file}.') from None
    except UnidentifiedImageError:
        kinds = ', '.join(FORMATS)
        raise ValueError(f'{file} cannot be read: an image must be one of {kinds}.') from None
    except Exception as error:  # Pillow raises anything for broken files and bombs
        raise ValueError(f'{file} cannot be read: {first_line(error)}.') from None
    height, width = array.shape[:2]
    if min(height, width) < 2:
        rule = 'an image must have 2 pixels or more each way'
        raise ValueError(f'{file}: {rule}: it has {width}x{height}.')
    return array


def size(file: File) -> tuple[int, int]:
    """Width and height in pixels of an image file that `read` takes, upright; decodes nothing.

    Raises:
        ValueError: if the file is not regular. Pillow raises others for a broken one.
    """
    with of_any_size(), Image.open(_regular(file), formats=_formats()) as image:
        wide, high = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # orientations that lie on their side
        return (high, wide) if turned else (wide, high)


def _regular(file: File) -> io.BytesIO | str | pathlib.Path:
    """The file as Pillow takes it."""
    if isinstance(file, InMemory):
        return io.BytesIO(file.content)
    if kind := irregular(file):
        raise ValueError(f'an image must be a regular file: it is {kind}')
    return file


def of_any_size() -> contextlib.AbstractContextManager[None]:
    """Silences Pillow's warning of images above half of its limit, which are read and reduced."""
    return quiet.warning(Image.DecompressionBombWarning)


@functools.cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _rgb(image: Image.Image, short_side: int | None) -> Image.Image:
    reduced = 2 * short_side if short_side and image.width * image.height > LARGE else 0
    if reduced:
        image.draft(None, (reduced, reduced))  # a JPEG is then decoded at 1/2 to 1/8
    clear = _transparent(image)
    if clear is not None:
        image.info['transparency'] = clear
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(('I', 'F')):  # which Pillow's own conversion clips at 255
        image = _eight_bits(image)
    mode = 'RGBA' if image.has_transparency_data else 'RGB'
    image = image if image.mode == mode else image.convert(mode)  # which always copies
    if reduced and min(image.size) >= 2 * reduced:
        image = image.reduce(min(image.size) // reduced)
    if image.mode == 'RGBA':
        white = Image.new('RGBA', image.size, 'white')
        image = Image.alpha_composite(white, image).convert('RGB')
    return image


def _transparent(image: Image.Image) -> Any:
    """The grey level or colour that stands for transparent, at the depth of the decoded pixels.

    Pillow keeps it at the PNG's own depth, but decodes 2 and 4 bits of grey to 8, and 16 bits a
    colour to their high bytes.
    """
    clear = image.info.get('transparency')
    tiles: Any = getattr(image, 'tile', None) if image.format == 'PNG' else None
    raw = tiles[0][3] if tiles else ''
    if isinstance(clear, int) and raw in ('L;2', 'L;4'):
        return clear * 255 // (2 ** int(raw[-1]) - 1)
    if isinstance(clear, tuple) and raw == 'RGB;16B':
        return tuple(level >> 8 for level in clear)
    return clear


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey levels of 16 bits as 8, with alpha if one of them stands for transparent.

    Raises:
        ValueError: if levels exceed 16 bits or are floating point, whose white is unknown.
    """
    levels = np.asarray(image)
    if image.mode == 'F' or (levels < 0).any() or (levels > 65535).any():
        kind = 'floating-point numbers ' if image.mode == 'F' else ''
        found = f'these are {kind}from {levels.min():g} to {levels.max():g}'
        raise ValueError(f'pixels must be integers from 0 to 65,535: {found}')
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    clear = image.info.get('transparency')
    if clear is None:
        return grey
    alpha = Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))
    return Image.merge('LA', (grey, alpha))
