"""Images to train and test on: the source that an experiment names, and its data."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from vitjax.base.ranges import Rate, Side, Whole
from vitjax.data import images
from vitjax.data.images import File
from vitjax.data.order import evenly
from vitjax.data.preprocess import Preprocessing, read_square

SAMPLE = 512  # random reads, which take a network's file system a second or two


@dataclasses.dataclass(frozen=True)
class Source:
    """Images to train and test on.

    Attributes:
        name: `digits`, `tfds:NAME` (as in tfds:cifar10) or `folder:PATH`.
        dir: folder of TFDS's prepared data; None takes TFDS_DATA_DIR or ~/tensorflow_datasets.
        validation: fraction of the training images held out if there is no validation split, or if
            that is tested on.
        test: fraction of all images held out if there is neither a test nor a validation split;
            data with a validation split alone, as ImageNet's, are tested on it.
        size: side in pixels of the central squares cut from images of unequal sizes.
        memory: most bytes that images may take in memory. If that is too little for decoded images,
            they are decoded as needed; if it is too little for their files too, training images
            stream: worker processes read, cut out and decode them (extra `stream`).
    """

    name: str = 'digits'
    dir: str | None = None
    validation: Rate = 0.1
    test: Rate = 0.2
    size: Side | None = None
    memory: Whole = 8 * 2**30


class Encoded:
    """Images of one size that threads decode when indexed: `encoded[rows]` is uint8 [n, H, W, 3].

    Args:
        items: sources of the images; `str` of an item names it in messages.
        decode: makes an item uint8 [H, W, 3].
        streams: True if all items together do not fit in memory. Training then reads them by worker
            processes, so that `items` and `decode` must be picklable.
    """

    def __init__(
        self, items: Sequence[Any], decode: Callable[[Any], np.ndarray], *, streams: bool = False
    ):
        self.items, self.decode, self.streams = items, decode, streams
        self.shape: tuple[int, ...] = (len(items), *decode(items[0]).shape)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def fill(place: int) -> None:
            out[place] = self.read(rows[place])

        list(images.THREADS.map(fill, range(len(rows))))  # raises their errors
        return out

    def read(self, row: int) -> np.ndarray:
        """One image, uint8 [H, W, 3].

        Raises:
            ValueError: if its size differs from the first one's, or it cannot be read.
        """
        item = self.items[row]
        image = self.decode(item)
        if image.shape != self.shape[1:]:
            sizes = ' and '.join(f'{s[-2]}x{s[-3]}' for s in (self.shape, image.shape))
            rule = 'images must be of one size unless data.size is given'
            raise ValueError(f'{rule}: {sizes} pixels in {item}.')
        return image


def read_ahead(pixels: np.ndarray | Encoded, parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the images of each part of the rows; encoded ones are decoded a part ahead."""
    if not isinstance(pixels, Encoded):
        yield from map(pixels.__getitem__, parts)
        return
    with ThreadPoolExecutor(1) as pool:
        coming: Future[np.ndarray] | None = None
        for rows in parts:
            ready, coming = coming, pool.submit(pixels.__getitem__, rows)
            if ready:
                yield ready.result()
        if coming:
            yield coming.result()


@dataclasses.dataclass(frozen=True)
class Data:
    """Images with their labels and the classes' names.

    Attributes:
        images: uint8 [N, H, W, 3]: an array, or `Encoded` when the decoded images would not fit in
            memory; both are indexed by an array of integers.
        labels: [N] int32; -1 for images without labels.
        classes: names of the labels.
        prepared: the preprocessing that images were resized and cut for, so that only normalising
            is left; None if they are as in their source (`preprocess.finish`).
        digest: identity of the examples, from the function `digest`; empty if unknown.
        part: origin of the images if the data lack this split (`splits.Splits.part`).
    """

    images: Any  # np.ndarray | Encoded
    labels: np.ndarray
    classes: tuple[str, ...]
    prepared: Preprocessing | None = None
    digest: str = ''
    part: str = ''

    def __len__(self) -> int:
        return len(self.labels)


def digest(classes: Sequence[str], labels: np.ndarray, facts: Iterable[bytes]) -> str:
    """Identity of a split's examples, in hexadecimal: it changes with any of these facts.

    It is cheap for millions of files, and independent of the place of the data, of the size that
    images are resized to, and of memory.

    Args:
        classes: names of the labels.
        labels: [N].
        facts: names, sizes and contents of the examples, or of the files that hold them, in order.
    """
    out = hashlib.sha256(json.dumps([*classes]).encode())
    out.update(labels.astype('<i4').tobytes())
    for fact in facts:
        out.update(b'%d %b' % (len(fact), fact))
    return out.hexdigest()[:32]


def sample(count: int) -> np.ndarray:
    """Rows of the examples whose contents the digest covers: `SAMPLE` at most, evenly spread.

    Names and sizes do not tell two classes of images of one size from each other.
    """
    return evenly(count, SAMPLE)


def decoded(
    files: Sequence[File], source: Source, preprocessing: Preprocessing | None,
    size: Callable[[], float],
) -> np.ndarray | Encoded:  # fmt: skip
    """Image files as one array, or `Encoded` when that would take more than `source.memory`.

    Args:
        files: images of any sizes if `preprocessing` or `source.size` is set, else of one.
        source: gives the size and the memory.
        preprocessing: a model's, which makes its squares; None makes squares of `source.size`, if
            that is set.
        size: returns the bytes of all files together.

    Raises:
        ValueError: if a file cannot be read, or images have unequal sizes.
    """
    if preprocessing is None and source.size:
        preprocessing = Preprocessing(source.size, crop=1.0)
    decode: Callable[[File], np.ndarray] = images.read
    if preprocessing:
        decode = functools.partial(read_square, preprocessing=preprocessing)
    encoded = Encoded(files, decode)
    if np.prod(encoded.shape, dtype=float) <= source.memory:
        return encoded[:]
    encoded.streams = size() > source.memory
    return encoded
