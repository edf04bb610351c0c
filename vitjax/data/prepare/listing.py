"""Images of ImageNet-1k as people have them: the published archives, or folders of classes."""

import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vitjax.base.files import first_line
from vitjax.data.classes import SYNSET
from vitjax.data.images import InMemory
from vitjax.data.prepare import tar

COUNTS = {'train': 1_281_167, 'validation': 50_000}
ARCHIVES = {'train': 'ILSVRC2012_img_train.tar', 'validation': 'ILSVRC2012_img_val.tar'}
FOLDERS = {'train': ('train',), 'validation': ('val', 'validation')}
NUMBER = re.compile(r'ILSVRC2012_val_(\d{8})\.jpe?g', re.IGNORECASE)  # a label's line, from 1
LONGEST = 255  # bytes of a file's name


class Labels(NamedTuple):
    """ImageNet's labels, from the package of TensorFlow Datasets.

    Attributes:
        synsets: the classes' synsets, in order.
        validation: a synset for each validation image, in the order of their numbers.
    """

    synsets: list[str]
    validation: list[str]

    @classmethod
    def read(cls) -> 'Labels':
        """The published labels."""
        import tensorflow_datasets as tfds

        folder = pathlib.Path(tfds.__file__).parent / 'datasets' / 'imagenet2012'
        names = 'labels.txt', 'validation_labels.txt'
        return cls(*((folder / name).read_text().split() for name in names))


class Row(NamedTuple):
    """Place of one image: bytes in a file of the listing; the synset of its folder, or ''."""

    file: int
    start: int
    size: int
    synset: str
    name: str


class Listing(NamedTuple):
    """Images of a split and their places.

    Attributes:
        files: files that hold images.
        found: [N], with the fields file (an index of `files`), start and size in bytes, label and
            name (UTF-8).
    """

    files: list[pathlib.Path]
    found: np.ndarray

    def image(self, row: int) -> InMemory:
        """An image's bytes and its name."""
        at = self.found[row]
        with self.files[at['file']].open('rb') as file:
            file.seek(at['start'])
            return InMemory(file.read(at['size']), at['name'].decode())

    def signature(self) -> str:
        """Digest of names, sizes and labels, independent of the images' places."""
        parts = (np.ascontiguousarray(self.found[name]) for name in ('name', 'size', 'label'))
        return hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()


def read(source: pathlib.Path, split: str, labels: Labels, progress: Callable[..., Any]) -> Listing:
    """Lists the images of a split, sorted by name.

    Args:
        source: folder of the archives or of the splits' folders.
        split: `train` or `validation`.
        labels: ImageNet's.
        progress: as in `vitjax.data.prepare.cifar.prepare`.

    Raises:
        ValueError: if the images are not ImageNet-1k's by number, class or name.
    """
    archive = source / ARCHIVES[split]
    folders = [source / name for name in FOLDERS[split] if (source / name).is_dir()]
    files: list[pathlib.Path] = []
    if archive.is_file():
        files, members = [archive], _in_archive(archive)
    elif folders:
        members = _in_folder(folders[0], files)
    else:
        raise ValueError(f'{source} must have {ARCHIVES[split]} or a folder {FOLDERS[split][0]}.')
    rows: list[Row] = []
    wanted = COUNTS[split]
    with progress(f'{split} images found', wanted) as show:
        for row in itertools.islice(members, wanted + 1):
            rows.append(row)
            show(len(rows))
    if len(rows) != wanted:
        there = f'{len(rows):,}' + ' or more' * (len(rows) > wanted)
        raise ValueError(f'ImageNet has {wanted:,} {split} images: {source} has {there}.')
    rows.sort(key=lambda row: row.name)
    synsets = [_synset(row, split, labels) for row in rows]
    number = {synset: i for i, synset in enumerate(labels.synsets)}
    if other := sorted({*synsets} ^ {*number}):
        rule = f'{source} must have the {len(number):,} classes of ImageNet-1k for {split}'
        raise ValueError(f'{rule}: {other[0]} differs.')
    names = [_encoded(row.name) for row in rows]
    if split == 'validation' and len({*names}) < len(names):
        double = next(a for a, b in itertools.pairwise(names) if a == b).decode()
        raise ValueError(f'{source} must have each validation image once: {double} is there twice.')
    kinds = [('file', 'i4'), ('start', 'i8'), ('size', 'i8'), ('label', 'i4')]
    kinds += [('name', f'S{max(map(len, names))}')]
    table = zip(rows, map(number.get, synsets), names, strict=True)
    return Listing(files, np.array([(*row[:3], own, name) for row, own, name in table], kinds))


