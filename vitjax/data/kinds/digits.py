"""Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels."""

from typing import Any

import numpy as np

from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source, chosen, digest, part


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of the digits; they are of one size, so never prepared.

    Raises:
        ValueError: for a split without images.
    """
    import sklearn.datasets

    digits: Any = sklearn.datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # from 0..16
    rows = chosen(source, split, count=len(pixels), present=['train'])
    pixels, labels = pixels[rows], digits.target[rows].astype(np.int32)
    classes = tuple(str(i) for i in range(10))
    known = digest(classes, labels, [pixels.tobytes()])
    images, which = np.repeat(pixels[..., None], 3, axis=-1), part(split, {'train': 'train'})
    return Data(images, labels, classes, digest=known, part=which)
