"""Where images come from: the table of the kinds of data, and `load`."""

import pathlib

from vitjax.data import digits, folder, tfds
from vitjax.data.folder import SUFFIXES
from vitjax.data.kind import SPLITS, Data, Encoded, Source

__all__ = ['SPLITS', 'SUFFIXES', 'Data', 'Encoded', 'Source', 'load']


def load(source: Source, split: str) -> Data:
    """One split of a source: `train`, `validation` or `test`.

    Where a source has no validation or test split, the shares that it asks for are held out by
    one fixed permutation, the same for every seed.

    Raises:
        ValueError: for an unknown source or split, data that are not there (with the command that
            prepares them), an empty class folder, an unreadable image, images of unequal sizes.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}: {split!r}.')
    for share in ('validation', 'test'):
        if not 0 <= getattr(source, share) < 1:
            raise ValueError(f'data.{share} must be in [0, 1): {getattr(source, share)}.')
    kind, _, name = source.name.partition(':')
    if source.name == 'digits':
        return digits.load(source, split)
    if kind == 'tfds' and name:
        return tfds.load(source, name, split)
    if kind == 'folder' and name:
        return folder.load(source, pathlib.Path(name).expanduser(), split)
    raise ValueError(f'data.name must be digits, tfds:NAME or folder:PATH: {source.name!r}.')