def _synset(row: Row, split: str, labels: Labels) -> str:
    """The class of an image: its folder's, or its number's among the published validation images.

    Raises:
        ValueError: if neither is known, or its name has another.
    """
    own, name = row.synset, row.name
    if split == 'validation' and (known := NUMBER.fullmatch(name)):
        at, last = int(known[1]), len(labels.validation)
        if not 1 <= at <= last:
            raise ValueError(f'validation images have the numbers from 1 to {last:,}: {name}.')
        own = labels.validation[at - 1]
    elif split == 'train' and SYNSET.fullmatch(name.split('_')[0]):
        own = name.split('_')[0]
    elif not own and split == 'validation':
        rule = 'a validation image outside of a class folder must be called as'
        raise ValueError(f'{rule} ILSVRC2012_val_00000001.JPEG, which is its label: {name}.')
    elif not own:
        raise ValueError(f'a training image must be in the folder of its class: {name}.')
    if row.synset and own != row.synset:
        raise ValueError(f'{name} is of class {own}, by its name: it lies in {row.synset}.')
    return own


def _encoded(name: str) -> bytes:
    """A name in UTF-8, short enough for the feature `file_name` to hold in full."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise ValueError(f'the name of an image must be UTF-8: {name!r}.') from None
    if len(encoded) > LONGEST or '\0' in name:
        rule = f'the name of an image has at most {LONGEST} bytes, none of them zero'
        raise ValueError(f'{rule}: {name[:80]!r} has {len(encoded):,}.')
    return encoded


def _in_archive(archive: pathlib.Path) -> Iterator[Row]:
    """Images of a published archive; that of training images holds an archive for each class."""
    try:
        with archive.open('rb') as file:
            for member in tar.members(file, os.fstat(file.fileno()).st_size):
                synset, kind = os.path.splitext(member.name)
                if member.regular and kind == '.tar' and SYNSET.fullmatch(synset):
                    file.seek(member.start)
                    for image in tar.members(file, member.start + member.size):
                        own = image.regular and image.name.startswith(f'{synset}_')
                        if not own or '/' in image.name:
                            raise ValueError(f'{member.name} has {image.name}')
                        yield Row(0, image.start, image.size, synset, image.name)
                elif member.regular and kind == '.JPEG' and '/' not in member.name:
                    yield Row(0, member.start, member.size, '', member.name)
                else:
                    raise ValueError(f'it has {member.name}')
    except (OSError, ValueError) as error:
        raise ValueError(f'{archive} is not the published one: {first_line(error)}.') from None


def _in_folder(folder: pathlib.Path, files: list[pathlib.Path]) -> Iterator[Row]:
    """Images of a folder and of the folders in it; adds each to `files`. Follows links."""
    seen = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    for inside in (folder, *filter(pathlib.Path.is_dir, seen)):
        own = '' if inside == folder else inside.name
        for path in sorted(inside.iterdir()):
            if path.suffix.lower() in ('.jpeg', '.jpg') and not path.name.startswith('.'):
                if not path.is_file():  # opening a pipe would wait for its writer
                    raise ValueError(f'an image must be a file: {path} is none.')
                files.append(path)
                yield Row(len(files) - 1, 0, path.stat().st_size, own, path.name)
