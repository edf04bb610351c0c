"""Paths to data as users write them."""

import os
import pathlib


def expanded(path: str | pathlib.Path) -> pathlib.Path:
    """A path as a user writes it, with `~` and `~user` for home folders.

    Raises:
        ValueError: if the home folder is unknown.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        first = pathlib.Path(path).parts[0]
        raise ValueError(f'{path}: {first} must be a home folder that is known here.') from None


def tfds_folder(directory: str | None = None) -> pathlib.Path:
    """The folder of TFDS's data: `directory`, TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return expanded(directory or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')
