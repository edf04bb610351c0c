"""CIFAR-10 and CIFAR-100 from the published archives, as TensorFlow Datasets reads them."""

import gzip
import http.client
import os
import pathlib
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vitjax.base.files import first_line, is_empty, writing_folder
from vitjax.data.paths import expanded, tfds_folder
from vitjax.data.prepare import records, silent, tar

# Version, archive, bytes of labels before each image, file with the names of the classes.
CIFAR = {
    'cifar10': ('3.0.2', 'cifar-10-binary.tar.gz', 1, 'batches.meta.txt'),
    'cifar100': ('3.0.2', 'cifar-100-binary.tar.gz', 2, 'fine_label_names.txt'),
}
LARGEST = 2**28  # bytes of an archive, packed or not; the published ones have 184 MB
_URL = 'https://www.cs.toronto.edu/~kriz/'


def prepare(
    name: str, *, archive: str | None = None, directory: str | None = None,
    progress: Callable[..., Any] = silent,
) -> pathlib.Path:  # fmt: skip
    """Writes CIFAR-10 or CIFAR-100 as `tfds.data_source` reads them, without tensorflow.

    Args:
        name: `cifar10` or `cifar100`.
        archive: path of the published binary archive; None downloads it.
        directory: folder of TFDS's data; None takes its default (`vitjax.data.paths`).
        progress: context manager of a count's name and total; yields a function that takes the
            number done.

    Returns:
        The directory written: whole, or not at all.

    Raises:
        ValueError: if the dataset or the archive is another one, or there is no network.
    """
    if name not in CIFAR:
        raise ValueError(f'name must be one of {", ".join(CIFAR)}: {name!r}.')
    version, file, label_bytes, names = CIFAR[name]
    target = tfds_folder(directory) / name / version
    if not is_empty(target):
        raise records.AlreadyPrepared(f'{name} is already prepared: {target}.')
    with writing_folder(target) as draft:
        source = draft / file if archive is None else expanded(archive)
        if archive is None:
            _download(_URL + file, source, progress)
        splits, classes = _read(source, label_bytes, names)
        if archive is None:
            source.unlink()
        records.write(draft, name, splits, classes, progress, version=version)
    return target


def _download(url: str, file: pathlib.Path, progress: Callable[..., Any]) -> None:
    mega = 2**20
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            size = int(response.headers['Content-Length'] or 0)
            with file.open('wb') as out, progress('MiB downloaded', -(-size // mega)) as show:
                while part := response.read(mega):
                    out.write(part)
                    if out.tell() > LARGEST:
                        raise OSError(f'it sends more than {LARGEST:,} bytes')
                    show(out.tell() // mega)
    except (OSError, http.client.HTTPException) as error:
        advice = f'fetch it elsewhere and give it with --archive {file.name}'
        raise ValueError(f'cannot download {url} ({error}); {advice}.') from None


def _read(archive: pathlib.Path, label_bytes: int, names: str) -> tuple[dict[str, Any], list[str]]:
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
    except Exception as error:  # a damaged archive can raise any
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
    """Name and content of the files of images or names; nothing is extracted to disk.

    Raises:
        ValueError: if the archive unpacks to more than `LARGEST` bytes.
    """
    with archive.open('rb') as packed:
        zipped = packed.read(2) == b'\x1f\x8b'
        packed.seek(0)
        end = LARGEST if zipped else min(LARGEST, os.fstat(packed.fileno()).st_size)
        with gzip.GzipFile(fileobj=packed) if zipped else packed as file:
            found = [*tar.members(file, end)]
            while file.read(2**20):  # gzip verifies its checksum at the end
                if file.tell() > LARGEST:
                    raise ValueError(f'it holds more than {LARGEST:,} bytes')
            file.seek(0)
            for member in found:  # read only now: a small archive can hold much
                name = pathlib.PurePath(member.name).name
                if member.regular and name.endswith(('.bin', '.txt')):
                    file.seek(member.start)
                    yield name, file.read(member.size)
