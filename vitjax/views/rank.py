"""rank: how many directions patch tokens span, and how alike they become."""

from collections.abc import Iterator

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.seen import MAPS, Drawing, Seen, View


def draw(seen: Seen) -> Iterator[Drawing]:
    """The patches' effective rank and mean cosine, by layer.

    Args:
        seen: with the trunk's tokens, or feature maps.
    """
    maps = seen.feature_maps()
    if maps:
        layers = [m.reshape(m.shape[0], -1, m.shape[-1]) for m in maps.values()]
    else:
        layers = list(seen.patches())
    of_rank, of_cosine = jax.jit(tokens.effective_rank), jax.jit(tokens.patch_cosine)
    ranks = np.stack([of_rank(t) for t in layers])
    cosines = np.stack([of_cosine(t) for t in layers])
    figure = figures.over_depth(
        [ranks, cosines],
        titles=['effective rank of the patches', 'mean cosine between patches'],
        ylabels=['rank', 'cosine'],
        labels=seen.names,
        layers=tuple(maps),
    )
    yield Drawing('rank', figure, {'effective_rank': ranks, 'patch_cosine': cosines})


VIEW = View('tokens', draw, f'blocks|{MAPS}')
