"""Image files in folders: one folder for each class, or a plain folder of photographs."""

import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitjax.base.files import reading
from vitjax.data.kinds.accounting import Accounting
from vitjax.data.notices import listed
from vitjax.data.paths import expanded
from vitjax.data.preprocess import Preprocessing, read_square
from vitjax.data.source import Data, Encoded, Source, decoded, digest, sample
from vitjax.data.splits import KNOWN, Splits, split_of


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a folder of classes, or of its folders `train`, `val` and `test`.

    Images in folders of a class are the class's. Everything below the folder is accounted for
    (`Accounting`), whatever split is loaded.

    Raises:
        ValueError: if a folder is missing, cannot be read, has no classes, has folders besides its
            splits or two folders of one split; if a split has classes that the training split
            lacks, or a class has no images; and as `Splits.rows` and `decoded`. The message names
            the folder.
    """
    root = _folder(name)
    files = Accounting()
    splits, classes = _layout(files, root)
    homes = {own: root / folder for own, folder in splits.names.items()} or {'train': root}
    found = _images(files, homes, classes)
    files.tell(root)
    splits.tell(source)
    own = splits.home(split)
    names = [name for inside in found[own] for name in inside]
    labels = np.repeat(np.arange(len(classes)), [len(inside) for inside in found[own]])
    rows = splits.rows(source, split, len(names))
    held, labels = Paths(homes[own], [names[i] for i in rows]), labels[rows].astype(np.int32)
    pixels = decoded(held, source, preprocessing, lambda: int(held.sizes.sum()))
    known = held.digest(classes, labels)
    return Data(pixels, labels, classes, preprocessing, known, splits.part(split))


def _layout(files: Accounting, root: pathlib.Path) -> tuple[Splits, tuple[str, ...]]:
    """The splits that have folders of their own, none in a folder of classes, and the classes."""
    folders = _classes(files, root)
    splits = Splits.among(folders, root)
    own = splits.names
    others = [name for name in folders if split_of(name) is None]
    if own and others:
        rule = f'{root} has {listed(others)} besides {", ".join(own.values())}'
        advice = 'Move them out of it; if all of them are classes, move all into a folder train.'
        raise ValueError(f'{rule}: folders besides splits must be splits ({KNOWN}). {advice}')
    lost = [name for name in os.listdir(root) if split_of(name) and name not in folders]
    if lost:  # mostly a link to a disk that is not mounted
        raise ValueError(f'{root / lost[0]} has the name of a split: it must be a folder.')
    words = {split for name in folders for split in _words(name)}
    if not own and 'train' in words and {'validation', 'test'} & words:
        rule = 'if they are splits, they must have the names train, val and test'
        advice = 'if they are classes, move all into a folder train'
        raise ValueError(f'{root} has {listed(folders)}: {rule}; {advice}.')
    if own and 'train' not in own:
        raise ValueError(f'{root} must have a train folder: it has {", ".join(own.values())}.')
    first = root / own.get('train', '')
    classes = _classes(files, first) if own else folders
    rule = f'{first} must have one folder for each class'
    if not classes:
        raise ValueError(f'{rule}: it has none.')
    if own and all(map(split_of, classes)):
        advice = f'If they are splits, name folder:{first}.'
        raise ValueError(f'{rule}: {listed(classes)} are names of splits. {advice}')
    return splits, tuple(classes)


def _words(name: str) -> Iterator[str]:
    """Splits named by words of a folder's name, as in `seg_train`, `val2017`, `TestSet`."""
    for word in re.findall(r'[A-Z]?[a-z]+|[^\W\d_]+', name):
        bare = re.sub(r'(?<=.)(sets?|data|images|imgs?)$', '', word.casefold())
        if split := split_of(bare):
            yield split


