"""Arrays of `.npy` files, checked against the file before numpy reads it."""

import math
import os
from typing import Any

import numpy as np

from vitjax.base.files import Path, first_line
from vitjax.base.types import DType


def array(path: Path, shape: tuple[int, ...] | None = None, dtype: DType = None) -> np.ndarray:
    """A `.npy` as a read-only memory map, after its header was compared with the file's size.

    Args:
        path: the file.
        shape: required shape; None takes any.
        dtype: required type; None takes any.

    Raises:
        ValueError: if the file is missing, no whole array of numbers, or of another kind.
    """
    try:
        with open(path, 'rb') as file:
            found = npy_header(file)
            size, needed = os.fstat(file.fileno()).st_size, file.tell() + _bytes(*found)
    except Exception as error:  # numpy's parsing of a header can raise any
        reason = getattr(error, 'strerror', None) or first_line(error)
        raise ValueError(f'{path} is no whole array of numbers: {reason}.') from None
    if size != needed:
        raise ValueError(f'{path} must have {needed:,} bytes, by its header: it has {size:,}.')
    wanted = found[0] if shape is None else shape, found[1] if dtype is None else np.dtype(dtype)
    if found != wanted:
        said = [f'{kind} of {list(sides)}' for sides, kind in (wanted, found)]
        raise ValueError(f'{path} must be {said[0]}: it is {said[1]}.')
    return np.load(path, mmap_mode='r' if _bytes(*found) else None, allow_pickle=False)


def npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype in the header of an open `.npy`, which is left at the array.

    Raises:
        ValueError: for anything but numbers and text. Numpy may raise others.
    """
    known = np.lib.format
    version = known.read_magic(file)
    read = {(1, 0): known.read_array_header_1_0, (2, 0): known.read_array_header_2_0}
    if version not in read:
        raise ValueError(f'its header is of version {version}')
    shape, _, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError('Object arrays cannot be loaded when allow_pickle=False')
    return shape, dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(map(int, shape)) * dtype.itemsize  # Python's integers do not overflow
