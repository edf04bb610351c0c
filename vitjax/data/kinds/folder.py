"""Image files in folders: one folder for each class, or a plain folder of photographs."""

import collections
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitjax.base.files import expanded
from vitjax.data import source as sources
from vitjax.data.images import SUFFIXES
from vitjax.data.preprocess import Preprocessing, read_square
from vitjax.data.source import Data, Encoded, Source, chosen, decoded, digest

# What systems and editors put into folders, besides names that begin with a dot.
HIDDEN = (
    '__macosx',
    'thumbs.db',
    'desktop.ini',
    '@eadir',
    '$recycle.bin',
    'lost+found',
    '__pycache__',
    'system volume information',
)
OURS = ('vitjax-shrink',)  # beside the images that `prepare shrink` writes: its settings
KINDS = 8  # kinds of unread files that are counted apart in the printed line


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a folder of classes, or of its folders `train`, `val` and `test` (`source.NAMES`).

    Images in folders of a class are the class's. Everything below the folder is accounted for
    (`Accounting`), whatever split is loaded.

    Raises:
        ValueError: for a folder that is missing or cannot be read, without classes, with folders
            besides its splits, with two folders of one split, with classes that its training split
            does not have, with a class without images, and as `source.chosen` and
            `source.decoded`. The message names the folder.
    """
    root = _folder(name)
    files = Accounting()
    homes, classes = _layout(files, root)
    found = _images(files, homes, classes)
    files.tell(root)
    present = {own: home.name for own, home in homes.items()} if homes['train'] != root else {}
    sources.tell_home(source, present)
    own = sources.home(split, [*present])
    names = [name for inside in found[own] for name in inside]
    labels = np.repeat(np.arange(len(classes)), [len(inside) for inside in found[own]])
    rows = chosen(source, split, count=len(names), present=[*present])
    held, labels = Paths(homes[own], [names[i] for i in rows]), labels[rows].astype(np.int32)
    pixels = decoded(held, source, preprocessing, lambda: int(held.sizes.sum()))
    known = held.digest(classes, labels)
    return Data(pixels, labels, classes, preprocessing, known, sources.part(split, present))


def _layout(
    files: 'Accounting', root: pathlib.Path
) -> tuple[dict[str, pathlib.Path], tuple[str, ...]]:
    """The folder of each split (of a folder of classes, `root` for `train`), and the classes."""
    folders = _classes(files, root)
    splits = sources.splits(folders, root)
    others = [name for name in folders if sources.split_of(name) is None]
    if splits and others:
        raise ValueError(
            f'{root} has {sources.listed(others)} besides {", ".join(splits.values())}: folders '
            f'besides splits must be splits ({sources.KNOWN}). Move them out of it; if all of them '
            'are classes, move all into a folder train.'
        )
    lost = [name for name in os.listdir(root) if sources.split_of(name) and name not in folders]
    if lost:  # a link to a disk that is not there, above all
        raise ValueError(f'{root / lost[0]} has the name of a split: it must be a folder.')
    words = {split for name in folders for split in _words(name)}
    if not splits and 'train' in words and {'validation', 'test'} & words:
        raise ValueError(
            f'{root} has {sources.listed(folders)}: if they are splits, they must have the names '
            f'train, val and test; if they are classes, move all into a folder train.'
        )
    if splits and 'train' not in splits:
        raise ValueError(f'{root} must have a train folder: it has {", ".join(splits.values())}.')
    homes = {split: root / name for split, name in splits.items()} or {'train': root}
    first = homes['train']
    classes = _classes(files, first) if splits else folders
    if not classes:
        raise ValueError(f'{first} must have one folder for each class: it has none.')
    if splits and all(map(sources.split_of, classes)):
        raise ValueError(
            f'{first} must have one folder for each class: {sources.listed(classes)} are names of '
            f'splits. If they are splits, name folder:{first}.'
        )
    return homes, tuple(classes)


def _words(name: str) -> Iterator[str]:
    """The splits that words of a folder's name are: as in `seg_train`, `val2017`, `TestSet`."""
    for word in re.findall(r'[A-Z]?[a-z]+|[^\W\d_]+', name):
        bare = re.sub(r'(?<=.)(sets?|data|images|imgs?)$', '', word.casefold())
        if split := sources.split_of(bare):
            yield split


