from typing import Any

import numpy as np
import sklearn.datasets

from vitjax.data.kinds import load
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.data.splits import SPLITS


def test_digits_are_split_without_overlap():
    parts = [load(Source(), split) for split in SPLITS]
    assert [len(p) for p in parts] == [1294, 144, 359]
    assert parts[0].images.shape == (1294, 8, 8, 3) and parts[0].images.dtype == np.uint8
    assert parts[0].images.max() == 255
    rows = np.concatenate([p.images.reshape(len(p), -1) for p in parts])
    digits: Any = sklearn.datasets.load_digits()
    known = np.round(digits.images * 255 / 16).astype(np.uint8)
    known = np.repeat(known[..., None], 3, -1).reshape(1797, -1)
    np.testing.assert_array_equal(np.sort(rows.sum(1)), np.sort(known.sum(1)))


def test_the_device_prepares_them():
    data = load(Source('digits'), 'test', Preprocessing(16, 1.0))
    assert data.images.shape[1:] == (8, 8, 3) and data.prepared is None
