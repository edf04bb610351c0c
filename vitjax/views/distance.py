"""How far heads look, and how evenly."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as attention_figures
from vitjax.views.seen import Result, Seen


def distance(seen: Seen) -> Iterator[Result]:
    """How far heads look, and how evenly."""
    weights = seen.trunk_weights()
    options: Any = {
        'grid': seen.grid, 'prefix': seen.prefix, 'patch_size': seen.model.patch_size
    }  # fmt: skip
    far = attention.mean_distance(weights, **options).mean(1)
    scaled = attention.mean_distance(weights, renormalize=True, **options).mean(1)
    entropy = attention.entropy(weights).mean(1)
    figure = attention_figures.distances(
        np.asarray(far), np.asarray(entropy), largest=float(np.log(weights.shape[-1]))
    )
    yield 'distance', figure, {'distance': far, 'renormalized': scaled, 'entropy': entropy}
