"""Lengths of patch tokens, where outliers show."""

from collections.abc import Iterator

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as token_figures
from vitjax.figures.panels import some
from vitjax.views.seen import Result, Seen


def norms(seen: Seen) -> Iterator[Result]:
    """Lengths of patch tokens, where outliers show."""
    blocks = seen.tokens()[:, :, seen.prefix :]
    length = np.asarray(tokens.norms(blocks))
    layers = some(len(blocks), 3)
    maps = length[layers].reshape(len(layers), -1, *seen.grid)
    yield 'norms', token_figures.norms(seen.pictures, maps, layers=layers), {'norms': length}
