"""From pixels to a model's input, the one way."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vitjax.data.images import read


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
