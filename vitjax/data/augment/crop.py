"""A random box of an image file, resized, for images that stream: on the host, by OpenCV."""

import dataclasses
import importlib
import io
import math

import numpy as np
from PIL import Image

from vitjax.data import images
from vitjax.data.images import File, InMemory

ASPECTS = 3 / 4, 4 / 3  # of a random resized crop, width over height
ADVICE = "images beyond data.memory stream, which needs pip install -e '.[stream]'"


@dataclasses.dataclass(frozen=True)
class Crop:
    """A random resized crop of whole images (Szegedy et al. 2015, arXiv:1409.4842).

    Attributes:
        size: side in pixels of the result.
        area: smallest fraction of the image's area.
    """

    size: int
    area: float

    def __call__(self, file: File, random: np.random.Generator) -> np.ndarray:
        """A box of an image file, resized to uint8 [size, size, 3].

        A JPEG is decoded at 1/2, 1/4 or 1/8 if the box has that many pixels to spare. Boxes are
        shrunk by averages over areas and enlarged bilinearly.

        Args:
            file: file for `vitjax.data.images.read`.
            random: generator that draws the box.

        Raises:
            ValueError: if the file cannot be read, by name.
        """
        import cv2

        content = _content(file)
        shape = _plain_jpeg(content)
        if shape is None:
            image, factor = images.read(InMemory(content, str(file))), 1
            place = box(random, self.area, image.shape[:2])
        else:
            place = box(random, self.area, shape)
            spare = min(place[2:]) // self.size
            factor = max(f for f in (1, 2, 4, 8) if f <= max(1, spare))
            reduced = getattr(cv2, f'IMREAD_REDUCED_GRAYSCALE_{factor}') if factor > 1 else 0
            encoded = np.frombuffer(content, np.uint8)
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB | reduced)
            if image is None:
                raise ValueError(f'{file} cannot be read: it is a damaged JPEG.')
        top, left, high, wide = place
        rows, columns = (
            slice(round(start / factor), round((start + extent) / factor))
            for start, extent in ((top, high), (left, wide))
        )
        part = image[rows, columns]
        how = cv2.INTER_AREA if min(part.shape[:2]) >= self.size else cv2.INTER_LINEAR
        return cv2.resize(part, (self.size, self.size), interpolation=how)


def box(
    random: np.random.Generator, area: float, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a random box of an image of `shape` [H, W].

    By torchvision's rule: the first of ten draws of area and aspect whose sides, once rounded, are
    a pixel or more and fit, placed at random; else `central`. The device draws by the same rule.
    """
    height, width = shape[:2]
    draws = random.random(22).tolist()  # floats: numpy takes longer with so few, and holds the GIL
    low, high = map(math.log, ASPECTS)
    for share, aspect in zip(draws[:10], draws[10:20], strict=True):
        pixels = (area + (1 - area) * share) * height * width
        aspect = math.exp(low + (high - low) * aspect)
        tall, wide = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 0 < tall <= height and 0 < wide <= width:
            down, right = draws[20:]
            return int(down * (height - tall + 1)), int(right * (width - wide + 1)), tall, wide
    return central(shape)


def central(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The box that a random crop falls back to: the largest central one of an aspect it may have.

    Top, left, height and width in pixels, of an image of `shape` [H, W].
    """
    height, width = shape[:2]
    narrowest, widest = ASPECTS
    # At least a pixel, which an image of 1 by 1 alone does not have by itself.
    tall = min(height, max(1, round(width / narrowest)))
    wide = min(width, max(1, round(height * widest)))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def require_stream(*packages: str) -> None:
    """Checks that packages of the extra `stream` are installed.

    Raises:
        ValueError: if not, with the command that installs them.
    """
    try:
        for name in packages:
            importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f'{ADVICE}: {error}.') from None


def _content(file: File) -> bytes:
    if isinstance(file, InMemory):
        return file.content
    try:
        with io.FileIO(file) as opened:  # without a buffer threads wait less often for the GIL
            return opened.readall()
    except FileNotFoundError:
        raise ValueError(f'there is no image {file}.') from None
    except OSError as error:
        raise ValueError(f'{file} cannot be read: {error.strerror}.') from None


def _plain_jpeg(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that OpenCV reads as Pillow does; None for all other files.

    It is upright, in grey or colour, and whole: OpenCV fills the rest of a truncated one with grey.
    """
    if content[:3] != b'\xff\xd8\xff' or b'\xff\xd9' not in content[-64:]:
        return None
    try:
        with images.of_any_size(), Image.open(io.BytesIO(content), formats=['JPEG']) as image:
            if image.mode not in ('RGB', 'L') or image.getexif().get(0x0112, 1) != 1:
                return None
            return image.height, image.width
    except Exception:  # `images.read` reports the fault
        return None
