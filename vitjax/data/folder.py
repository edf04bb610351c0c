"""Image files in folders: one folder for each class."""

import pathlib

import numpy as np

from vitjax.data import images, preprocess
from vitjax.data.kind import SPLITS, Data, Source, decoded, held_out, source_split
from vitjax.data.preprocess import Preprocessing

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')


def load(source: Source, root: pathlib.Path, split: str) -> Data:
    """One split of a folder of images."""
    if not root.is_dir():
        raise ValueError(f'data.name must name a folder of images: {root} is none.')
    present = [s for s in SPLITS if (root / s).is_dir()]
    if present and 'train' not in present:
        raise ValueError(f'{root} must have a train folder: it has {", ".join(present)}.')
    first = root / 'train' if present else root
    classes = tuple(sorted(p.name for p in first.iterdir() if p.is_dir()))
    if not classes:
        raise ValueError(f'{first} must have one folder for each class: it has none.')
    home = root / source_split(split, present) if present else root
    unknown = sorted({p.name for p in home.iterdir() if p.is_dir()} - set(classes))
    if unknown:
        raise ValueError(f'{home} has classes that {first} has not: {", ".join(unknown)}.')
    files, labels = [], []
    for label, name in enumerate(classes):
        inside = sorted(p for p in (home / name).glob('*') if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise ValueError(f'class folder without images ({", ".join(SUFFIXES)}): {home / name}.')
        files += inside
        labels += [label] * len(inside)
    chosen = np.arange(len(files))
    if split == 'train' or split not in present:
        chosen = held_out(len(files), split, source, present)
    paths = [files[i] for i in chosen]
    square = Preprocessing(source.size, crop=1.0) if source.size else None

    def decode(path: pathlib.Path) -> np.ndarray:
        return preprocess.read_squares([path], square)[0] if square else images.read(path)

    return Data(decoded(paths, decode, source), np.array(labels, np.int32)[chosen], classes)
