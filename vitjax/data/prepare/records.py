"""Datasets written as TensorFlow Datasets reads them, in ArrayRecord, without tensorflow."""

import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vitjax.data.prepare import silent


class AlreadyPrepared(ValueError):
    """Data that are to be prepared are there."""


def write(
    directory: pathlib.Path, name: str, splits: dict[str, Any], classes: Sequence[str],
    progress: Callable[..., Any] = silent, *, version: str | None = None,
) -> None:  # fmt: skip
    """Writes splits of (images, labels) that fit in memory, one shard each, images as PNG.

    Args:
        directory: an empty folder.
        name: the dataset's name.
        splits: images, uint8 [H, W, 3] of one size or of several, and labels of each split.
        classes: names of the labels.
        progress: as in `vitjax.data.prepare.cifar.prepare`.
        version: the dataset's version, as `3.0.2`; None takes the folder's name.
    """
    import tensorflow_datasets as tfds
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
        records: list[bytes] = []
        with progress(f'{split} images', len(examples[1])) as show:
            for i, (image, label) in enumerate(zip(*examples, strict=True)):
                records.append(record(f'{split}_{i:05d}', image, label))
                show(len(records))
        names, (path,) = shards(directory, name, split, 1)
        file_adapters.ArrayRecordFileAdapter.write_examples(path, enumerate(records))
        infos.append(tfds.core.SplitInfo(split, [len(records)], sum(map(len, records)), names))
    describe(directory, features, infos, version)


def shards(
    directory: pathlib.Path, name: str, split: str, count: int
) -> tuple[Any, list[pathlib.Path]]:
    """TFDS's template of the names of a split's shards, and their `count` paths."""
    import tensorflow_datasets as tfds
    from etils import epath

    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(directory), filetype_suffix='array_record', dataset_name=name,
        split=split,
    )  # fmt: skip
    paths = [template.sharded_filepath(shard_index=i, num_shards=count) for i in range(count)]
    return template, [*map(pathlib.Path, paths)]


def describe(
    directory: pathlib.Path, features: Any, infos: Sequence[Any], version: str | None
) -> None:
    """Writes TFDS's metadata of a dataset whose shards are written."""
    import tensorflow_datasets as tfds

    tfds.folder_dataset.write_metadata(
        data_dir=str(directory), features=features, split_infos=infos, check_data=False,
        supervised_keys=('image', 'label'), version=version,
    )  # fmt: skip
