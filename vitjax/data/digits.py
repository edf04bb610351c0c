"""Scikit-learn's handwritten digits: 1,797 images of 8x8 pixels."""

from typing import Any

import numpy as np

from vitjax.data.kind import Data, Source, held_out


def load(source: Source, split: str) -> Data:
    """One split of the digits."""
    import sklearn.datasets

    digits: Any = sklearn.datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 1,797 of 8x8, 0 to 16
    chosen = held_out(len(pixels), split, source, ('train',))
    return Data(
        np.repeat(pixels[chosen, ..., None], 3, axis=-1),
        digits.target[chosen].astype(np.int32),
        tuple(str(i) for i in range(10)),
    )
