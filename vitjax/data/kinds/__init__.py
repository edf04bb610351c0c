"""Registry of the kinds of data, and `load`.

A kind of data of your own is an entry of `KINDS`, made in your experiment file:

    def circles(source: Source, name: str, split: str, preprocessing: Preprocessing | None) -> Data:
        ...

    KINDS['circles:RADIUS'] = circles  # experiments then take --data.name circles:3
"""

from collections.abc import Callable

import numpy as np

from vitjax.base import fields
from vitjax.data.kinds import digits, folder, tfds
from vitjax.data.notices import listed, tell
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.data.splits import SPLITS

# By the form of a source's name. A reader takes the source, the name after the colon, the split,
# and a model's preprocessing or None.
KINDS: dict[str, Callable[[Source, str, str, Preprocessing | None], Data]] = {
    'digits': digits.load, 'tfds:NAME': tfds.load, 'folder:PATH': folder.load,
}  # fmt: skip


def load(source: Source, split: str, preprocessing: Preprocessing | None = None) -> Data:
    """One split of a source: `train`, `validation` or `test`.

    If a source has no validation or test split, its fractions are held out by one fixed
    permutation, the same for every seed (`splits.Splits`). Lines on stderr name the parts of the
    source that are not read, the split used for testing, and classes that a split lacks.

    >>> data = load(Source('digits'), 'test')
    >>> data.images.shape, data.labels[:5].tolist(), data.prepared
    ((359, 8, 8, 3), [1, 3, 4, 6, 7], None)

    Args:
        source: images to load.
        split: one of `SPLITS`.
        preprocessing: a model's. Image files, and TFDS images of no fixed size, are resized and
            cut for it as they are decoded, whatever `source.size` is, and `Data.prepared` is set.
            Other images stay as they are, for the device to resize.

    Raises:
        ValueError: if the source or split is unknown, its data are missing (with the command that
            prepares them), folders cannot be told apart, a class folder is empty, an image is
            unreadable, or images have unequal sizes.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}: {split!r}.')
    fields.require(source, 'data')
    asked, _, name = source.name.partition(':')
    for form, read in KINDS.items():
        known, _, follows = form.partition(':')
        if asked == known and bool(name) == bool(follows):
            if source.dir is not None and asked != 'tfds':
                raise ValueError(f'--data.dir is for tfds:NAME alone: got {source.name}.')
            data = read(source, name, split, preprocessing)
            _tell_missing(source, split, data)
            return data
    raise ValueError(f'data.name must be one of {", ".join(KINDS)}: {source.name!r}.')


def _tell_missing(source: Source, split: str, data: Data) -> None:
    """Names the classes without images in a split: a random cut can miss a small class."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    missing = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if missing:
        share = f'{len(missing):,} of {len(counts):,} classes in the {split} split'
        tell(f'{source.name}: no images of {share}: {listed(missing)}')
