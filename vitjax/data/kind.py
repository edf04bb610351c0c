"""What every kind of data is made of: a source, its data, what is held out and decoding."""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Source:
    """Which images to train and test on.

    Attributes:
        name: `digits`, `tfds:NAME` (as in tfds:cifar10) or `folder:PATH`.
        dir: where TFDS has its prepared data; None takes TFDS_DATA_DIR or ~/tensorflow_datasets.
        validation: share of the training images held out when there is no validation split.
        test: share of all images held out when there is no test split.
        size: side in pixels that images of unequal sizes are resized and cropped to.
        memory: most bytes that decoded images may take; beyond, they are decoded as needed.
    """

    name: str = 'digits'
    dir: str | None = None
    validation: float = 0.1
    test: float = 0.2
    size: int | None = None
    memory: int = 8 * 2**30


@dataclasses.dataclass(frozen=True)
class Data:
    """Images [N, H, W, 3] uint8 with labels [N] int32 and the classes' names.

    `images` is an array, or `Encoded` when the decoded images would not fit in memory; both are
    indexed by an array of integers.
    """

    images: Any
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


class Encoded:
    """Images that threads decode when indexed: `encoded[indices]` is uint8 [n, H, W, 3]."""

    def __init__(self, items: Sequence[Any], decode: Callable[[Any], np.ndarray]):
        self._items, self._decode = items, decode
        self.shape = (len(items), *decode(items[0]).shape)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, indices: Any) -> np.ndarray:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chosen = [self._items[i] for i in np.arange(len(self))[indices]]
            return np.stack(list(pool.map(self._decode, chosen)))


def held_out(count: int, split: str, source: Source, present: Sequence[str]) -> np.ndarray:
    """Indices of `split` within the images that `train` and what has no split of its own share."""
    order = np.random.default_rng(0).permutation(count)
    tests = 0 if 'test' in present else round(count * source.test)
    validations = 0 if 'validation' in present else round((count - tests) * source.validation)
    parts = np.split(order, [count - tests - validations, count - tests])
    chosen = np.sort(parts[SPLITS.index(split)])
    if not len(chosen):
        raise ValueError(
            f'the {split} split of {source.name} is empty: {count} images, '
            f'data.validation={source.validation}, data.test={source.test}.'
        )
    return chosen


def source_split(split: str, present: Sequence[str]) -> str:
    """The split that holds the images of `split`: itself, or `train`, which it is held out of."""
    return split if split in present else 'train'


def decode_bytes(encoded: bytes) -> np.ndarray:
    """The bytes of an image file as uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))


def decoded(items: Sequence[Any], decode: Callable[[Any], np.ndarray], source: Source) -> Any:
    """All images as one array, or `Encoded` when that would take more than `source.memory`."""
    shape = decode(items[0]).shape
    if len(items) * int(np.prod(shape)) > source.memory:
        return Encoded(items, decode)
    out = np.empty((len(items), *shape), np.uint8)

    def fill(i: int) -> None:
        image = decode(items[i])
        if image.shape != shape:
            sizes = [f'{s[1]}x{s[0]}' for s in (shape, image.shape)]
            raise ValueError(
                f'images must be of one size unless data.size is given: {sizes[0]} and {sizes[1]} '
                f'pixels in {source.name}.'
            )
        out[i] = image

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(len(items))))
    return out
