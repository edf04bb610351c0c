"""Names of ImageNet-1k's classes."""

import pathlib
import re
from collections.abc import Sequence

SYNSET = re.compile(r'n\d{8}')


def imagenet() -> tuple[str, ...]:
    """The names of ImageNet-1k's 1,000 classes, in the order of published weights' outputs."""
    lines = pathlib.Path(__file__).with_name('imagenet_classes.txt').read_text('utf-8')
    return tuple(lines.splitlines())


def readable(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes in words, if they are the synsets of ImageNet-1k in order."""
    known = len(names) == 1000 and all(map(SYNSET.fullmatch, names)) and sorted(names) == [*names]
    return imagenet() if known and names[0] == 'n01440764' else tuple(names)
