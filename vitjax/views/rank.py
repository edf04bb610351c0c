"""How many directions tokens use, and how alike they become."""

from collections.abc import Iterator

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as token_figures
from vitjax.views.seen import Result, Seen


def rank(seen: Seen) -> Iterator[Result]:
    """How many directions tokens use, and how alike they become."""
    maps = seen.feature_maps()
    if maps:
        layers = [m.reshape(m.shape[0], -1, m.shape[-1]) for m in maps.values()]
    else:
        layers = list(seen.tokens()[:, :, seen.prefix :])
    of_rank, of_cosine = jax.jit(tokens.effective_rank), jax.jit(tokens.patch_cosine)
    ranks = np.stack([of_rank(t) for t in layers])
    cosines = np.stack([of_cosine(t) for t in layers])
    figure = token_figures.over_depth(
        [ranks, cosines],
        titles=['effective rank of the patches', 'mean cosine between patches'],
        ylabels=['rank', 'cosine'],
        labels=seen.names,
        layers=tuple(maps),
    )
    yield 'rank', figure, {'effective_rank': ranks, 'patch_cosine': cosines}
