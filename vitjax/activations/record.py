"""Layers of a representation over examples: of a model, a capture or a file of arrays."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from vitjax.base import labels
from vitjax.base.types import Array
from vitjax.data.order import exactly

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Stack:
    """A captured path.

    Attributes:
        path: the path.
        shape: `(layers, ...)`, without the axis of examples after the layers.
        layers: first and last layer, from 0; None if the path is not a stack.
    """

    path: str
    shape: tuple[int, ...]
    layers: tuple[int, int] | None

    @property
    def names(self) -> list[str]:
        """Names of the layers, counted from 1 as in `blocks 4`; the path alone if not a stack."""
        if self.layers is None:
            return [self.path]
        return [f'{self.path} {i + 1}' for i in range(self.layers[0], self.layers[1] + 1)]

    @property
    def file(self) -> str:
        """Name of its file in a capture."""
        span = '' if self.layers is None else '.{}-{}'.format(*self.layers)
        return self.path.replace('/', '.') + span + '.npy'


@dataclasses.dataclass(frozen=True)
class Activations:
    """Layers of a representation over examples, read some examples at a time.

    Attributes:
        stacks: the captured paths, in the order of `values`.
        examples: number of examples.
        values: maps n indices of examples to arrays [layers, n, ...], one per stack.
        hashes: maps n indices to the images' hashes, uint64; None if images are not known.
        labels: [examples] int32, -1 without a class; None if images are not known.
        about: content of `index.json`.
    """

    stacks: tuple[Stack, ...]
    examples: int
    values: Callable[[np.ndarray], list[Array]]
    hashes: Callable[[np.ndarray], np.ndarray] | None
    labels: np.ndarray | None
    about: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Names of the layers, in the order of the stacks."""
        return [name for stack in self.stacks for name in stack.names]

    @property
    def source(self) -> str:
        """Path of its run, weights or file; `activations` if it came from none."""
        return self.about.get('source', 'activations')

    @property
    def label(self) -> str:
        """Name of its run or file; `labels.labels` tells two sources apart."""
        return labels.label(self.source)


def select(activations: Activations, keep: str) -> Activations:
    """The stacks whose paths match a regular expression in full.

    Raises:
        ValueError: if none does, with all paths.
    """
    chosen = [i for i, s in enumerate(activations.stacks) if re.fullmatch(keep, s.path)]
    if not chosen:
        known = ', '.join(s.path for s in activations.stacks)
        raise ValueError(f'keep must match a captured path: {keep!r} matches none of {known}.')

    def values(rows: np.ndarray) -> list[Array]:
        found = activations.values(rows)
        return [found[i] for i in chosen]

    stacks = tuple(activations.stacks[i] for i in chosen)
    return dataclasses.replace(activations, stacks=stacks, values=values)


def subset(activations: Activations, examples: int | None) -> Activations:
    """Examples spread evenly over all, chosen by `vitjax.data.order.exactly`.

    Args:
        activations: activations of all examples.
        examples: number of examples; None takes all.

    Raises:
        ValueError: if there are fewer.
    """
    if examples is None:
        return activations
    chosen = exactly(activations.examples, examples)
    hashes, labels = activations.hashes, activations.labels
    return dataclasses.replace(
        activations,
        examples=examples,
        values=lambda rows: activations.values(chosen[rows]),
        hashes=None if hashes is None else lambda rows: hashes(chosen[rows]),
        labels=None if labels is None else labels[chosen],
    )


def digests(hashes: np.ndarray) -> dict[str, str]:
    """Digests of the set of images and of their order."""
    kinds = {'images': np.sort(hashes), 'order': np.asarray(hashes)}
    return {k: hashlib.sha256(v.astype('<u8').tobytes()).hexdigest() for k, v in kinds.items()}


def by_batch(read: Callable[[np.ndarray], T], examples: int) -> Iterator[T]:
    """Reads all examples, a batch at a time."""
    for start in range(0, examples, 1024):
        yield read(np.arange(start, min(start + 1024, examples)))


def require_same_examples(a: Activations, b: Activations) -> None:
    """Refuses to compare representations of different images, or in a different order.

    If images are not known (a file of arrays), only their number is compared.

    Raises:
        ValueError: if they differ, with the difference.
    """
    if a.examples != b.examples:
        counts = f'{a.examples} and {b.examples}'
        raise ValueError(
            f'both sides must have the same images: {a.source} and {b.source} have {counts}.'
        )
    if a.hashes is None or b.hashes is None:
        return
    places = [(side.about.get('data'), side.about.get('split')) for side in (a, b)]
    if places[0] == places[1] != (None, None) and not any('done' in s.about for s in (a, b)):
        return  # both read now, from one place
    reads = (a.hashes, b.hashes)
    one, other = (digests(np.concatenate([*by_batch(read, a.examples)])) for read in reads)
    if one['order'] == other['order']:
        return
    if one['images'] == other['images']:
        raise ValueError('both sides must have the same images in order: the order differs.')
    raise ValueError('both sides must have the same images: these are of different ones.')
