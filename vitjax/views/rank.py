"""rank: effective rank of patch tokens, and their mean cosine."""

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.forward import MAPS, Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Effective rank of the patches and their mean cosine, by layer.

    Args:
        results: results with the trunk's tokens, or feature maps.
    """
    maps = results.feature_maps()
    layers = [m.reshape(len(m), -1, m.shape[-1]) for m in maps.values()] or results.patches()
    ranks = np.stack([*map(jax.jit(tokens.effective_rank), layers)])
    cosines = np.stack([*map(jax.jit(tokens.patch_cosine), layers)])
    values = {
        'effective rank of the patches': ('rank', ranks),
        'mean cosine between patches': ('cosine', cosines),
    }
    figure = figures.over_depth(values, labels=results.names, layers=tuple(maps))
    yield Drawing('rank', figure, {'effective_rank': ranks, 'patch_cosine': cosines})


VIEW = View('tokens', draw, f'blocks|{MAPS}')
