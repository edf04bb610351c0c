"""Names of runs, files of weights and images, for figures, tables and file names."""

import os
import pathlib
import re
from collections.abc import Sequence

Path = str | pathlib.Path

# Suffixes that tell a reader nothing; others may be part of the name, as in `lr0.1`.
_SUFFIXES = re.compile(
    r'(?<=[^/])\.(safetensors|npz|npy|h5|hdf5|jpe?g|png|webp|gif|bmp|tiff?|avif|ppm|pgm)$',
    re.IGNORECASE,
)
# Names that many folders share; the folder above tells them apart.
_COMMON = re.compile(r'seed_\d+|(pytorch_|flax_)?model|weights|checkpoint|best|latest')


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest last parts of paths that tell each from the others.

    Paths are made absolute: a trailing slash, `.` and `..` make no difference, and links keep their
    own name. The suffix of a file of weights or an image is left out, unless it alone tells two
    files apart. Equal paths have equal labels.

    >>> labels(['runs/a/seed_0', 'runs/b/seed_0/', 'runs/c'])
    ['a/seed_0', 'b/seed_0', 'c']
    >>> labels(['weights/dino/model.safetensors'])
    ['dino/model']
    """
    known = {_parts(path): _parts(path, suffix=False) for path in paths}
    bare = [*known.values()]
    for whole, own in known.items():
        if bare.count(own) > 1 or (own != whole and own in known):  # or another's whole name
            known[whole] = whole
    found = {whole: _shortest(own, [*known.values()]) for whole, own in known.items()}
    return [found[_parts(path)] for path in paths]


def label(path: Path) -> str:
    """The label of a single path."""
    return labels([path])[0]


def _parts(path: Path, *, suffix: bool = True) -> tuple[str, ...]:
    text = os.fspath(path)
    if text.startswith('hf-hub:'):
        return tuple(text.removeprefix('hf-hub:').strip('/').split('/'))
    text = os.path.abspath(os.path.expanduser(text))
    if not suffix:
        text = _SUFFIXES.sub('', text) or text
    return tuple(part for part in text.split('/') if part) or ('/',)


def _shortest(own: tuple[str, ...], every: Sequence[tuple[str, ...]]) -> str:
    others = [parts for parts in every if parts != own]
    least = 1 + bool(_COMMON.fullmatch(own[-1]))
    for count in range(min(least, len(own)), len(own)):
        if not any(parts[-count:] == own[-count:] for parts in others):
            return '/'.join(own[-count:])
    return '/'.join(own)