def _images(
    files: 'Accounting', homes: dict[str, pathlib.Path], classes: Sequence[str]
) -> dict[str, list[list[str]]]:
    """Names of the images of each class of each split, relative to the split's folder."""
    first = homes['train']
    found: dict[str, list[list[str]]] = {}
    for own, home in homes.items():
        inside = classes if own == 'train' else _classes(files, home)
        if not inside:  # images without labels, as of a competition
            rule = f'{home} must have one folder for each class of {first}, as {home / classes[0]}'
            raise ValueError(f'{rule}: it has none{files.aside()}. Move it out of {home.parent}.')
        unknown = sorted({*inside} - {*classes})
        if unknown:
            raise ValueError(f'{home} has classes that {first} has not: {sources.listed(unknown)}.')
        found[own] = [files.images(home, name) if name in inside else [] for name in classes]
        empty = [name for name, images in zip(classes, found[own], strict=True) if not images]
        if empty:
            raise ValueError(f'class folder without images{files.aside()}: {home / empty[0]}.')
    if len(classes) == 1 and all(name.count('/') > 1 for name in found['train'][0]):
        below = sorted({name.split('/')[1] for name in found['train'][0]})
        raise ValueError(
            f'{first} must have one folder for each class: it has {classes[0]} alone, whose images '
            f'lie in {sources.listed(below)}; if those are the classes, name the folder above them.'
        )
    return found


