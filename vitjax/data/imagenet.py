"""ImageNet: the names of its classes, and its files written as TensorFlow Datasets has them."""

import functools
import hashlib
import io
import os
import pathlib
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vitjax.data import images
from vitjax.data.cifar import data_dir, unseen
from vitjax.data.images import InMemory
from vitjax.files import DRAFT, expanded, first_line, replace

VERSION = '5.1.0'  # of `imagenet2012` in TensorFlow Datasets
COUNTS = {'train': 1_281_167, 'validation': 50_000}
SHARDS = {'train': 1024, 'validation': 64}
ARCHIVES = {'train': 'ILSVRC2012_img_train.tar', 'validation': 'ILSVRC2012_img_val.tar'}
FOLDERS = {'train': ('train',), 'validation': ('val', 'validation')}
SYNSET = re.compile(r'n\d{8}')
FOUND = np.dtype(
    [('file', 'i4'), ('start', 'i8'), ('size', 'i8'), ('label', 'i4'), ('name', 'S64')]
)


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

    Images are shuffled, once for all, and go into shards of ArrayRecord as they are: nothing is
    compressed anew, but for the 23 that are no RGB or grey JPEG, which decoders for JPEG stumble
    over. Each is checked to have its end. Shards that are there already are left: what was killed
    goes on where it stopped.

    Args:
        source: a folder with `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, which are
            read where they are, or with folders `train` and `val` of one folder for each class, as
            in `n01440764`. `val` may have its images side by side.
        directory: as `vitjax.data.cifar.data_dir` takes it.
        progress: as in `vitjax.data.cifar.prepare`.

    Returns:
        The directory written: whole, or not at all.

    Raises:
        ValueError: for a source that is none, has other classes or another number of images, an
            image that cannot be read, by name, and a disk that fills.
    """
    source = expanded(source)
    target = data_dir(directory) / 'imagenet2012' / VERSION
    if target.exists():
        raise ValueError(f'imagenet2012 is already prepared: {target}.')
    labels = _Labels.read()
    listings = {split: _listing(source, split, labels, progress) for split in COUNTS}
    draft = target.with_name(f'.draft-{VERSION}')
    draft.mkdir(parents=True, exist_ok=True)
    _same(draft / 'source', ''.join(map(_signature, listings.values())), source)
    _write(draft, listings, labels, progress)
    draft.rename(target)
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
    """Images and where they lie: `found` [N] has the dtype `FOUND`, `file` counts `files`."""

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
    rows = []
    with progress(f'{split} images found', COUNTS[split]) as show:
        for row in members:
            rows.append(row)
            show(len(rows))
    if len(rows) != COUNTS[split]:
        rule = f'ImageNet has {COUNTS[split]:,} {split} images'
        raise ValueError(f'{rule}: {source} has {len(rows):,}.')
    rows.sort(key=lambda row: row[-1])
    if split == 'validation' and not any(row[3] for row in rows):  # labelled by their order
        pairs = zip(rows, labels.validation, strict=True)
        rows = [(*row[:3], synset, row[4]) for row, synset in pairs]
    number = {synset: i for i, synset in enumerate(labels.synsets)}
    if other := sorted({row[3] for row in rows}.symmetric_difference(number)):
        rule = f'{source} must have the {len(number):,} classes of ImageNet-1k for {split}'
        raise ValueError(f'{rule}: {other[0] or "images without a class"} differs.')
    found = np.array([(*row[:3], number[row[3]], row[4]) for row in rows], FOUND)
    return _Listing(files, found)


def _in_archive(archive: pathlib.Path) -> Iterator[tuple[int, int, int, str, str]]:
    """File, start, size, synset and name of each image of a published archive.

    The training images' is an archive of archives, one for each class.
    """
    try:
        with archive.open('rb') as file, tarfile.open(fileobj=file, mode='r:') as outer:
            for member in outer:
                synset, kind = os.path.splitext(member.name)
                if kind == '.tar' and SYNSET.fullmatch(synset):
                    file.seek(member.offset_data)
                    with tarfile.open(fileobj=file, mode='r:') as inner:
                        for image in inner:
                            if not image.name.startswith(f'{synset}_') or not image.isfile():
                                raise ValueError(f'{member.name} has {image.name}')
                            yield 0, image.offset_data, image.size, synset, image.name
                elif kind == '.JPEG' and member.isfile() and '/' not in member.name:
                    yield 0, member.offset_data, member.size, '', member.name
                else:
                    raise ValueError(f'it has {member.name}')
    except (tarfile.TarError, OSError, ValueError) as error:
        raise ValueError(f'{archive} is not the published one: {first_line(error)}.') from None


def _in_folder(
    folder: pathlib.Path, files: list[pathlib.Path]
) -> Iterator[tuple[int, int, int, str, str]]:
    """The same of each image of a folder, which goes to `files`."""
    for inside, _, names in sorted(os.walk(folder)):
        own = os.path.relpath(inside, folder)
        for name in sorted(names):
            if name.lower().endswith(('.jpeg', '.jpg')):
                path = pathlib.Path(inside, name)
                files.append(path)
                yield len(files) - 1, 0, path.stat().st_size, '' if own == '.' else own, name


def _signature(listing: _Listing) -> str:
    """Of names, sizes and labels, wherever the images lie."""
    parts = (np.ascontiguousarray(listing.found[name]) for name in ('name', 'size', 'label'))
    return hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()


def _same(file: pathlib.Path, signature: str, source: pathlib.Path) -> None:
    """Refuses to go on with other images than those that a draft was begun with."""
    if not file.exists():
        replace(file, signature)
    elif file.read_text() != signature:
        draft = file.parent
        raise ValueError(f'{draft} was begun with other images than those of {source}: delete it.')


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
        one = functools.partial(_shard, listing, features)
        with progress(f'{split} images', len(order)) as show:
            done = 0
            for size in images.THREADS.map(one, paths, parts):
                show(done := done + size)
        size = sum(path.stat().st_size for path in paths)
        infos.append(tfds.core.SplitInfo(split, [*map(len, parts)], size, template))
    tfds.folder_dataset.write_metadata(
        data_dir=str(draft), features=features, split_infos=infos, check_data=False,
        supervised_keys=('image', 'label'),
    )  # fmt: skip
    (draft / 'source').unlink()
    for left in draft.glob(f'*{DRAFT}'):
        left.unlink()


def _shard(listing: _Listing, features: Any, path: pathlib.Path, rows: np.ndarray) -> int:
    """Writes one shard in one step, if it is not there; returns how many images it has."""
    from tensorflow_datasets.core import file_adapters

    if path.exists():
        return len(rows)

    def record(row: int) -> bytes:
        name = listing.name(row)
        image = io.BytesIO(_whole(InMemory(listing.content(row), name)))
        label = int(listing.found[row]['label'])
        return features.serialize_example({'file_name': name, 'image': image, 'label': label})

    draft = path.with_name(path.name + DRAFT)
    adapter = file_adapters.ArrayRecordFileAdapter
    try:
        adapter.write_examples(draft, enumerate(map(record, rows)))
        if (written := adapter.num_examples(draft)) != len(rows):
            raise ValueError(f'{draft} has {written:,} images of {len(rows):,}.')
        with draft.open('rb') as file:
            os.fsync(file.fileno())
    except ValueError:
        raise
    except Exception as error:  # of a full disk ArrayRecord raises what it likes
        free = shutil.disk_usage(path.parent).free
        advice = f'{free:,} bytes are free there; the same command goes on'
        raise ValueError(f'{path} cannot be written: {first_line(error)}; {advice}.') from None
    draft.replace(path)
    return len(rows)


def _whole(file: InMemory) -> bytes:
    """An image file's bytes, as they are where they are an RGB or grey JPEG, else made one.

    Raises:
        ValueError: for a file without its end, or that cannot be read, by name.
    """
    try:
        with Image.open(io.BytesIO(file.content), formats=['JPEG']) as image:
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
