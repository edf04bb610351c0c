"""What TensorFlow Datasets has prepared, read without tensorflow."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from vitjax.data import cifar
from vitjax.data.images import InMemory
from vitjax.data.kind import SPLITS, Data, Source, chosen, decoded
from vitjax.data.preprocess import Preprocessing


def load(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
    """A split of a prepared dataset with an image and a label.

    Images whose size the dataset fixes stay as they are: they are small, and the device resizes.

    Raises:
        ValueError: for a dataset that is not prepared or has other features, and as `kind.chosen`
            and `kind.decoded`.
    """
    directory = prepared_in(source.dir, name)
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(str(directory))
    features = builder.info.features
    if not {'image', 'label'} <= features.keys():
        raise ValueError(f'{source.name} must have image and label: it has {", ".join(features)}.')
    if None not in features['image'].shape:
        source, preprocessing = dataclasses.replace(source, size=None), None
    present = [s for s in SPLITS if s in builder.info.splits]
    home = split if split in present else 'train'
    records: Any = builder.as_data_source(home, decoders={'image': tfds.decode.SkipDecoding()})
    rows = chosen(source, split, count=len(records), present=present)
    examples = records.__getitems__(rows.tolist())
    labels = np.array([e['label'] for e in examples], np.int32)
    pairs = zip(rows, examples, strict=True)
    files = [InMemory(e['image'], f'{source.name} {home}[{row}]') for row, e in pairs]
    pixels = decoded(files, source, preprocessing)
    return Data(pixels, labels, tuple(features['label'].names), preprocessing)


def prepared_in(directory: str | None, name: str) -> pathlib.Path:
    """The newest prepared version of a TFDS dataset, looked for on disk alone.

    Raises:
        ValueError: if there is none, with the command that prepares it.
    """

    def version(path: pathlib.Path) -> list[int]:
        return [int(n) if n.isdigit() else 0 for n in path.name.split('.')]

    folder = cifar.data_dir(directory) / name
    found = [path.parent for path in folder.rglob('dataset_info.json')]
    if found:
        return max(found, key=version)
    command = f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
    command += "file_format='array_record').download_and_prepare()\" (needs tensorflow)"
    if name in cifar.CIFAR:
        command = f'python scripts/prepare.py {name}'
    raise ValueError(f'{name} is not prepared in {folder.parent}; prepare it with\n  {command}')
