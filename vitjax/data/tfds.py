"""What TensorFlow Datasets has prepared, read without tensorflow."""

import os
import pathlib
from typing import Any

import numpy as np

from vitjax.data.cifar import CIFAR
from vitjax.data.kind import SPLITS, Data, Source, decode_bytes, decoded, held_out, source_split


def load(source: Source, name: str, split: str) -> Data:
    """One split of a prepared dataset."""
    directory = prepared_in(source, name)
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(str(directory))
    present = [s for s in SPLITS if s in builder.info.splits]
    for feature in ('image', 'label'):
        if feature not in builder.info.features:
            has = ', '.join(builder.info.features)
            raise ValueError(f'{source.name} must have image and label: it has {has}.')
    classes = tuple(builder.info.features['label'].names)
    records: Any = builder.as_data_source(
        source_split(split, present), decoders={'image': tfds.decode.SkipDecoding()}
    )
    chosen = np.arange(len(records))
    if split == 'train' or split not in present:
        chosen = held_out(len(records), split, source, present)
    examples = records.__getitems__(chosen.tolist())
    labels = np.array([e['label'] for e in examples], np.int32)
    encoded = [e['image'] for e in examples]
    return Data(decoded(encoded, decode_bytes, source), labels, classes)


def prepared_in(source: Source, name: str) -> pathlib.Path:
    """The newest prepared version of a TFDS dataset, looked for on disk alone.

    Raises:
        ValueError: if there is none, with the command that prepares it.
    """
    root = source.dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    folder = pathlib.Path(root).expanduser() / name
    found = sorted(
        (p.parent for p in folder.rglob('dataset_info.json')),
        key=lambda p: [int(n) if n.isdigit() else 0 for n in p.name.split('.')],
    )
    if found:
        return found[-1]
    command = f'python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}, '
    command += "file_format='array_record').download_and_prepare()\" (needs tensorflow)"
    if name in CIFAR:
        command = f'python scripts/prepare.py {name}'
    raise ValueError(f'{name} is not prepared in {folder.parent}; prepare it with\n  {command}')
