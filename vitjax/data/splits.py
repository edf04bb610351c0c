"""Splits of data: their names, and the cut of those that the data lack."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from vitjax.data.notices import tell
from vitjax.data.source import Source

SPLITS = ('train', 'validation', 'test')
# Names that folders and TFDS give these splits, in any capitals.
NAMES = {
    'train': ('train', 'training'),
    'validation': ('validation', 'val', 'valid', 'dev'),
    'test': ('test', 'testing'),
}
KNOWN = '; '.join(' or '.join(names) for names in NAMES.values())


def split_of(name: str) -> str | None:
    """The split of `SPLITS` that a folder or a TFDS split of this name is, if any."""
    return next((split for split, names in NAMES.items() if name.casefold() in names), None)


@dataclasses.dataclass(frozen=True)
class Splits:
    """Splits that data have of their own; missing ones are held out of `train`.

    Attributes:
        names: name of each split in the data, by its name in `SPLITS`.
    """

    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def among(cls, names: Iterable[str], where: object) -> 'Splits':
        """Splits among names of folders or TFDS splits; other names are left out.

        Args:
            names: the names.
            where: their folder or dataset, for the message.

        Raises:
            ValueError: if two are the same split.
        """
        found: dict[str, str] = {}
        for name in names:
            split = split_of(name)
            if split in found:
                both = f'{found[split]} and {name}'
                raise ValueError(f'{where} must have one {split} split: it has {both}.')
            if split:
                found[split] = name
        return cls({split: found[split] for split in SPLITS if split in found})

    def home(self, split: str) -> str:
        """The split of the data that holds the images of a `split` of `SPLITS`.

        Labels of a test split may be secret: if there is no test split, the validation split is
        tested on, as ImageNet's is in the literature.
        """
        if split == 'test':
            return next((name for name in ('test', 'validation') if name in self.names), 'train')
        return split if {split, 'test'} <= self.names.keys() else 'train'

    def part(self, split: str) -> str:
        """Origin of a split's images in words; empty if the data have the split.

        >>> Splits({'train': 'train', 'validation': 'val'}).part('test')
        'its split val, as it has no test split'
        >>> Splits({'train': 'train'}).part('validation')
        'held out of its training images'
        """
        home = self.home(split)
        if home == split:
            return ''
        if home == 'train':
            return 'held out of its training images'
        return f'its split {self.names[home]}, as it has no {split} split'

    def tell(self, source: Source) -> None:
        """Prints that a validation split is tested on, if it is."""
        if self.home('test') == 'validation':
            held = f'{source.validation:.3g} of {self.names["train"]} is held out for validation'
            tested = f'{self.names["validation"]} is tested on'
            tell(f'{source.name} has no test split: {tested}, and {held}')

    def rows(self, source: Source, split: str, count: int) -> np.ndarray:
        """Rows of a split's images: all of `count`, or those held out or left of `train`.

        The permutation must stay as it is: existing runs were trained on its rows.

        Args:
            source: gives the fractions held out.
            split: one of `SPLITS`.
            count: images in the split's `home`.

        Raises:
            ValueError: if the split would be empty.
        """
        held = [name for name in ('validation', 'test') if self.home(name) == 'train']
        if split != 'train' and split not in held:
            return np.arange(count)
        order = np.random.default_rng(0).permutation(count)
        tests = round(count * source.test) if 'test' in held else 0
        validations = round((count - tests) * source.validation) if 'validation' in held else 0
        parts = np.split(order, [count - tests - validations, count - tests])
        rows = np.sort(parts[SPLITS.index(split)])
        if not len(rows):
            facts = f'{count} images, data.validation={source.validation}, data.test={source.test}'
            raise ValueError(f'the {split} split of {source.name} is empty: {facts}.')
        return rows
