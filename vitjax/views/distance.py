"""distance: how far heads attend, and how evenly."""

import functools
import math

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import WEIGHTS, Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """Mean attention distance and entropy of each head, by layer.

    Args:
        seen: with the trunk's attention weights.
    """
    weights = seen.trunk_weights()
    assert seen.trunk.patch_size is not None  # attention is between patches
    distances = functools.partial(
        attention.mean_distance, weights,
        grid=seen.grid, prefix=seen.trunk.prefix, patch_size=seen.trunk.patch_size,
    )  # fmt: skip
    far, scaled = distances().mean(1), distances(renormalize=True).mean(1)
    entropy = attention.entropy(weights).mean(1)
    largest = math.log(weights.shape[-1])
    figure = figures.distances(np.asarray(far), np.asarray(entropy), largest=largest)
    arrays = {'distance': far, 'renormalized': scaled, 'entropy': entropy}
    yield Drawing('distance', figure, arrays)


VIEW = View('attention', draw, WEIGHTS)
