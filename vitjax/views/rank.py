"""rank: how many directions patch tokens span, and how alike they become."""

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.seen import MAPS, Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """The patches' effective rank and mean cosine, by layer.

    Args:
        seen: with the trunk's tokens, or feature maps.
    """
    maps = seen.feature_maps()
    layers = [m.reshape(len(m), -1, m.shape[-1]) for m in maps.values()] or seen.patches()
    ranks = np.stack([*map(jax.jit(tokens.effective_rank), layers)])
    cosines = np.stack([*map(jax.jit(tokens.patch_cosine), layers)])
    values = {
        'effective rank of the patches': ('rank', ranks),
        'mean cosine between patches': ('cosine', cosines),
    }
    figure = figures.over_depth(values, labels=seen.names, layers=tuple(maps))
    yield Drawing('rank', figure, {'effective_rank': ranks, 'patch_cosine': cosines})


VIEW = View('tokens', draw, f'blocks|{MAPS}')
