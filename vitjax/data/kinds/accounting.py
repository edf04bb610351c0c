"""Entries of folders of images: each is opened, used as an image, or counted."""

import collections
import os
import pathlib
import re

from vitjax.base.files import reading
from vitjax.data.images import SUFFIXES
from vitjax.data.notices import tell

# Names that systems and editors put into folders, besides those that begin with a dot.
HIDDEN = (
    '__macosx', 'thumbs.db', 'desktop.ini', '@eadir', '$recycle.bin', 'lost+found', '__pycache__',
    'system volume information',
)  # fmt: skip
OURS = ('vitjax-shrink',)  # settings that `prepare shrink` writes beside its images
SHOWN = 8  # kinds of unread files that the printed line names


class Accounting:
    """Counts of the files below a folder that are not read.

    Attributes:
        unread: number of files not read, by kind: a suffix, `hidden`, `broken links`, `not files`
            (FIFOs, sockets, devices), `outside of classes`, `in folders`.
        empty: number of folders without entries, or hidden and without files.
    """

    def __init__(self) -> None:
        self.unread: collections.Counter[str] = collections.Counter()
        self.empty = 0
        self._opened: dict[tuple[int, int], pathlib.Path] = {}

    def open_once(self, folder: pathlib.Path) -> tuple[list[str], list[str]]:
        """Returns what `entries` does, for a folder that was not opened before.

        Raises:
            ValueError: if it cannot be read, or was opened before: a link made its images double,
                or leads back to it.
        """
        with reading(folder):
            known = os.stat(folder)
        before = self._opened.setdefault((known.st_dev, known.st_ino), folder)
        if before != folder:
            raise ValueError(f'{folder} and {before} are one folder: its images would count twice.')
        return self.entries(folder)

    def entries(self, folder: pathlib.Path) -> tuple[list[str], list[str]]:
        """Names of the folders and of the image files in a folder, sorted; counts the others.

        Raises:
            ValueError: if it cannot be read.
        """
        with reading(folder), os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        self.empty += not entries
        folders, images = [], []
        for entry in entries:
            if entry.name in OURS:
                continue
            suffix = _suffix(entry.name)
            if entry.name.startswith('.') or entry.name.lower() in HIDDEN:
                self.count('hidden', entry.path)
            elif (kind := _kind(entry)) == 'folder':
                folders.append(entry.name)
            elif kind == 'file' and suffix in SUFFIXES:
                images.append(entry.name)
            else:
                self.unread[suffix if kind == 'file' else kind] += 1
        return folders, images

    def count(self, kind: str, path: str | pathlib.Path) -> None:
        """Counts an entry that is not opened: a file or link as one, a folder by its files."""
        files = 1
        if os.path.isdir(path) and not os.path.islink(path):
            files = sum(len(names) for _, _, names in os.walk(path))
        self.unread[kind] += files
        self.empty += not files

    def counts(self) -> str:
        """The files not read, by kind, the most first: `16 files not read: hidden 12, .txt 4`."""
        kinds, total = (+self.unread).most_common(SHOWN), self.unread.total()
        if others := total - sum(count for _, count in kinds):
            kinds.append(('others', others))
        said = []
        if total:
            shown = ', '.join(f'{kind} {count:,}' for kind, count in kinds)
            said.append(f'{total:,} {"file" if total == 1 else "files"} not read: {shown}')
        if self.empty:
            said.append(f'{self.empty:,} empty {"folder" if self.empty == 1 else "folders"}')
        return '; '.join(said)

    def aside(self) -> str:
        """The counts in brackets, for a message; empty if every file is read."""
        return f' ({self.counts()})' if self.counts() else ''

    def tell(self, root: pathlib.Path) -> None:
        """Prints the counts, once in a process."""
        if said := self.counts():
            tell(f'{root}: {said}')


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        kind = 'folder' if entry.is_dir() else 'file' if entry.is_file() else 'not files'
        broken = kind == 'not files' and entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:  # a link to itself, or into a folder that cannot be read
        broken, kind = True, ''
    return 'broken links' if broken else kind


def _suffix(name: str) -> str:
    """A file's suffix in small letters, or `no suffix` if it does not look like one."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if re.fullmatch(r'\.[a-z0-9_+-]{1,10}', suffix) else 'no suffix'
