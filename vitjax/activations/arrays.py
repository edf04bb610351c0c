"""Representations that other programs wrote: `.npy`, `.npz` and `.h5` files of arrays.

A representation is an array of floats of [N, D], [L, N, D] or [L, N, T, D]: L layers, N examples,
T tokens, D features. An `.npy` holds one. An `.npz` or `.h5` holds one under each key, of the same
examples, and may hold three more:

| key       | array                                                           |
| --------- | --------------------------------------------------------------- |
| `labels`  | [N] integers: class of each example, -1 without one             |
| `classes` | [K] text: names of the classes                                  |
| `names`   | text: names of all layers, in the order of the keys             |

An `.npz` with a vector of floats is a file of weights, since weights have biases.
"""

import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from vitjax.activations.record import Activations, Stack
from vitjax.base import files, npy
from vitjax.base.types import Array
from vitjax.pretrained import files as weights

_OTHERS = ('labels', 'classes', 'names')
_SHAPES = '[N, D], [L, N, D] or [L, N, T, D] (layers, examples, tokens, features)'


def is_file(path: str | pathlib.Path) -> bool:
    """Returns True for the name of such a file, unless it is an `.npz` of weights."""
    path = pathlib.Path(path)
    return path.suffix.lower() in _READERS and not _has_vectors(path)


def _has_vectors(path: pathlib.Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.removesuffix('.npy') not in _OTHERS]
            heads = [npy.npy_header(archive.open(name)) for name in names]
    except Exception:  # parsing a damaged zip raises anything; reading it says which
        return False
    return any(len(shape) == 1 and dtype.kind == 'f' for shape, dtype in heads)


def from_file(path: str | pathlib.Path) -> Activations:
    """The representations in a file, as the module's docstring describes it.

    Nothing is unpickled. An `.npy` and an `.h5` are read when their examples are asked for.

    Raises:
        ValueError: if the file is damaged, or an array in it has another type, shape or number of
            examples; for an `.h5` without h5py.
    """
    path = pathlib.Path(path)
    arrays = _READERS[path.suffix.lower()](path)
    others = {key: arrays.pop(key) for key in _OTHERS if len(arrays) > 1 and key in arrays}
    counts, stacks, labels = {}, [], None
    for name, array in arrays.items():
        if array.ndim not in (2, 3, 4) or array.dtype.kind != 'f':
            raise ValueError(f'{path}: {name} must be floats of {_SHAPES}: it is {_kind(array)}.')
        layers, counts[name], *rest = array.shape if array.ndim > 2 else (1, *array.shape)
        stacks.append(Stack(name, (layers, *rest), (0, layers - 1) if array.ndim > 2 else None))
    if 'labels' in others:
        labels = np.asarray(others['labels'])
        if labels.ndim != 1 or labels.dtype.kind not in 'iu':
            raise ValueError(f'{path}: labels must be integers of [N]: it is {_kind(labels)}.')
        counts['labels'] = len(labels)
    if len({*counts.values()}) != 1:
        said = ', '.join(f'{name} {count}' for name, count in counts.items())
        raise ValueError(f'{path}: all arrays must have the same examples: {said}.')
    named = 'names' in others
    if named:
        names = _text(others['names'])
        shapes = [(1, *stack.shape[1:]) for stack in stacks for _ in range(stack.shape[0])]
        if len(names) != len(shapes):
            raise ValueError(f'{path}: names must be of {len(shapes)} layers: got {len(names)}.')
        stacks = [Stack(name, shape, None) for name, shape in zip(names, shapes, strict=True)]

    def values(rows: np.ndarray) -> list[Array]:
        found = [
            np.asarray(array[:, rows] if array.ndim > 2 else array[rows][None])
            for array in arrays.values()
        ]
        return [layer[None] for stack in found for layer in stack] if named else [*found]

    about: dict[str, Any] = {'source': str(path), 'tokens': 'as given'}
    if 'classes' in others:
        about['classes'] = _text(others['classes'])
    labels = None if labels is None else labels.astype(np.int32)
    return Activations(tuple(stacks), min(counts.values()), values, None, labels, about)


def _kind(array: Any) -> str:
    return f'{array.dtype} of {list(array.shape)}'


def _text(array: Any) -> list[str]:
    """Strings of NumPy, or bytes of HDF5."""
    return [each.decode() if isinstance(each, bytes) else str(each) for each in array[:]]


def _read_h5(path: pathlib.Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{path} needs the hdf5 extra: pip install -e '.[hdf5]'.") from None
    found: dict[str, Any] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    with files.reading(path):
        if not h5py.is_hdf5(path):
            raise ValueError(f'{path} is not an HDF5 file.')
        h5py.File(path).visititems(add)
    return found


_READERS: dict[str, Callable[[pathlib.Path], dict[str, Any]]] = {
    '.npy': lambda path: {path.stem: npy.array(path)},
    '.npz': weights.read,
    '.h5': _read_h5,
    '.hdf5': _read_h5,
}
