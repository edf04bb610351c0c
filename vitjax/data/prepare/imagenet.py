"""ImageNet: the names of its classes, and its files written as TensorFlow Datasets has them."""

import contextlib
import fcntl
import functools
import hashlib
import io
import itertools
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vitjax.base.files import (
    digest,
    expanded,
    first_line,
    is_empty,
    line,
    read_lines,
    replace,
    sweep,
    writing,
)
from vitjax.data import images
from vitjax.data.images import InMemory
from vitjax.data.prepare import tar
from vitjax.data.prepare.cifar import data_dir, unseen

VERSION = '5.1.0'  # of `imagenet2012` in TensorFlow Datasets
COUNTS = {'train': 1_281_167, 'validation': 50_000}
SHARDS = {'train': 1024, 'validation': 64}
ARCHIVES = {'train': 'ILSVRC2012_img_train.tar', 'validation': 'ILSVRC2012_img_val.tar'}
FOLDERS = {'train': ('train',), 'validation': ('val', 'validation')}
RECORD = 'source'  # in a draft: what it is made of, and the digests of its shards
SYNSET = re.compile(r'n\d{8}')
NUMBER = re.compile(r'ILSVRC2012_val_(\d{8})\.jpe?g', re.IGNORECASE)  # a label's line, from 1
LONGEST = 255  # bytes of a file's name