def _classes(files: 'Accounting', folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder; its images belong to no class."""
    folders, images = files.entries(folder)
    files.unread['outside of classes'] += len(images)
    return folders


def photographs(folder: str | pathlib.Path, preprocessing: Preprocessing) -> Data:
    """The image files of a folder, without labels, prepared for a model and decoded when read.

    Images in folders of it are counted and not read: they may be a test split's.

    Raises:
        ValueError: if there are none, and for one that cannot be read, by name.
    """
    root, files = _folder(folder), Accounting()
    folders, names = files.entries(root)
    for name in folders:
        files.count('in folders', os.path.join(root, name))
    if not names:
        raise ValueError(f'there are no images in {root}{files.aside()}.')
    files.tell(root)
    paths = Paths(root, names)
    encoded = Encoded(paths, lambda file: read_square(file, preprocessing))
    labels = np.full(len(names), -1, np.int32)
    return Data(encoded, labels, (), preprocessing, paths.digest((), labels))


def _folder(name: str | pathlib.Path) -> pathlib.Path:
    """The folder that a user names.

    Raises:
        ValueError: if it is none.
    """
    root = expanded(name)
    if not root.is_dir():
        there = 'is a file' if os.path.exists(root) else 'does not exist'
        raise ValueError(f'data.name must name a folder of images: {root} {there}.')
    return root


class Accounting:
    """Every entry below a folder: a folder that is opened, an image that is used, or counted.

    Attributes:
        unread: number of files not read, by kind: a suffix, `hidden`, `broken links`, `not files`
            (FIFOs, sockets, devices), `outside of classes`, `in folders`.
        empty: number of folders without entries, or hidden and without files.
    """

    def __init__(self) -> None:
        self.unread: collections.Counter[str] = collections.Counter()
        self.empty = 0
        self._opened: dict[tuple[int, int], pathlib.Path] = {}

    def entries(self, folder: pathlib.Path) -> tuple[list[str], list[str]]:
        """Names of the folders and of the image files in a folder, sorted; counts the others.

        Raises:
            ValueError: if it cannot be read, or was opened before: a link made its images double,
                or leads back to it.
        """
        try:
            known = os.stat(folder)
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(f'{folder} cannot be read: {error.strerror}.') from None
        before = self._opened.setdefault((known.st_dev, known.st_ino), folder)
        if before != folder:
            raise ValueError(f'{folder} and {before} are one folder: its images would count twice.')
        self.empty += not entries
        folders, images = [], []
        for entry in entries:
            if entry.name in OURS:
                continue
            suffix = _suffix(entry.name)
            if entry.name.startswith('.') or entry.name.lower() in HIDDEN:
                self.count('hidden', entry.path)
            elif (what := _kind(entry)) == 'folder':
                folders.append(entry.name)
            elif what == 'file' and suffix in SUFFIXES:
                images.append(entry.name)
            else:
                self.unread[suffix if what == 'file' else what] += 1
        return folders, images

    def count(self, kind: str, path: str | pathlib.Path) -> None:
        """Counts what is not opened: a file, or the files in a folder."""
        files = _below(path)
        self.unread[kind] += files
        self.empty += not files

    def images(self, home: pathlib.Path, name: str) -> list[str]:
        """Names of the images of a class, relative to `home`, sorted, folders in it included.

        Raises:
            ValueError: for a folder in it that cannot be read or has the name of a split.
        """
        found, waiting = [], [name]
        while waiting:
            folder = waiting.pop()
            folders, images = self.entries(home / folder)
            for below in folders:
                if sources.split_of(below):
                    raise ValueError(
                        f'{home / folder / below} has the name of a split inside of the class '
                        f'{name}: splits lie above classes. If {name} is no class, name '
                        f'folder:{home / folder}; else rename {below}.'
                    )
            found += [f'{folder}/{image}' for image in images]
            waiting += [f'{folder}/{below}' for below in folders]
        return sorted(found, key=lambda path: path.split('/'))

    def counts(self) -> str:
        """The files not read, by kind, the most first: `16 files not read: hidden 12, .txt 4`."""
        kinds = [(kind, count) for kind, count in self.unread.most_common() if count]
        total, more = sum(count for _, count in kinds), kinds[KINDS:]
        if more:
            kinds = [*kinds[:KINDS], ('others', sum(count for _, count in more))]
        said = []
        if total:
            listed = ', '.join(f'{kind} {count:,}' for kind, count in kinds)
            said.append(f'{total:,} {"file" if total == 1 else "files"} not read: {listed}')
        if self.empty:
            said.append(f'{self.empty:,} empty {"folder" if self.empty == 1 else "folders"}')
        return '; '.join(said)

    def aside(self) -> str:
        """The counts in brackets, for a message; nothing if all is used."""
        return f' ({self.counts()})' if self.counts() else ''

    def tell(self, root: pathlib.Path) -> None:
        """Prints what was not read, once in a process."""
        if said := self.counts():
            sources.tell(f'{root}: {said}')


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        kind = 'folder' if entry.is_dir() else 'file' if entry.is_file() else 'not files'
        broken = kind == 'not files' and entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:  # a link to itself, or into a folder that cannot be read
        broken, kind = True, ''
    return 'broken links' if broken else kind


def _suffix(name: str) -> str:
    """A file's suffix in small letters; `no suffix` for what does not look like one."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if re.fullmatch(r'\.[a-z0-9_+-]{1,10}', suffix) else 'no suffix'


def _below(path: str | pathlib.Path) -> int:
    """Number of files in a folder and the folders in it; 1 for a file or a link."""
    if os.path.islink(path) or not os.path.isdir(path):
        return 1
    return sum(len(files) for _, _, files in os.walk(path))


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
        self.sizes = np.array([_size(root / name) for name in names], np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: Any) -> Any:
        return self._root / os.fsdecode(self._name(range(len(self))[row]))

    def _name(self, row: int) -> bytes:
        return self._names[self._ends[row - 1] if row else 0 : self._ends[row]]

    def digest(self, classes: Sequence[str], labels: np.ndarray) -> str:
        """Identity of the files with their labels, as `source.digest`.

        Raises:
            ValueError: for a file that cannot be read, by name.
        """
        facts = (b'%b %d' % (self._name(row), size) for row, size in enumerate(self.sizes))
        heads = (_head(self[row]) for row in sources.sample(len(self)))
        return digest(classes, labels, itertools.chain(facts, heads))


def _size(file: pathlib.Path) -> int:
    try:
        return os.stat(file).st_size
    except OSError as error:
        raise ValueError(f'{file} cannot be read: {error.strerror}.') from None


def _head(file: pathlib.Path) -> bytes:
    """The first 64 KiB of a file."""
    try:
        with open(file, 'rb') as opened:
            return opened.read(2**16)
    except OSError as error:
        raise ValueError(f'{file} cannot be read: {error.strerror}.') from None
