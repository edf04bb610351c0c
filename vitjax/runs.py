"""A run directory or a file of published weights, opened: what every later step begins with."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from vitjax import pretrained
from vitjax.experiment import Experiment


class Loaded(NamedTuple):
    """A trained model.

    Attributes:
        experiment: its model, preprocessing and class names, and where it came from.
        params: its parameters.
        changes: what was changed to fit the sizes asked for, in the order it was.
    """

    experiment: Experiment
    params: Any
    changes: tuple[Any, ...] = ()


def load(
    path: str | pathlib.Path, *, report: Callable[[Any], object] = print, **sizes: Any
) -> Loaded:
    """Opens a run directory or published weights."""
    changes: list[Any] = []

    def note(change: Any) -> None:
        changes.append(change)
        report(change)

    return Loaded(*pretrained.load(path, report=note, **sizes), tuple(changes))
