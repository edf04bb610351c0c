"""distance: mean distance and entropy of the attention of heads."""

import functools
import math

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.forward import WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """Mean attention distance and entropy of each head, by layer.

    Args:
        results: results with the trunk's attention weights.
    """
    weights, patch_size = results.trunk_weights(), results.trunk.patch_size
    if patch_size is None:
        raise NotApplicable(f'{results.kind} has no patches between which heads attend')
    distances = functools.partial(
        attention.mean_distance, weights,
        grid=results.grid, prefix=results.trunk.prefix, patch_size=patch_size,
    )  # fmt: skip
    far, scaled = distances().mean(1), distances(renormalize=True).mean(1)
    entropy = attention.entropy(weights).mean(1)
    largest = math.log(weights.shape[-1])
    figure = figures.distances(np.asarray(far), np.asarray(entropy), largest=largest)
    arrays = {'distance': far, 'renormalized': scaled, 'entropy': entropy}
    yield Drawing('distance', figure, arrays)


VIEW = View('attention', draw, WEIGHTS)