def _images(
    files: Accounting, homes: dict[str, pathlib.Path], classes: Sequence[str]
) -> dict[str, list[list[str]]]:
    """Names of the images of each class of each split, relative to the split's folder."""
    first = homes['train']
    found: dict[str, list[list[str]]] = {}
    for own, home in homes.items():
        inside = classes if own == 'train' else _classes(files, home)
        if not inside:  # images without labels, usually a competition's
            rule = f'{home} must have one folder for each class of {first}, as {home / classes[0]}'
            raise ValueError(f'{rule}: it has none{files.aside()}. Move it out of {home.parent}.')
        unknown = sorted({*inside} - {*classes})
        if unknown:
            raise ValueError(f'{home} has classes that {first} has not: {listed(unknown)}.')
        found[own] = [_of_class(files, home, each) if each in inside else [] for each in classes]
        empty = [name for name, images in zip(classes, found[own], strict=True) if not images]
        if empty:
            raise ValueError(f'class folder without images{files.aside()}: {home / empty[0]}.')
    if len(classes) == 1 and all(name.count('/') > 1 for name in found['train'][0]):
        below = sorted({name.split('/')[1] for name in found['train'][0]})
        there = f'it has {classes[0]} alone, whose images lie in {listed(below)}'
        advice = 'if those are the classes, name the folder above them'
        raise ValueError(f'{first} must have one folder for each class: {there}; {advice}.')
    return found


def _classes(files: Accounting, folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder; its images belong to no class."""
    folders, images = files.open_once(folder)
    files.unread['outside of classes'] += len(images)
    return folders


def _of_class(files: Accounting, home: pathlib.Path, name: str) -> list[str]:
    """Names of the images of a class, relative to `home`, sorted, folders in it included.

    Raises:
        ValueError: if a folder in it cannot be read or has the name of a split.
    """
    found, waiting = [], [name]
    while waiting:
        folder = waiting.pop()
        folders, images = files.open_once(home / folder)
        if below := next(filter(split_of, folders), None):
            rule = f'has the name of a split inside of the class {name}: splits lie above classes'
            advice = f'If {name} is no class, name folder:{home / folder}; else rename {below}.'
            raise ValueError(f'{home / folder / below} {rule}. {advice}')
        found += [f'{folder}/{image}' for image in images]
        waiting += [f'{folder}/{below}' for below in folders]
    return sorted(found, key=lambda path: path.split('/'))


def photographs(folder: str | pathlib.Path, preprocessing: Preprocessing) -> Data:
    """The image files of a folder, without labels, prepared for a model and decoded when read.

    Images in folders of it are counted and not read: they may be a test split's.

    Raises:
        ValueError: if there are none, or one cannot be read, by name.
    """
    root, files = _folder(folder), Accounting()
    folders, names = files.open_once(root)
    for name in folders:
        files.count('in folders', root / name)
    if not names:
        raise ValueError(f'there are no images in {root}{files.aside()}.')
    files.tell(root)
    paths = Paths(root, names)
    encoded = Encoded(paths, lambda file: read_square(file, preprocessing))
    labels = np.full(len(names), -1, np.int32)
    return Data(encoded, labels, (), preprocessing, paths.digest((), labels))


def _folder(name: str | pathlib.Path) -> pathlib.Path:
    root = expanded(name)
    if not root.is_dir():
        there = 'is a file' if os.path.exists(root) else 'does not exist'
        raise ValueError(f'data.name must name a folder of images: {root} {there}.')
    return root


class Paths(Sequence[pathlib.Path]):
    """Paths of files in a folder and their sizes, in a few bytes each: there may be millions.

    Args:
        root: the folder.
        names: names of the files, relative to it.

    Attributes:
        sizes: [N] bytes of each file.
    """

    def __init__(self, root: pathlib.Path, names: Sequence[str]):
        self._root, encoded = root, [os.fsencode(name) for name in names]
        self._names, self._ends = b''.join(encoded), np.cumsum([len(name) for name in encoded])
        with reading():
            self.sizes = np.array([os.stat(root / name).st_size for name in names], np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: Any) -> Any:
        return self._root / os.fsdecode(self._name(range(len(self))[row]))

    def _name(self, row: int) -> bytes:
        return self._names[self._ends[row - 1] if row else 0 : self._ends[row]]

    def digest(self, classes: Sequence[str], labels: np.ndarray) -> str:
        """Identity of the files with their labels, as `source.digest`.

        Raises:
            ValueError: if a file cannot be read, by name.
        """
        facts = (b'%b %d' % (self._name(row), size) for row, size in enumerate(self.sizes))
        heads = (_head(self[row]) for row in sample(len(self)))
        return digest(classes, labels, itertools.chain(facts, heads))


def _head(file: pathlib.Path) -> bytes:
    """The first 64 KiB of a file."""
    with reading(file), open(file, 'rb') as opened:
        return opened.read(2**16)
