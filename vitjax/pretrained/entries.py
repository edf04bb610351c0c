"""Entries of the tables of weights' formats, and what makes them.

A table is read both ways: `convert.Parameter` joins a file's tensors into a parameter and splits a
parameter into a file's tensors. Everything else follows from the tables too: which format a file
has, which sizes, and which tensors are missing, surplus or misshapen.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.models.base import Model

Weights = Mapping[str, np.ndarray]
OWN = 'vitjax'  # key of the experiment in a config.json of ours

# einops patterns from a file's layout to ours. Axes: outputs, inputs, channels, height and width of
# a patch, y and x of a convolution's kernel; d is the width of vectors and tokens.
VECTOR = 'd -> d'
TOKENS = '1 n d -> n d'


def _always(model: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Entry:
    """A parameter of ours and the tensors that hold it in a file.

    A format may have several entries for a parameter. A file has the one whose names it has; `when`
    tells which one the library writes for a model.

    Attributes:
        path: path of the parameter.
        names: names of tensors; several are parts that we concatenate: queries, keys and values, or
            class tokens. `{i}` counts the layers that we stack.
        pattern: einops pattern from each tensor to its part of the parameter.
        part: number of this parameter among those that share the tensor, and how many they are;
            they follow each other along its first axis.
        when: True for the models that the library writes so.
    """

    path: str
    names: tuple[str, ...]
    pattern: str = VECTOR
    part: tuple[int, int] = (0, 1)
    when: Callable[[Any], bool] = _always

    @property
    def stacked(self) -> bool:
        """True if layers are stacked on a first axis of depth."""
        return '{i}' in self.names[0]

    @property
    def axis(self) -> int:
        """Axis of one layer of the parameter that parts are concatenated on."""
        return 0 if self.pattern == TOKENS else -1

    @property
    def layouts(self) -> tuple[str, str]:
        """The pattern of the file's layout and that of ours."""
        theirs, _, ours = self.pattern.partition('->')
        return theirs, ours

    def length(self, axis: str, tensor: np.ndarray) -> int | None:
        """Length of a named axis of a tensor; None if it is misshapen or lacks the axis."""
        axes = self.layouts[0].split()
        known = axis in axes and len(axes) == tensor.ndim
        return tensor.shape[axes.index(axis)] if known else None


Table = tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of published weights.

    Attributes:
        name: name in messages.
        model: class of the models that it holds.
        entries: its table.
        antialias: True if its library resamples position embeddings with antialiasing.
        mlp: nonlinearity of its library's models; None if they differ.
    """

    name: str
    model: type[Model]
    entries: Table
    antialias: bool = True
    mlp: str | None = None

    @functools.cached_property
    def paths(self) -> Mapping[str, Table]:
        """The entries of each parameter by its path."""
        paths: dict[str, Table] = {}
        for entry in self.entries:
            paths[entry.path] = (*paths.get(entry.path, ()), entry)
        return paths


def nested(path: str, name: str, table: Iterable[Entry]) -> Table:
    """Entries under a path of ours and a prefix of the file."""
    return tuple(
        dataclasses.replace(
            entry, path=path + entry.path, names=tuple(name + each for each in entry.names)
        )
        for entry in table
    )  # fmt: skip


def when(when: Callable[[Any], bool], table: Iterable[Entry]) -> Table:
    """Entries that a library writes for some models only."""
    return tuple(dataclasses.replace(entry, when=when) for entry in table)


def modules(
    pattern: str, modules: Mapping[str, str | Sequence[str]], *, bias: str = VECTOR,
    flax: bool = False,
) -> Table:  # fmt: skip
    """Both parameters of modules, which have PyTorch's names and layouts, or flax's.

    Args:
        pattern: layout of the kernels, or `VECTOR` for the scales of norms.
        modules: name of each module in a file by our path; several are parts of one.
        bias: layout of the biases.
        flax: True for flax's names of parameters.
    """
    ours = 'scale' if pattern == VECTOR else 'kernel'
    weight, dot = (ours, '/') if flax else ('weight', '.')
    table: list[Entry] = []
    for path, names in modules.items():
        parts = (names,) if isinstance(names, str) else names
        for own, theirs, layout in ((ours, weight, pattern), ('bias', 'bias', bias)):
            table.append(Entry(f'{path}/{own}', tuple(p + dot + theirs for p in parts), layout))
    return tuple(table)


norms = functools.partial(modules, VECTOR)
denses = functools.partial(modules, 'o i -> i o')
patches = functools.partial(modules, 'o c h w -> (h w c) o')
convolutions = functools.partial(modules, 'o c y x -> y x c o')
one_by_ones = functools.partial(modules, 'o i 1 1 -> i o')
flax_norms = functools.partial(modules, VECTOR, flax=True)
flax_denses = functools.partial(modules, 'i o -> i o', flax=True)


def scales(name: str) -> Table:
    """Both LayerScales of a block; `name` has a place for their number."""
    return tuple(Entry(f'scale_{i}/scale', (name.format(i),)) for i in (1, 2))


def tokens(path: str, *names: str) -> Entry:
    """Learned tokens or positions, [1, n, d] in the file."""
    return Entry(path, names, TOKENS)


def shared(modules: Mapping[str, str]) -> Table:
    """Dense modules that share a tensor, in its order."""
    parts = [(path, names, (i, len(modules))) for i, (path, names) in enumerate(modules.items())]
    return tuple(
        dataclasses.replace(entry, part=part)
        for path, name, part in parts for entry in denses({path: name})
    )  # fmt: skip


def one_layer(path: str, name: str, table: Iterable[Entry]) -> Table:
    """Entries of a stack of one layer, whose tensors have no number in their names."""
    entries = nested(path, name, table)
    return tuple(
        dataclasses.replace(e, pattern=e.pattern.replace('-> ', '-> 1 ')) for e in entries
    )  # fmt: skip
