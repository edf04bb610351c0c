"""Statistics of training images, which a model's preprocessing takes over."""

import numpy as np

from vitjax.data.order import evenly
from vitjax.data.preprocess import Colour
from vitjax.data.source import Data


def is_grey(data: Data) -> bool:
    """Returns True if all images that `moments` reads have three equal channels everywhere.

    A nearly grey image counts as colour. Reading stops at the first image in colour.
    """
    chosen, start, count = _rows(data), 0, 8
    while start < len(chosen):
        pixels = data.images[chosen[start : start + count]]
        if (pixels[..., :1] != pixels).any():
            return False
        start, count = start + count, min(2 * count, 1000)
    return True


def _rows(data: Data) -> np.ndarray:
    """Rows of the images that stand for all: at most 50,000, or 5,000 of a stream, evenly."""
    most = 5_000 if getattr(data.images, 'streams', False) else 50_000
    return evenly(len(data), most)


def moments(data: Data) -> tuple[Colour, Colour]:
    """Mean and deviation per channel of pixels in 0..1, over at most 50,000 images, evenly spread.

    Of images that stream 5,000 are read. Both are rounded to 6 decimals, so that they can be
    written and read again.
    """
    chosen = _rows(data)
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