def classes() -> tuple[str, ...]:
    """The names of ImageNet-1k's 1,000 classes, in the order of published weights' outputs."""
    lines = pathlib.Path(__file__).with_name('imagenet_classes.txt').read_text('utf-8')
    return tuple(lines.splitlines())


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as people read them, where they are the synsets of ImageNet-1k in order."""
    known = len(names) == 1000 and all(map(SYNSET.fullmatch, names)) and sorted(names) == [*names]
    return classes() if known and names[0] == 'n01440764' else tuple(names)


def prepare(
    source: str | pathlib.Path, directory: str | None = None, *,
    progress: Callable[..., Any] = unseen,
) -> pathlib.Path:  # fmt: skip
    """Writes ImageNet-1k as `tfds.data_source('imagenet2012')` reads it, without tensorflow.

    Images are shuffled, in the same order each time, and go into shards of ArrayRecord as they
    are. Only the 23 that are not RGB or grey JPEGs are compressed anew. Each is checked to have its
    end. After a kill the same command continues: shards that are whole, by their digests, are kept.

    Args:
        source: a folder with `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, which are
            read in place, or with folders `train` and `val` of one folder for each class, as in
            `n01440764`. `val` may have its images side by side: then their labels come from their
            published names, as `ILSVRC2012_val_00000001.JPEG`.
        directory: as `vitjax.data.prepare.cifar.data_dir` takes it.
        progress: as in `vitjax.data.prepare.cifar.prepare`.

    Returns:
        The directory written: whole, or not at all.

    Raises:
        ValueError: for a source that is not a folder, has other classes, names or another number of
            images; an image that cannot be read; a disk that fills; another process that does the
            same. The message has the name.
    """
    source = expanded(source)
    target = data_dir(directory) / 'imagenet2012' / VERSION
    if not is_empty(target):
        if not _images_of(target / RECORD):
            raise ValueError(f'imagenet2012 is already prepared: {target}.')
        (target / RECORD).unlink()  # it was killed in its last step
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    labels = _Labels.read()
    listings = {split: _listing(source, split, labels, progress) for split in COUNTS}
    draft = target.with_name(f'.draft-{VERSION}')
    draft.mkdir(exist_ok=True)
    with _alone(draft):
        _same(draft / RECORD, ''.join(map(_signature, listings.values())), source)
        _write(draft, listings, labels, progress)
        draft.rename(target)
        (target / RECORD).unlink()
    return target


class _Labels(NamedTuple):
    """What the package of TensorFlow Datasets knows of ImageNet's labels."""

    synsets: list[str]
    validation: list[str]  # a synset for each validation image, by name

    @classmethod
    def read(cls) -> '_Labels':
        import tensorflow_datasets as tfds

        folder = pathlib.Path(tfds.__file__).parent / 'datasets' / 'imagenet2012'
        names = 'labels.txt', 'validation_labels.txt'
        return cls(*((folder / name).read_text().split() for name in names))


class _Listing(NamedTuple):
    """Images and where they lie.

    Attributes:
        files: that have images.
        found: [N], with the fields file (an index of `files`), start and size in bytes, label and
            name (UTF-8).
    """

    files: list[pathlib.Path]
    found: np.ndarray

    def content(self, row: int) -> bytes:
        """An image's bytes."""
        at = self.found[row]
        with self.files[at['file']].open('rb') as file:
            file.seek(at['start'])
            return file.read(at['size'])

    def name(self, row: int) -> str:
        """Its name."""
        return self.found[row]['name'].decode()


# ---- What there is -----------------------------------------------------------------------------

Row = tuple[int, int, int, str, str]  # file, start and size of an image, its synset or '', its name


def _listing(
    source: pathlib.Path, split: str, labels: _Labels, progress: Callable[..., Any]
) -> _Listing:
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
    with progress(f'{split} images found', COUNTS[split]) as show:
        for row in members:
            rows.append(row)
            show(len(rows))
            if len(rows) > COUNTS[split]:
                break
    if len(rows) != COUNTS[split]:
        rule = f'ImageNet has {COUNTS[split]:,} {split} images'
        more = ' or more' if len(rows) > COUNTS[split] else ''
        raise ValueError(f'{rule}: {source} has {len(rows):,}{more}.')
    rows.sort(key=lambda row: row[-1])
    rows = [(*row[:3], _synset(row, split, labels), row[4]) for row in rows]
    number = {synset: i for i, synset in enumerate(labels.synsets)}
    if other := sorted({row[3] for row in rows}.symmetric_difference(number)):
        rule = f'{source} must have the {len(number):,} classes of ImageNet-1k for {split}'
        raise ValueError(f'{rule}: {other[0]} differs.')
    names = [_encoded(row[4]) for row in rows]
    if split == 'validation' and len({*names}) < len(names):
        double = next(a for a, b in itertools.pairwise(names) if a == b).decode()
        raise ValueError(f'{source} must have each validation image once: {double} is there twice.')
    dtype = [('file', 'i4'), ('start', 'i8'), ('size', 'i8'), ('label', 'i4')]
    found = np.empty(len(rows), [*dtype, ('name', f'S{max(map(len, names))}')])
    for field, column in zip(('file', 'start', 'size'), zip(*rows, strict=True), strict=False):
        found[field] = column
    found['label'] = [number[row[3]] for row in rows]
    found['name'] = names
    return _Listing(files, found)


def _synset(row: Row, split: str, labels: _Labels) -> str:
    """The class of an image: its folder's, or its number's among the published validation images.

    Raises:
        ValueError: if neither says it, or its name says another.
    """
    *_, synset, name = row
    own = synset
    if split == 'validation' and (known := NUMBER.fullmatch(name)):
        at, last = int(known[1]), len(labels.validation)
        if not 1 <= at <= last:
            raise ValueError(f'validation images have the numbers from 1 to {last:,}: {name}.')
        own = labels.validation[at - 1]
    elif split == 'train' and SYNSET.fullmatch(name.split('_')[0]):
        own = name.split('_')[0]
    elif not synset and split == 'validation':
        rule = 'a validation image outside of a class folder must be called as'
        raise ValueError(f'{rule} ILSVRC2012_val_00000001.JPEG, which is its label: {name}.')
    elif not synset:
        raise ValueError(f'a training image must be in the folder of its class: {name}.')
    if synset and own != synset:
        raise ValueError(f'{name} is of class {own}, by its name: it lies in {synset}.')
    return own


def _encoded(name: str) -> bytes:
    """A name in UTF-8, which the feature `file_name` has whole."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise ValueError(f'the name of an image must be UTF-8: {name!r}.') from None
    if len(encoded) > LONGEST or '\0' in name:
        rule = f'the name of an image has at most {LONGEST} bytes, none of them zero'
        raise ValueError(f'{rule}: {name[:80]!r} has {len(encoded):,}.')
    return encoded


def _in_archive(archive: pathlib.Path) -> Iterator[Row]:
    """Each image of a published archive.

    The training images' is an archive of archives, one for each class.
    """
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
                        yield 0, image.start, image.size, synset, image.name
                elif member.regular and kind == '.JPEG' and '/' not in member.name:
                    yield 0, member.start, member.size, '', member.name
                else:
                    raise ValueError(f'it has {member.name}')
    except (OSError, ValueError) as error:
        raise ValueError(f'{archive} is not the published one: {first_line(error)}.') from None


def _in_folder(folder: pathlib.Path, files: list[pathlib.Path]) -> Iterator[Row]:
    """Each image of a folder and of the folders in it, which goes to `files`. Follows links."""
    seen = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    for inside in (folder, *filter(pathlib.Path.is_dir, seen)):
        own = '' if inside == folder else inside.name
        for path in sorted(inside.iterdir()):
            if path.suffix.lower() in ('.jpeg', '.jpg') and not path.name.startswith('.'):
                if not path.is_file():  # to open a pipe would wait for its writer
                    raise ValueError(f'an image must be a file: {path} is none.')
                files.append(path)
                yield len(files) - 1, 0, path.stat().st_size, own, path.name


def _signature(listing: _Listing) -> str:
    """Of names, sizes and labels, wherever the images lie."""
    parts = (np.ascontiguousarray(listing.found[name]) for name in ('name', 'size', 'label'))
    return hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()


@contextlib.contextmanager
def _alone(draft: pathlib.Path) -> Iterator[None]:
    """Keeps a second process out of a draft; the lock ends with the process, however it does."""
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not all network file systems have locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                rule = 'one process at a time can prepare imagenet2012'
                raise ValueError(f'{rule}: another is at work in {draft}.') from None
        yield
    finally:
        os.close(descriptor)


def _images_of(record: pathlib.Path) -> list[Any]:
    """The signature of the images that a draft is made of; empty if it is not one of ours."""
    return [known['images'] for known in read_lines(record)[0] if 'images' in known]


def _same(record: pathlib.Path, signature: str, source: pathlib.Path) -> None:
    """Refuses to continue with other images than those that a draft was begun with."""
    if is_empty(record.parent):
        replace(record, line({'images': signature}))
    elif _images_of(record) != [signature]:
        rule = f'{record.parent} was begun with other images than those of {source}'
        raise ValueError(f'{rule}, or by an earlier version: delete it.')


# ---- Writing -----------------------------------------------------------------------------------


def _write(
    draft: pathlib.Path, listings: dict[str, _Listing], labels: _Labels,
    progress: Callable[..., Any],
) -> None:  # fmt: skip
    """All shards, by as many threads as there are cores, and then what describes them."""
    # What TensorFlow Datasets imports when it is first used, threads would import at a time.
    import array_record.python.array_record_module  # noqa: F401
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core import file_adapters  # noqa: F401

    features = tfds.features.FeaturesDict({
        'file_name': tfds.features.Text(),
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(names=labels.synsets),
    })  # fmt: skip
    records = read_lines(draft / RECORD)[0]
    known = {record['shard']: record['digest'] for record in records if 'shard' in record}
    sweep(draft)
    infos = []
    for split, listing in listings.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(draft), filetype_suffix='array_record', split=split,
            dataset_name='imagenet2012',
        )  # fmt: skip
        order = np.random.default_rng(0).permutation(len(listing.found))
        parts = np.array_split(order, min(SHARDS[split], len(order)))
        paths = [
            pathlib.Path(template.sharded_filepath(shard_index=i, num_shards=len(parts)))
            for i in range(len(parts))
        ]
        one = functools.partial(_shard, listing, features, known)
        with progress(f'{split} images', len(order)) as show:
            done = 0
            for size in images.THREADS.map(one, paths, parts):
                show(done := done + size)
        size = sum(path.stat().st_size for path in paths)
        infos.append(tfds.core.SplitInfo(split, [*map(len, parts)], size, template))
    tfds.folder_dataset.write_metadata(
        data_dir=str(draft), features=features, split_infos=infos, check_data=False,
        supervised_keys=('image', 'label'), version=VERSION,
    )  # fmt: skip


def _shard(
    listing: _Listing, features: Any, known: Mapping[str, str], path: pathlib.Path, rows: np.ndarray
) -> int:
    """Writes one shard in one step, unless it is there and whole; returns its number of images.

    Args:
        listing: of all images.
        features: serialize an example.
        known: digests of the shards that are there.
        path: the file.
        rows: of the listing, in order.
    """
    from tensorflow_datasets.core import file_adapters

    # A link is replaced: the file that it leads to may change later.
    if path.name in known and path.is_file() and not path.is_symlink():
        if digest(path) == known[path.name]:
            return len(rows)

    def example(row: int) -> bytes:
        name = listing.name(row)
        image = io.BytesIO(_whole(InMemory(listing.content(row), name)))
        label = int(listing.found[row]['label'])
        return features.serialize_example({'file_name': name, 'image': image, 'label': label})

    adapter = file_adapters.ArrayRecordFileAdapter
    try:
        with writing(path) as file:
            adapter.write_examples(file.name, enumerate(map(example, rows)))
            if (written := adapter.num_examples(file.name)) != len(rows):
                raise ValueError(f'{path} has {written:,} images of {len(rows):,}.')
        entry = line({'shard': path.name, 'digest': digest(path)})
        with (path.parent / RECORD).open('a') as record:
            record.write(entry)  # whole, in one call: threads write here
    except ValueError:
        raise
    except Exception as error:  # of a full disk ArrayRecord raises what it likes
        free = shutil.disk_usage(path.parent).free
        advice = f'{free:,} bytes are free there; the same command goes on'
        raise ValueError(f'{path} cannot be written: {first_line(error)}; {advice}.') from None
    return len(rows)


def _whole(file: InMemory) -> bytes:
    """An image file's bytes, as they are where they are an RGB or grey JPEG, else made one.

    Raises:
        ValueError: for a file without its end, or that cannot be read, by name.
    """
    try:
        with images.of_any_size(), Image.open(io.BytesIO(file.content), formats=['JPEG']) as image:
            plain = image.mode in ('RGB', 'L')
    except Exception:  # `images.read` says what is wrong with it
        plain = False
    if plain and file.content[-2:] == b'\xff\xd9':
        return file.content
    pixels = images.read(file)  # to its end
    if plain:
        return file.content
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=100, subsampling=0)
    return out.getvalue()
