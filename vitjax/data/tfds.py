"""What TensorFlow Datasets has prepared, read without tensorflow."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from vitjax.data import cifar
from vitjax.data.images import InMemory
from vitjax.data.kind import SPLITS, Data, Source, chosen, decoded
from vitjax.data.preprocess import Preprocessing
from vitjax.files import first_line


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a prepared dataset with an image and a label.

    Images whose size the dataset fixes stay as they are: they are small, and the device resizes.

    Raises:
        ValueError: for a dataset that is not prepared or has other features, and as `kind.chosen`
            and `kind.decoded`.
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
    present = [s for s in SPLITS if s in builder.info.splits]
    home = split if split in present else 'train'
    with _named(directory):
        records: Any = builder.as_data_source(home, decoders={'image': tfds.decode.SkipDecoding()})
    rows = chosen(source, split, count=len(records), present=present)
    with _named(directory):
        examples = records.__getitems__(rows.tolist())
    labels = np.array([e['label'] for e in examples], np.int32)
    pairs = zip(rows, examples, strict=True)
    files = [InMemory(e['image'], f'{source.name} {home}[{row}]') for row, e in pairs]
    pixels = decoded(files, source, preprocessing)
    return Data(pixels, labels, tuple(features['label'].names), preprocessing)


@contextlib.contextmanager
def _named(directory: pathlib.Path) -> Iterator[None]:
    """Makes of whatever is raised for damaged files a line that names their directory."""
    try:
        yield
    except Exception as error:
        raise ValueError(f'{directory} cannot be read: {first_line(error)}.') from None


def prepared_in(directory: str | None, name: str) -> pathlib.Path:
    """The newest prepared version of a TFDS dataset, looked for on disk alone.

    Raises:
        ValueError: if there is none, with the command that prepares it.
    """

    def version(path: pathlib.Path) -> list[int]:
        return [int(n) if n.isdigit() else 0 for n in path.name.split('.')]

    if '..' in pathlib.PurePath(name).parts or pathlib.PurePath(name).is_absolute():
        raise ValueError(f'tfds:NAME must be a name in {cifar.data_dir(directory)}: {name}.')
    folder = cifar.data_dir(directory) / name
    found = [path.parent for path in folder.rglob('dataset_info.json')]
    if found:
        return max(found, key=version)
    command = f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
    command += "file_format='array_record').download_and_prepare()\" (needs tensorflow)"
    if name in cifar.CIFAR:
        command = f'python scripts/prepare.py {name}'
    raise ValueError(f'{name} is not prepared in {folder.parent}; prepare it with\n  {command}')
