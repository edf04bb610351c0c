"""What TensorFlow Datasets has prepared, read without tensorflow."""

import contextlib
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitjax.base.files import array, first_line, writing
from vitjax.data import source as sources
from vitjax.data.images import InMemory
from vitjax.data.prepare import cifar, imagenet
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source, chosen, decoded, digest

READ = 1024  # records at a time, for their labels


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a prepared dataset with an image and a label.

    Images whose size the dataset fixes stay as they are: they are small, and the device resizes.
    Splits are known by `source.NAMES`; a line on stderr says which others the dataset has.

    Raises:
        ValueError: for a dataset that is not prepared, has other features, no training split, two
            splits of one kind or labels that are no class, and as `source.chosen` and
            `source.decoded`.
    """
    directory = prepared_in(source.dir, name)
    import tensorflow_datasets as tfds

    with _named(directory):
        builder: Any = tfds.builder_from_directory(str(directory))
    features = builder.info.features
    if not {'image', 'label'} <= features.keys():
        raise ValueError(f'{source.name} must have image and label: it has {", ".join(features)}.')
    if None not in features['image'].shape:
        source, preprocessing = dataclasses.replace(source, size=None), None

    def source_of(split: str) -> Any:
        with _named(directory):
            return builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})

    present = sources.splits(builder.info.splits, source.name)
    others = [s for s in builder.info.splits if s not in present.values()]
    if 'train' not in present:
        there = sources.listed([*builder.info.splits])
        raise ValueError(f'{source.name} must have a train split: it has {there}.')
    if 'test' in present and _secret(source_of(present['test'])):
        others.append(f'{present.pop("test")} (its labels are secret)')
    if others:
        sources.tell(f'{source.name}: splits not read: {sources.listed(others)}')
    sources.tell_home(source, present)
    home = present[sources.home(split, [*present])]
    records = source_of(home)
    rows = chosen(source, split, count=len(records), present=[*present])
    of_split, name = builder.info.splits[home], f'{source.name} {home}'
    size = of_split.num_bytes * len(rows) / len(records)
    if size > source.memory:
        files: Sequence[InMemory] = Records(records, rows, name)
        with _named(directory):
            labels = _labels(records, directory / f'labels-{home}.npy')[rows]
    else:
        with _named(directory):
            examples = records.__getitems__(rows.tolist())
        labels = np.array([e['label'] for e in examples], np.int32)
        pairs = zip(rows, examples, strict=True)
        files = [InMemory(e['image'], f'{name}[{row}]') for row, e in pairs]
    pixels = decoded(files, source, preprocessing, lambda: size)
    classes = imagenet.readable(features['label'].names)
    if not 0 <= labels.min() <= labels.max() < len(classes):
        known = f'from 0 to {len(classes) - 1}: they go from {labels.min()} to {labels.max()}'
        raise ValueError(f'labels of {name} must be {known}.')
    with _named(directory):
        shards = [pathlib.Path(path) for path in of_split.filepaths]
        facts = [b'%b %d' % (path.name.encode(), path.stat().st_size) for path in shards]
    facts += [rows.tobytes(), *(files[i].content for i in sources.sample(len(rows)))]
    known = digest(classes, labels, facts)
    return Data(pixels, labels, classes, preprocessing, known, sources.part(split, present))


def _secret(records: Any) -> bool:
    """Returns True for a test split without labels, as ImageNet's."""
    return len(records) > 0 and records[0]['label'] < 0


class Records(Sequence[InMemory]):
    """Image files of records, each read when indexed; can be sent to other processes."""

    def __init__(self, records: Any, rows: np.ndarray, name: str):
        self._records, self._rows, self._name = records, rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        number = int(self._rows[row])
        name = f'{self._name}[{number}]'
        try:
            return InMemory(self._records[number]['image'], name)
        except Exception as error:  # whatever is raised for damaged files
            raise ValueError(f'{name} cannot be read: {first_line(error)}.') from None


def _labels(records: Any, kept: pathlib.Path) -> np.ndarray:
    """Labels [N] int32 of all records; all must be read for them, so a file keeps them.

    It is not taken if one of `source.sample` has another label: records may have been written anew.
    """
    count = len(records)
    some = sources.sample(count)
    with contextlib.suppress(ValueError):
        known = np.array(array(kept, (count,), np.int32))
        if known[some].tolist() == [e['label'] for e in records.__getitems__(some.tolist())]:
            return known
    labels = np.empty(count, np.int32)
    for start in range(0, count, READ):
        rows = range(start, min(start + READ, count))
        labels[rows.start : rows.stop] = [e['label'] for e in records.__getitems__([*rows])]
    with contextlib.suppress(OSError), writing(kept) as file:
        np.save(file, labels)
    return labels


@contextlib.contextmanager
def _named(directory: pathlib.Path) -> Iterator[None]:
    """Makes of whatever is raised for damaged files a line that names their directory."""
    try:
        yield
    except Exception as error:
        raise ValueError(f'{directory} cannot be read: {first_line(error)}.') from None


def prepared_in(directory: str | None, name: str) -> pathlib.Path:
    """The newest prepared version of a TFDS dataset, looked for on disk alone.

    Args:
        directory: as `cifar.data_dir` takes it.
        name: of the dataset.

    Raises:
        ValueError: if there is none, with the command that prepares it there.
    """

    def version(path: pathlib.Path) -> list[int]:
        return [int(n) if n.isdigit() else 0 for n in path.name.split('.')]

    root, parts = cifar.data_dir(directory), pathlib.PurePath(name).parts
    if not parts or '..' in parts or pathlib.PurePath(name).is_absolute():
        raise ValueError(f'tfds:NAME must be a name in {root}: {name}.')
    folder = root / name
    folders = (path.parent for path in folder.rglob('dataset_info.json'))
    # Ours and TFDS's that are still being written, or were left by a kill, are called so.
    unfinished = re.compile(r'\.|incomplete\.')
    found = [p for p in folders if not any(map(unfinished.match, p.relative_to(folder).parts))]
    if found:
        return max(found, key=version)
    where = f' --dir {shlex.quote(directory)}' if directory else ''
    *base, last = parts
    versioned = bool(base) and re.fullmatch(r'\d+\.\d+\.\d+', last) is not None
    plain, asked = '/'.join(base if versioned else parts), last if versioned else None
    if plain in cifar.CIFAR and asked in (None, cifar.CIFAR[plain][0]):
        command = f'python scripts/prepare.py {plain}{where}'
    elif plain == 'imagenet2012':
        command = f'python scripts/prepare.py imagenet --from ARCHIVES{where}'
    else:
        into = f'data_dir={str(root)!r}, ' if directory else ''
        called = f'{plain}:{asked}' if asked else plain
        program = f"tfds.builder({called!r}, {into}file_format='array_record')"
        program += '.download_and_prepare()'
        program = shlex.quote(f'import tensorflow_datasets as tfds; {program}')
        command = f'python -c {program} (needs tensorflow)'
    raise ValueError(f'{name} is not prepared in {root}; prepare it with\n  {command}')
