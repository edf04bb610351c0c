"""CIFAR-10 and CIFAR-100, written as TensorFlow Datasets has them, without tensorflow."""

import contextlib
import gzip
import http.client
import io
import os
import pathlib
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vitjax.base.files import expanded, first_line, is_empty, writing_folder
from vitjax.data.prepare import tar

# Version, archive, bytes of labels before each image, file with the names of the classes.
CIFAR = {
    'cifar10': ('3.0.2', 'cifar-10-binary.tar.gz', 1, 'batches.meta.txt'),
    'cifar100': ('3.0.2', 'cifar-100-binary.tar.gz', 2, 'fine_label_names.txt'),
}
LARGEST = 2**28  # bytes of an archive, as it is sent and unpacked; the published ones have 184 MB
_CIFAR_URL = 'https://www.cs.toronto.edu/~kriz/'


def data_dir(directory: str | None = None) -> pathlib.Path:
    """Where TFDS has prepared data: `directory`, TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    root = directory or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    return expanded(root)


def unseen(what: str, total: int) -> contextlib.AbstractContextManager[Callable[..., object]]:
    """Shows no progress."""
    return contextlib.nullcontext(lambda done: None)


def prepare(
    name: str, *, archive: str | None = None, directory: str | None = None,
    progress: Callable[..., Any] = unseen,
) -> pathlib.Path:  # fmt: skip
    """Writes CIFAR-10 or CIFAR-100 as `tfds.data_source` reads them, without tensorflow.

    Args:
        name: `cifar10` or `cifar100`.
        archive: path of the published binary archive; None downloads it.
        directory: as `data_dir` takes it.
        progress: context manager of a count's name and total; gives a function that is called with
            the number done.

    Returns:
        The directory written: whole, or not at all.

    Raises:
        ValueError: for another dataset, an archive that is not the published one, or no network.
    """
    if name not in CIFAR:
        raise ValueError(f'name must be one of {", ".join(CIFAR)}: {name!r}.')
    version, file, label_bytes, names = CIFAR[name]
    target = data_dir(directory) / name / version
    if not is_empty(target):
        raise ValueError(f'{name} is already prepared: {target}.')
    with writing_folder(target) as draft:
        if archive is None:
            fetched, url = draft / file, _CIFAR_URL + file
            try:
                with urllib.request.urlopen(url, timeout=20) as response:
                    _save(response, fetched, progress)
            except (OSError, http.client.HTTPException) as error:
                advice = f'fetch it elsewhere and give it with --archive {file}'
                raise ValueError(f'cannot download {url} ({error}); {advice}.') from None
            splits, classes = _read_cifar(fetched, label_bytes, names)
            fetched.unlink()
        else:
            splits, classes = _read_cifar(expanded(archive), label_bytes, names)
        write_tfds(draft, name, splits, classes, progress, version=version)
    return target


def _save(response: Any, file: pathlib.Path, progress: Callable[..., Any]) -> None:
    """Writes what a server sends, some megabytes at a time."""
    mega, size = 2**20, int(response.headers['Content-Length'] or 0)
    with file.open('wb') as out, progress('MiB downloaded', -(-size // mega)) as show:
        while part := response.read(mega):
            out.write(part)
            if out.tell() > LARGEST:
                raise OSError(f'it sends more than {LARGEST:,} bytes')
            show(out.tell() // mega)


def _read_cifar(
    archive: pathlib.Path, label_bytes: int, names: str
) -> tuple[dict[str, Any], list[str]]:
    """The splits of a binary CIFAR archive as (images, labels), and the classes' names."""
    record = label_bytes + 3 * 32 * 32
    parts: dict[str, list[np.ndarray]] = {'train': [], 'test': []}
    classes: list[str] = []
    if not archive.exists():
        raise ValueError(f'there is no archive {archive}.')
    if not archive.is_file():  # to open a pipe would wait for its writer
        kind = 'a folder' if archive.is_dir() else 'not a regular file'
        raise ValueError(f'--archive must name a file: {archive} is {kind}.')
    try:
        for name, content in sorted(_files(archive)):
            if name == names:
                classes = content.decode().split()
            elif name.endswith('.bin'):
                raw = np.frombuffer(content, np.uint8)
                parts['test' if 'test' in name else 'train'].append(raw.reshape(-1, record))
    except Exception as error:  # whatever comes of a damaged archive
        reason = first_line(error)
        raise ValueError(f'not a binary CIFAR archive: {archive}: {reason}.') from None
    if not classes or not all(parts.values()):
        raise ValueError(f'{archive} must hold .bin files for train and test, and {names}.')
    splits = {}
    for split, rows in ((split, np.concatenate(own)) for split, own in parts.items()):
        pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = rows[:, label_bytes - 1]  # the fine label comes last
        if labels.size and labels.max() >= len(classes):
            rule = f'labels of {archive} must be from 0 to {len(classes) - 1}, as {names} has them'
            raise ValueError(f'{rule}: {labels.max()} of {split}.')
        splits[split] = pixels, labels
    return splits, classes


