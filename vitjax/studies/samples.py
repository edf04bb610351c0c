"""Images that studies measure on: files, or a split of a data set."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vitjax.base.labels import labels as labels_of
from vitjax.data import kinds, preprocess
from vitjax.data.order import evenly, exactly
from vitjax.experiment import preprocessing
from vitjax.runs import Loaded


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images as a model takes them.

    Attributes:
        names: names of files, or places in the split.
        inputs: normalised [B, H, W, 3].
        labels: classes [B]; None if the images have none, or classes other than the model's.
        source: their files or data set, in words.
    """

    names: tuple[str, ...]
    inputs: np.ndarray
    labels: np.ndarray | None
    source: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.inputs)

    def take(self, rows: Any) -> 'Samples':
        """Images at `rows`: indices, a mask or a slice."""
        labels = None if self.labels is None else self.labels[rows]
        names = tuple(np.array(self.names)[rows])
        return dataclasses.replace(self, names=names, inputs=self.inputs[rows], labels=labels)

    def described(self) -> str:
        """Number and source of the images, for titles."""
        return f'{len(self)} image{"s" * (len(self) != 1)} ({self.source})'


def samples(
    loaded: Loaded, files: Sequence[str | pathlib.Path] = (), *, data: str | None = None,
    split: str = 'test', examples: int | None = None, most: int | None = None,
) -> Samples:  # fmt: skip
    """Loads images of files, or of a split of a data set, as the model takes them.

    Args:
        loaded: the model.
        files: photographs; without them, images of the split.
        data: name of the data, as in `Source.name`; None takes the run's own.
        split: split of the data.
        examples: number of images, evenly spaced in the split; None takes at most `most`.
        most: largest number of images; None takes all.

    Raises:
        ValueError: for files that cannot be read, a model without data of its own, and more
            examples than the split has.
    """
    prepared = preprocessing(loaded.experiment)
    if files:
        names = tuple(labels_of(files))
        return Samples(names, preprocess.load([*files], prepared), None, 'photographs')
    source = loaded.experiment.data
    if data is not None:
        source = dataclasses.replace(source or kinds.Source(), name=data)
    if source is None:
        raise ValueError('no images: give --images FILE ... or --data; the model has no data.')
    found = kinds.load(source, split, prepared)
    count = len(found)
    rows = exactly(count, examples) if examples is not None else evenly(count, most or count)
    pixels = np.asarray(found.images[rows])
    run = jax.jit(lambda x: preprocess.finish(x, prepared, found.prepared))
    known = len(found.classes) == loaded.experiment.model.num_classes > 0
    labels = np.asarray(found.labels)[rows] if known else None
    names = tuple(f'{split}[{row}]' for row in rows)
    return Samples(names, np.asarray(run(pixels)), labels, f'{source.name}, {split} split')
