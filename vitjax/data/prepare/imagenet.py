"""ImageNet-1k from its archives or folders, as TensorFlow Datasets reads it."""

import contextlib
import fcntl
import functools
import io
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from vitjax.base import files
from vitjax.data import images
from vitjax.data.images import InMemory
from vitjax.data.paths import expanded, tfds_folder
from vitjax.data.prepare import listing, records, silent
from vitjax.data.prepare.listing import Labels, Listing

VERSION = '5.1.0'  # of `imagenet2012` in TensorFlow Datasets
SHARDS = {'train': 1024, 'validation': 64}
RECORD = 'source'  # in a draft: the signature of its images, and the digests of its shards


def prepare(
    source: str | pathlib.Path, directory: str | None = None, *,
    progress: Callable[..., Any] = silent,
) -> pathlib.Path:  # fmt: skip
    """Writes ImageNet-1k as `tfds.data_source('imagenet2012')` reads it, without tensorflow.

    Images are shuffled, in the same order each time, and go into shards of ArrayRecord as they
    are. Only the 23 that are not RGB or grey JPEGs are compressed anew. Truncated images are
    refused. After a kill the same command continues: shards whose digests match are kept.

    Args:
        source: a folder with `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, which are
            read in place, or with folders `train` and `val` of one folder for each class, as in
            `n01440764`. `val` may have its images side by side: then their labels come from their
            published names, as `ILSVRC2012_val_00000001.JPEG`.
        directory: folder of TFDS's data; None takes its default (`vitjax.data.paths`).
        progress: as in `vitjax.data.prepare.cifar.prepare`.

    Returns:
        The directory written: whole, or not at all.

    Raises:
        ValueError: if the source is not a folder, or has other classes, names or another number of
            images; if an image cannot be read, the disk fills, or another process does the same.
            The message has the name.
    """
    source = expanded(source)
    target = tfds_folder(directory) / 'imagenet2012' / VERSION
    if not files.is_empty(target):
        if not _signatures(target / RECORD):
            raise records.AlreadyPrepared(f'imagenet2012 is already prepared: {target}.')
        (target / RECORD).unlink()  # it was killed in its last step
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    labels = Labels.read()
    found = {split: listing.read(source, split, labels, progress) for split in listing.COUNTS}
    draft = target.with_name(f'.draft-{VERSION}')
    draft.mkdir(exist_ok=True)
    with _alone(draft):
        _require_same(draft / RECORD, ''.join(each.signature() for each in found.values()), source)
        _write(draft, found, labels, progress)
        draft.rename(target)
        (target / RECORD).unlink()
    return target


@contextlib.contextmanager
def _alone(draft: pathlib.Path) -> Iterator[None]:
    """Keeps a second process out of a draft; the lock ends with the process, even if killed."""
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


def _signatures(record: pathlib.Path) -> list[Any]:
    """The signature of a draft's images; empty if the record is not ours."""
    return [known['images'] for known in files.read_lines(record)[0] if 'images' in known]


def _require_same(record: pathlib.Path, signature: str, source: pathlib.Path) -> None:
    """Refuses to continue a draft that was begun with other images."""
    if files.is_empty(record.parent):
        files.replace(record, files.line({'images': signature}))
    elif _signatures(record) != [signature]:
        rule = f'{record.parent} was begun with other images than those of {source}'
        raise ValueError(f'{rule}, or by an earlier version: delete it.')


def _write(
    draft: pathlib.Path, listings: Mapping[str, Listing], labels: Labels,
    progress: Callable[..., Any],
) -> None:  # fmt: skip
    """Writes all shards, by as many threads as there are cores, and then their metadata."""
    # Threads must not be the first to import what TensorFlow Datasets imports on first use.
    import array_record.python.array_record_module  # noqa: F401
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import file_adapters  # noqa: F401

    features = tfds.features.FeaturesDict({
        'file_name': tfds.features.Text(),
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(names=labels.synsets),
    })  # fmt: skip
    known = {r['shard']: r['digest'] for r in files.read_lines(draft / RECORD)[0] if 'shard' in r}
    files.sweep(draft)
    infos = []
    for split, found in listings.items():
        order = np.random.default_rng(0).permutation(len(found.found))
        parts = np.array_split(order, min(SHARDS[split], len(order)))
        names, paths = records.shards(draft, 'imagenet2012', split, len(parts))
        one = functools.partial(_shard, found, features, known)
        with progress(f'{split} images', len(order)) as show:
            done = 0
            for size in images.THREADS.map(one, paths, parts):
                show(done := done + size)
        size = sum(path.stat().st_size for path in paths)
        infos.append(tfds.core.SplitInfo(split, [*map(len, parts)], size, names))
    records.describe(draft, features, infos, VERSION)


def _shard(
    found: Listing, features: Any, known: Mapping[str, str], path: pathlib.Path, rows: np.ndarray
) -> int:
    """Writes one shard in one step, unless it is there intact; returns its number of images.

    Args:
        found: all images.
        features: serializes an example.
        known: digests of the shards that are written.
        path: the shard's file.
        rows: the shard's rows of the listing, in order.
    """
    from tensorflow_datasets.core import file_adapters

    # A link is replaced: the file that it leads to may change later.
    if path.name in known and path.is_file() and not path.is_symlink():
        if files.digest(path) == known[path.name]:
            return len(rows)

    def example(row: int) -> bytes:
        file = found.image(row)
        image, label = io.BytesIO(_whole(file)), int(found.found[row]['label'])
        return features.serialize_example({'file_name': file.name, 'image': image, 'label': label})

    adapter = file_adapters.ArrayRecordFileAdapter
    try:
        with files.writing(path) as file:
            adapter.write_examples(file.name, enumerate(map(example, rows)))
            if (written := adapter.num_examples(file.name)) != len(rows):
                raise ValueError(f'{path} has {written:,} images of {len(rows):,}.')
        entry = files.line({'shard': path.name, 'digest': files.digest(path)})
        with (path.parent / RECORD).open('a') as record:
            record.write(entry)  # in one call: threads write here
    except ValueError:
        raise
    except Exception as error:  # ArrayRecord raises various errors when the disk is full
        free = shutil.disk_usage(path.parent).free
        advice = f'{free:,} bytes are free there; the same command goes on'
        reason = files.first_line(error)
        raise ValueError(f'{path} cannot be written: {reason}; {advice}.') from None
    return len(rows)


def _whole(file: InMemory) -> bytes:
    """An image file's bytes if it is an RGB or grey JPEG, else a JPEG made of it.

    Raises:
        ValueError: if the file is truncated or cannot be read, by name.
    """
    try:
        with images.of_any_size(), Image.open(io.BytesIO(file.content), formats=['JPEG']) as image:
            plain = image.mode in ('RGB', 'L')
    except Exception:  # `images.read` reports the fault
        plain = False
    if plain and file.content[-2:] == b'\xff\xd9':
        return file.content
    pixels = images.read(file)  # to its end
    if plain:
        return file.content
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'JPEG', quality=100, subsampling=0)
    return out.getvalue()
