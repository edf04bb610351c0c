"""Layers of a representation over examples, wherever they come from."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from vitjax.base import files, labels
from vitjax.base.types import Array
from vitjax.data.order import exactly

Report: TypeAlias = Callable[[int, int], object]  # takes how many examples are done, of how many


def silent(done: int, total: int) -> None:
    """A `Report` that says nothing."""


@dataclasses.dataclass(frozen=True)
class Stack:
    """One captured path: `shape` is `(layers, ...)`, without the axis of examples after layers."""

    path: str
    shape: tuple[int, ...]
    layers: tuple[int, int] | None  # first and last, from 0; None where a path is no stack

    @property
    def names(self) -> list[str]:
        """What each layer is called, counted from 1: `blocks 4`, or the path alone."""
        if self.layers is None:
            return [self.path]
        return [f'{self.path} {i + 1}' for i in range(self.layers[0], self.layers[1] + 1)]

    @property
    def file(self) -> str:
        """The file that a capture keeps it in."""
        span = '' if self.layers is None else '.{}-{}'.format(*self.layers)
        return self.path.replace('/', '.') + span + '.npy'


@dataclasses.dataclass(frozen=True)
class Activations:
    """Layers of a representation over examples, read some examples at a time.

    Attributes:
        stacks: what there is, in the order of `values`.
        examples: how many.
        values: n indices of examples to arrays [layers, n, ...], one for each stack.
        hashes: n indices to the images' hashes, uint64; None where images are not known.
        labels: [examples] int32, -1 without a class; None where they are not known.
        about: what `index.json` says of them.
    """

    stacks: tuple[Stack, ...]
    examples: int
    values: Callable[[np.ndarray], list[Array]]
    hashes: Callable[[np.ndarray], np.ndarray] | None
    labels: np.ndarray | None
    about: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The layers' names, in the order of the stacks."""
        return [name for stack in self.stacks for name in stack.names]

    @property
    def source(self) -> str:
        """Path of the run, weights or array that it is of."""
        return self.about.get('source') or self.about['file']

    @property
    def label(self) -> str:
        """Name of its run or file; beside another one, `labels.labels` of both sources."""
        return labels.label(self.source)


def select(activations: Activations, keep: str) -> Activations:
    """Only the paths that match a regular expression in full.

    Raises:
        ValueError: if none does, with the paths there are.
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
    """A number of the examples, spread evenly over all (`vitjax.data.order.exactly`).

    Args:
        activations: activations of all examples.
        examples: the number; None takes all.

    Raises:
        ValueError: if there are not as many.
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


def from_array(path: str | pathlib.Path) -> Activations:
    """A representation from elsewhere: a `.npy` of [examples, features], or with layers in front.

    Raises:
        ValueError: for another file, or another shape.
    """
    path = pathlib.Path(path)
    array = files.array(path)
    if array.ndim not in (2, 3) or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f'{path} must be floats of [examples, features] or [layers, examples, features]: '
            f'it is {array.dtype} of {list(array.shape)}.'
        )
    layers = None if array.ndim == 2 else (0, len(array) - 1)
    array = array[None] if array.ndim == 2 else array
    stack = Stack(path.stem, (array.shape[0], array.shape[2]), layers)
    about = {'file': str(path), 'tokens': 'as given'}

    def values(rows: np.ndarray) -> list[Array]:
        return [np.asarray(array[:, rows])]

    return Activations((stack,), array.shape[1], values, hashes=None, labels=None, about=about)


def digests(hashes: np.ndarray) -> dict[str, str]:
    """One hash of which images there are, and one of their order."""
    kinds = {'images': np.sort(hashes), 'order': np.asarray(hashes)}
    return {k: hashlib.sha256(v.astype('<u8').tobytes()).hexdigest() for k, v in kinds.items()}


def by_batch(read: Any, examples: int) -> Iterator[Any]:
    """What is read of all examples, a batch at a time."""
    for start in range(0, examples, 1024):
        yield read(np.arange(start, min(start + 1024, examples)))


def require_same_examples(a: Activations, b: Activations) -> None:
    """Refuses to compare representations of different images, or in a different order.

    Where images are not known (a `.npy` from elsewhere) only their number is compared.

    Raises:
        ValueError: saying which.
    """
    if a.examples != b.examples:
        raise ValueError(f'both sides must have the same images: {a.examples} and {b.examples}.')
    if a.hashes is None or b.hashes is None:
        return
    places = [(side.about.get('data'), side.about.get('split')) for side in (a, b)]
    if places[0] == places[1] != (None, None) and not any('done' in s.about for s in (a, b)):
        return  # both read now, from one place
    one, other = (digests(np.concatenate([*by_batch(s.hashes, s.examples)])) for s in (a, b))
    if one['order'] == other['order']:
        return
    if one['images'] == other['images']:
        raise ValueError('both sides must have the same images in order: the order differs.')
    raise ValueError('both sides must have the same images: these are of different ones.')
