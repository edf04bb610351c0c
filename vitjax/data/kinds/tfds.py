"""Data that TensorFlow Datasets prepared, read without tensorflow."""

import contextlib
import dataclasses
import pathlib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitjax.base import shell
from vitjax.base.files import first_line, writing
from vitjax.base.npy import array
from vitjax.data.classes import readable
from vitjax.data.images import InMemory
from vitjax.data.notices import listed, tell
from vitjax.data.paths import tfds_folder
from vitjax.data.prepare.cifar import CIFAR
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source, decoded, digest, sample
from vitjax.data.splits import Splits

READ = 1024  # records at a time, for their labels


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a prepared dataset with an image and a label.

    Images whose size the dataset fixes stay as they are: they are small, and the device resizes.
    Splits are known by `splits.NAMES`; a line on stderr names the others.

    Raises:
        ValueError: if the dataset is not prepared, has other features, no training split, two
            splits of one kind or labels that are no class; and as `Splits.rows` and `decoded`.
    """
    directory = prepared_in(source.dir, name)
    import tensorflow_datasets as tfds

    with _reading(directory):
        builder: Any = tfds.builder_from_directory(str(directory))
    features = builder.info.features
    if not {'image', 'label'} <= features.keys():
        raise ValueError(f'{source.name} must have image and label: it has {", ".join(features)}.')
    if None not in features['image'].shape:
        source, preprocessing = dataclasses.replace(source, size=None), None

    def records_of(name: str) -> Any:
        with _reading(directory):
            return builder.as_data_source(name, decoders={'image': tfds.decode.SkipDecoding()})

    splits = _splits(source, builder.info.splits, records_of)
    home = splits.names[splits.home(split)]
    records, of_split, name = records_of(home), builder.info.splits[home], f'{source.name} {home}'
    rows = splits.rows(source, split, len(records))
    size = of_split.num_bytes * len(rows) / len(records)
    with _reading(directory):
        if size > source.memory:
            files: Sequence[InMemory] = Records(records, rows, name)
            labels = _labels(records, directory / f'labels-{home}.npy')[rows]
        else:
            examples = records.__getitems__(rows.tolist())
            labels = np.array([e['label'] for e in examples], np.int32)
            pairs = zip(rows, examples, strict=True)
            files = [InMemory(e['image'], f'{name}[{row}]') for row, e in pairs]
    pixels = decoded(files, source, preprocessing, lambda: size)
    classes = readable(features['label'].names)
    if not 0 <= labels.min() <= labels.max() < len(classes):
        known = f'from 0 to {len(classes) - 1}: they go from {labels.min()} to {labels.max()}'
        raise ValueError(f'labels of {name} must be {known}.')
    with _reading(directory):
        shards = [pathlib.Path(path) for path in of_split.filepaths]
        facts = [b'%b %d' % (path.name.encode(), path.stat().st_size) for path in shards]
    facts += [rows.tobytes(), *(files[i].content for i in sample(len(rows)))]
    known = digest(classes, labels, facts)
    return Data(pixels, labels, classes, preprocessing, known, splits.part(split))


def _splits(source: Source, there: Sequence[str], records_of: Any) -> Splits:
    """The splits of a dataset that have labels; prints the others, and the one tested on."""
    splits = Splits.among(there, source.name)
    others = [name for name in there if name not in splits.names.values()]
    if 'train' not in splits.names:
        raise ValueError(f'{source.name} must have a train split: it has {listed([*there])}.')
    test = splits.names.get('test')
    if test and len(records := records_of(test)) and records[0]['label'] < 0:  # as ImageNet's
        others.append(f'{test} (its labels are secret)')
        splits = Splits({own: name for own, name in splits.names.items() if own != 'test'})
    if others:
        tell(f'{source.name}: splits not read: {listed(others)}')
    splits.tell(source)
    return splits


class Records(Sequence[InMemory]):
    """Image files of records, each read when indexed; picklable."""

    def __init__(self, records: Any, rows: np.ndarray, name: str):
        self._records, self._rows, self._name = records, rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        number = int(self._rows[row])
        name = f'{self._name}[{number}]'
        with _reading(name):
            return InMemory(self._records[number]['image'], name)


def _labels(records: Any, cache: pathlib.Path) -> np.ndarray:
    """Labels [N] int32 of all records, which takes reading all of them: a file caches them.

    The cache is stale if one of `source.sample` has another label: records were written anew.
    """
    count = len(records)
    some = sample(count)
    with contextlib.suppress(ValueError):
        known = np.array(array(cache, (count,), np.int32))
        if known[some].tolist() == [e['label'] for e in records.__getitems__(some.tolist())]:
            return known
    labels = np.empty(count, np.int32)
    for start in range(0, count, READ):
        rows = range(start, min(start + READ, count))
        labels[rows.start : rows.stop] = [e['label'] for e in records.__getitems__([*rows])]
    with contextlib.suppress(OSError), writing(cache) as file:
        np.save(file, labels)
    return labels


@contextlib.contextmanager
def _reading(name: object) -> Iterator[None]:
    """Turns any error, as damaged files raise, into a line that names them."""
    try:
        yield
    except Exception as error:
        raise ValueError(f'{name} cannot be read: {first_line(error)}.') from None


def prepared_in(directory: str | None, name: str) -> pathlib.Path:
    """The newest prepared version of a TFDS dataset, looked for on disk alone.

    Args:
        directory: folder of TFDS's data; None takes its default (`vitjax.data.paths`).
        name: the dataset's name.

    Raises:
        ValueError: if there is none, with the command that prepares it there.
    """

    def version(path: pathlib.Path) -> list[int]:
        return [int(n) if n.isdigit() else 0 for n in path.name.split('.')]

    root, parts = tfds_folder(directory), pathlib.PurePath(name).parts
    if not parts or '..' in parts or pathlib.PurePath(name).is_absolute():
        raise ValueError(f'tfds:NAME must be a name in {root}: {name}.')
    folder = root / name
    folders = (path.parent for path in folder.rglob('dataset_info.json'))
    # Names of our drafts and TFDS's, being written or left by a kill.
    unfinished = re.compile(r'\.|incomplete\.')
    found = [p for p in folders if not any(map(unfinished.match, p.relative_to(folder).parts))]
    if found:
        return max(found, key=version)
    where = ['--dir', directory] if directory else []
    *base, last = parts
    versioned = bool(base) and re.fullmatch(r'\d+\.\d+\.\d+', last) is not None
    plain, asked = '/'.join(base if versioned else parts), last if versioned else None
    if plain in CIFAR and asked in (None, CIFAR[plain][0]):
        command = shell.command('prepare', plain, *where)
    elif plain == 'imagenet2012':
        command = shell.command('prepare', 'imagenet', '--from', 'ARCHIVES', *where)
    else:
        into = f'data_dir={str(root)!r}, ' if directory else ''
        called = f'{plain}:{asked}' if asked else plain
        program = f"tfds.builder({called!r}, {into}file_format='array_record')"
        program += '.download_and_prepare()'
        program = f'import tensorflow_datasets as tfds; {program}'
        plainly = not re.search(r'["$`\\!]', program)
        quoted = f'"{program}"' if plainly else shlex.quote(program)
        command = f'python -c {quoted} (needs tensorflow, and a data set of TFDS of that name)'
    raise ValueError(f'tfds:{name} is not prepared in {root}; prepare it with\n  {command}')
