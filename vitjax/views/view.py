"""Protocol of a view: its drawings, what it reads, and its refusal of a model."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from vitjax.base.types import Array
from vitjax.figures.figure import Figure


class NotApplicable(Exception):
    """A view does not apply to a model; the message is the reason, in one line."""


class Drawing(NamedTuple):
    """One figure of a view, and the arrays that it shows.

    Attributes:
        name: stem of its files, such as `heads_by_layer`.
        figure: a figure; a list of figures is an animation, a string a page of HTML.
        arrays: arrays by name.
    """

    name: str
    figure: Figure | list[Figure] | str
    arrays: Mapping[str, Array]


Drawings = Iterator[Drawing]


class View(NamedTuple):
    """One view; each file of this package defines one as `VIEW`.

    Attributes:
        group: `attention`, `tokens`, `gradients` or `page`.
        draw: maps `Results` to drawings; its keyword-only arguments are the view's options.
        keep: regular expression of the captured paths that it reads; empty for a view of
            parameters or pixels alone.
        gradients: True if it also reads the target's gradients at those paths.
    """

    group: str
    draw: Callable[..., Drawings]
    keep: str = ''
    gradients: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the view's options."""
        parameters = inspect.signature(self.draw).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