def _files(archive: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of images or of names; nothing is extracted to disk.

    Raises:
        ValueError: if all there is in it has more than `LARGEST` bytes.
    """
    with archive.open('rb') as packed:
        zipped = packed.read(2) == b'\x1f\x8b'
        packed.seek(0)
        end = LARGEST if zipped else min(LARGEST, os.fstat(packed.fileno()).st_size)
        with gzip.GzipFile(fileobj=packed) if zipped else packed as file:
            found = [*tar.members(file, end)]
            while file.read(2**20):  # at its end gzip compares its checksum
                if file.tell() > LARGEST:
                    raise ValueError(f'it holds more than {LARGEST:,} bytes')
            file.seek(0)
            for member in found:  # read only now: a small archive can hold much
                name = pathlib.PurePath(member.name).name
                if member.regular and name.endswith(('.bin', '.txt')):
                    file.seek(member.start)
                    yield name, file.read(member.size)


def write_tfds(
    directory: pathlib.Path, name: str, splits: dict[str, Any], classes: Sequence[str],
    progress: Callable[..., Any] = unseen, *, version: str | None = None,
) -> None:  # fmt: skip
    """Writes splits of (images, labels) with TFDS's metadata, images as PNG in ArrayRecord.

    Args:
        directory: an empty folder.
        name: the dataset's name.
        splits: images, uint8 [H, W, 3] of one size or of several, and labels of each split.
        classes: names of the labels.
        progress: as in `prepare`.
        version: the dataset's version, as `3.0.2`; None takes the folder's name.
    """
    import tensorflow_datasets as tfds
    from etils import epath
    from tensorflow_datasets.core import file_adapters

    shapes = {image.shape for images, _ in splits.values() for image in images}
    shape = shapes.pop() if len(shapes) == 1 else (None, None, 3)
    features = tfds.features.FeaturesDict({
        'id': tfds.features.Text(), 'image': tfds.features.Image(shape=shape),
        'label': tfds.features.ClassLabel(names=list(classes)),
    })  # fmt: skip

    def record(name: str, image: np.ndarray, label: int) -> bytes:
        png = io.BytesIO()
        Image.fromarray(image).save(png, 'PNG')
        png.seek(0)
        return features.serialize_example({'id': name, 'image': png, 'label': int(label)})

    infos = []
    for split, examples in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(directory), filetype_suffix='array_record', dataset_name=name,
            split=split,
        )  # fmt: skip
        records: list[bytes] = []
        with progress(f'{split} images', len(examples[1])) as show:
            for i, (image, label) in enumerate(zip(*examples, strict=True)):
                records.append(record(f'{split}_{i:05d}', image, label))
                show(len(records))
        path = template.sharded_filepath(shard_index=0, num_shards=1)
        file_adapters.ArrayRecordFileAdapter.write_examples(path, enumerate(records))
        size = sum(map(len, records))
        infos.append(tfds.core.SplitInfo(split, [len(records)], size, template))
    tfds.folder_dataset.write_metadata(
        data_dir=str(directory), features=features, split_infos=infos, check_data=False,
        supervised_keys=('image', 'label'), version=version,
    )  # fmt: skip
