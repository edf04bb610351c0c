"""The table of the kinds of data, and `load`."""

import numpy as np

from vitjax.base import fields
from vitjax.data import source as sources
from vitjax.data.kinds import digits, folder, tfds
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import SPLITS, Data, Source

# The forms of a source's name. Each is read by a function of the source, what follows the colon,
# the split, and a model's preprocessing or None.
KINDS = {'digits': digits.load, 'tfds:NAME': tfds.load, 'folder:PATH': folder.load}


def load(source: Source, split: str, preprocessing: Preprocessing | None = None) -> Data:
    """One split of a source: `train`, `validation` or `test`.

    If a source has no validation or test split, the shares that it asks for are held out by one
    fixed permutation, the same for every seed (`source.home`). Lines on stderr name what of the
    source is not read, the split that stands in for a test split, and classes that a split lacks.

    >>> data = load(Source('digits'), 'test')
    >>> data.images.shape, data.labels[:5].tolist(), data.prepared
    ((359, 8, 8, 3), [1, 3, 4, 6, 7], None)

    Args:
        source: which images.
        split: which of them.
        preprocessing: a model's. Image files, and TFDS images of no fixed size, are resized and
            cut for it as they are decoded, whatever `source.size` is, and the data say so in
            `prepared`. Other images stay as they are, for the device to resize.

    Raises:
        ValueError: for an unknown source or split, data that are not there (with the command that
            prepares them), folders that cannot be told apart, an empty class folder, an unreadable
            image, and images of unequal sizes.
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
    """Says which classes have no images in a split: one cut at random can miss a small class."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    missing = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    if missing:
        sources.tell(
            f'{source.name}: no images of {len(missing):,} of {len(counts):,} classes in the '
            f'{split} split: {sources.listed(missing)}'
        )
