"""Image files in folders: one folder for each class, or a plain folder of photographs."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.data import kind
from vitjax.data.kind import SPLITS, Data, Encoded, Source, chosen, decoded
from vitjax.data.preprocess import Preprocessing, read_square
from vitjax.files import expanded

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a folder of classes, or of folders `train`, `validation`, `test` of such.

    Raises:
        ValueError: for a folder that is missing, without classes or of other classes than `train`,
            a class without images, and as `kind.chosen` and `kind.decoded`.
    """
    root = expanded(name)
    if not root.is_dir():
        raise ValueError(f'data.name must name a folder of images: {root} is none.')
    present = [s for s in SPLITS if (root / s).is_dir()]
    if present and 'train' not in present:
        raise ValueError(f'{root} must have a train folder: it has {", ".join(present)}.')
    first = root / 'train' if present else root
    classes = tuple(sorted(p.name for p in first.iterdir() if p.is_dir()))
    if not classes:
        raise ValueError(f'{first} must have one folder for each class: it has none.')
    home = root / kind.home(split, present) if present else root
    unknown = sorted({p.name for p in home.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise ValueError(f'{home} has classes that {first} has not: {", ".join(unknown)}.')
    files, labels = [], []
    for label, own in enumerate(classes):
        inside = _images(home / own)
        if not inside:
            raise ValueError(f'class folder without images ({", ".join(SUFFIXES)}): {home / own}.')
        files += inside
        labels += [label] * len(inside)
    rows = chosen(source, split, count=len(files), present=present)
    chosen_files = Paths(root, [files[i] for i in rows])
    pixels = decoded(chosen_files, source, preprocessing, chosen_files.size)
    return Data(pixels, np.array(labels, np.int32)[rows], classes, preprocessing)


class Paths(Sequence[pathlib.Path]):
    """Paths of files in a folder, in a few bytes each: there may be millions."""

    def __init__(self, root: pathlib.Path, files: Sequence[pathlib.Path]):
        self._root = root
        self._names = np.array([os.fsencode(file.relative_to(root)) for file in files])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: Any) -> Any:
        return self._root / os.fsdecode(bytes(self._names[row]))

    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self)


def photographs(folder: str | pathlib.Path, preprocessing: Preprocessing) -> Data:
    """The image files of a folder, without labels, prepared for a model and decoded when read.

    Raises:
        ValueError: if there are none, and for one that cannot be read, by name.
    """
    files = _images(pathlib.Path(folder))
    if not files:
        raise ValueError(f'there are no images ({", ".join(SUFFIXES)}) in {folder}.')
    encoded = Encoded(files, lambda file: read_square(file, preprocessing))
    return Data(encoded, np.full(len(files), -1, np.int32), (), preprocessing)


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.glob('*') if p.suffix.lower() in SUFFIXES)
