"""Image files in folders: one folder for each class, or a plain folder of photographs."""

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.data import kind
from vitjax.data.kind import SPLITS, Data, Encoded, Source, chosen, decoded, digest
from vitjax.data.preprocess import Preprocessing, read_square

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a folder of classes, or of folders `train`, `validation`, `test` of such.

    Raises:
        ValueError: for a folder that is missing, without classes or of other classes than `train`,
            a class without images, and as `kind.chosen` and `kind.decoded`.
    """
    root = pathlib.Path(name).expanduser()
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
    held, of = Paths(home, [files[i] for i in rows]), np.array(labels, np.int32)[rows]
    pixels = decoded(held, source, preprocessing, lambda: int(held.sizes.sum()))
    return Data(pixels, of, classes, preprocessing, held.digest(classes, of))


class Paths(Sequence[pathlib.Path]):
    """Paths of files in a folder and their sizes, in a few bytes each: there may be millions.

    Attributes:
        sizes: [N] bytes of each file.
    """

    def __init__(self, root: pathlib.Path, files: Sequence[pathlib.Path]):
        self._root = root
        self._names = np.array([os.fsencode(file.relative_to(root)) for file in files])
        self.sizes = np.array([file.stat().st_size for file in files], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: Any) -> Any:
        return self._root / os.fsdecode(bytes(self._names[row]))

    def digest(self, classes: Sequence[str], labels: np.ndarray) -> str:
        """Identity of the files with their labels, as `kind.digest`.

        Raises:
            ValueError: for a file that cannot be read, by name.
        """
        facts = (b'%b %d' % known for known in zip(self._names, self.sizes, strict=True))
        heads = (_head(self[row]) for row in kind.sample(len(self)))
        return digest(classes, labels, itertools.chain(facts, heads))


def _head(file: pathlib.Path) -> bytes:
    """The first 64 KiB of a file."""
    try:
        with open(file, 'rb') as opened:
            return opened.read(2**16)
    except OSError as error:
        raise ValueError(f'{file} cannot be read: {error.strerror}.') from None


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
