"""Parts of every kind of data: the source asked for, its data, names and cut of the splits."""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from vitjax.base.ranges import Rate, Side, Whole
from vitjax.data import images, preprocess
from vitjax.data.images import File
from vitjax.data.order import evenly
from vitjax.data.preprocess import Preprocessing

SPLITS = ('train', 'validation', 'test')
# Names that folders and TFDS give these splits, in any capitals.
NAMES = {
    'train': ('train', 'training'),
    'validation': ('validation', 'val', 'valid', 'dev'),
    'test': ('test', 'testing'),
}
KNOWN = '; '.join(' or '.join(names) for names in NAMES.values())
SAMPLE = 512  # 512 random reads take a second or two of a network's file system


@dataclasses.dataclass(frozen=True)
class Source:
    """Which images to train and test on.

    Attributes:
        name: `digits`, `tfds:NAME` (as in tfds:cifar10) or `folder:PATH`.
        dir: where TFDS has its prepared data; None takes TFDS_DATA_DIR or ~/tensorflow_datasets.
        validation: fraction of the training images held out if there is no validation split, or if
            that is tested on.
        test: fraction of all images held out if there is neither a test nor a validation split;
            data with a validation split alone, as ImageNet's, are tested on it.
        size: side in pixels of the central squares that images of unequal sizes become.
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
        items: what is decoded; `str` of an item names it in messages.
        decode: makes an item uint8 [H, W, 3].
        streams: whether all items together are more than memory has room for: training then reads
            them by worker processes, to which `items` and `decode` must be able to go.
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

        list(images.THREADS.map(fill, range(len(rows))))  # which raises what they raise
        return out

    def read(self, row: int) -> np.ndarray:
        """One image, uint8 [H, W, 3].

        Raises:
            ValueError: if it is of another size than the first, or cannot be read.
        """
        item = self.items[row]
        image = self.decode(item)
        if image.shape != self.shape[1:]:
            sizes = ' and '.join(f'{s[-2]}x{s[-3]}' for s in (self.shape, image.shape))
            rule = 'images must be of one size unless data.size is given'
            raise ValueError(f'{rule}: {sizes} pixels in {item}.')
        return image


def read_ahead(pixels: np.ndarray | Encoded, parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Images of one part of the rows after another; encoded ones are decoded a part ahead."""
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
        labels: [N] int32; -1 where there are none.
        classes: names of the labels.
        prepared: the preprocessing that images were resized and cut for, so that only normalising
            is left; None where they are as their source has them (`preprocess.finish`).
        digest: identity of the examples, of function `digest`; empty if it is not known.
        part: which images these are if their split has no folder of its own, of function `part`.
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

    It must be cheap for millions of files, and know nothing of where the data are, of the size that
    images are resized to, or of memory.

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
    """Rows of the examples whose contents the digest covers: all of a few, `SAMPLE` of many.

    Names and sizes do not tell two classes of images of one size from each other.
    """
    return evenly(count, SAMPLE)


def decoded(
    files: Sequence[File], source: Source, preprocessing: Preprocessing | None,
    size: Callable[[], float],
) -> np.ndarray | Encoded:  # fmt: skip
    """Image files as one array, or `Encoded` when that would take more than `source.memory`.

    Args:
        files: of any sizes where `preprocessing` or `source.size` is given, else of one.
        source: says the size and the memory.
        preprocessing: makes each image a model's square; None makes it one of `source.size`, where
            that is given.
        size: of all files together, in bytes.

    Raises:
        ValueError: for a file that cannot be read, and images of unequal sizes.
    """
    if preprocessing is None and source.size:
        preprocessing = Preprocessing(source.size, crop=1.0)
    decode: Callable[[File], np.ndarray] = images.read
    if preprocessing:
        decode = functools.partial(preprocess.read_square, preprocessing=preprocessing)
    encoded = Encoded(files, decode)
    if np.prod(encoded.shape, dtype=float) <= source.memory:
        return encoded[:]
    encoded.streams = size() > source.memory
    return encoded


@functools.cache
def tell(text: str) -> None:
    """Prints a line on stderr, once in a process."""
    print(text, file=sys.stderr)


def listed(names: Sequence[str]) -> str:
    """The first five names, for a message of one line."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:5]]
    more = [f'and {len(names) - 5:,} more'] if len(names) > 5 else []
    return ', '.join(shown + more)


def split_of(name: str) -> str | None:
    """The split of `SPLITS` that a folder or a TFDS split of this name is, if it is one."""
    return next((split for split, names in NAMES.items() if name.casefold() in names), None)


def splits(names: Iterable[str], where: object) -> dict[str, str]:
    """Names by the split of `SPLITS` that they mean; other names are left out.

    Args:
        names: names of folders, or of the splits of a TFDS dataset.
        where: their folder or dataset, for the message.

    Raises:
        ValueError: if two are the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split in found:
            raise ValueError(
                f'{where} must have one {split} split: it has {found[split]} and {name}.'
            )
        if split:
            found[split] = name
    return {split: found[split] for split in SPLITS if split in found}


def tell_home(source: Source, present: Mapping[str, str]) -> None:
    """Says that a validation split is tested on, if it is.

    Args:
        source: names the data and the share held out.
        present: the splits that the data have, with their names there.
    """
    if home('test', [*present]) == 'validation':
        tell(
            f'{source.name} has no test split: {present["validation"]} is tested on, and '
            f'{source.validation:.3g} of {present["train"]} is held out for validation'
        )


def home(split: str, present: Sequence[str]) -> str:
    """The split of the data, one of `present`, that has the images of a `split` of `SPLITS`.

    Labels of a test split may be secret: if there is no test split, the validation split is tested
    on, as ImageNet's is in the literature. Missing splits are held out of `train`.
    """
    if split == 'test':
        return next((s for s in ('test', 'validation') if s in present), 'train')
    return split if {split, 'test'} <= {*present} else 'train'


def part(split: str, present: Mapping[str, str]) -> str:
    """Origin of a split's images in words, if the data have no split of that kind; else empty.

    >>> part('test', {'train': 'train', 'validation': 'val'})
    'its split val, as it has no test split'
    >>> part('validation', {'train': 'train'})
    'held out of its training images'

    Args:
        split: one of `SPLITS`.
        present: the splits that the data have, with their names there.
    """
    own = home(split, [*present])
    if own == split:
        return ''
    if own == 'train':
        return 'held out of its training images'
    return f'its split {present[own]}, as it has no {split} split'


def chosen(source: Source, split: str, *, count: int, present: Sequence[str]) -> np.ndarray:
    """Rows of the images of a split: all of `count`, or those held out or left of `train`.

    The permutation must stay as it is: runs that exist were trained on its rows.

    Args:
        source: gives the fractions held out.
        split: one of `SPLITS`.
        count: images of the split of the data that has them, `home`.
        present: the splits that the data have of their own.

    Raises:
        ValueError: if it has none.
    """
    held = [name for name in ('validation', 'test') if home(name, present) == 'train']
    if split in ('validation', 'test') and split not in held:
        return np.arange(count)
    order = np.random.default_rng(0).permutation(count)
    tests = round(count * source.test) if 'test' in held else 0
    validations = round((count - tests) * source.validation) if 'validation' in held else 0
    parts = np.split(order, [count - tests - validations, count - tests])
    rows = np.sort(parts[SPLITS.index(split)])
    if not len(rows):
        raise ValueError(
            f'the {split} split of {source.name} is empty: {count} images, '
            f'data.validation={source.validation}, data.test={source.test}.'
        )
    return rows
