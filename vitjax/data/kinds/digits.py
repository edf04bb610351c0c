"""Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels."""

from typing import Any

import numpy as np

from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source, digest
from vitjax.data.splits import Splits


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of the digits; they are of one size, so never prepared.

    Raises:
        ValueError: if the split would have no images.
    """
    import sklearn.datasets

    digits: Any = sklearn.datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # from 0..16
    splits = Splits()
    rows = splits.rows(source, split, len(pixels))
    pixels, labels = pixels[rows], digits.target[rows].astype(np.int32)
    classes = tuple(str(i) for i in range(10))
    images, known = np.repeat(pixels[..., None], 3, -1), digest(classes, labels, [pixels.tobytes()])
    return Data(images, labels, classes, digest=known, part=splits.part(split))
