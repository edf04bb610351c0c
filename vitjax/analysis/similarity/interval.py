"""Confidence intervals of minibatch CKA over its batches."""

from collections.abc import Sequence

import numpy as np
import scipy.stats

from vitjax.analysis import effects
from vitjax.analysis.similarity.cka import Hsic


def bootstrap(
    parts: Sequence[Hsic], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval `(low, high)` of CKA over batches, each [Lx, Ly].

    From 20 batches on: expanded percentiles of CKA over batches drawn with replacement (Efron 1979;
    Hesterberg 2015, section 4.5). With fewer batches: the jackknife over batches (Efron and Stein
    1981) with Student's quantile. It covers 94% to 96% from 2 batches on; percentiles cover 53%
    with 2 and 88% with 8. Cost: resamples x batches x pairs. Memory: four bytes per pair and batch,
    as in `parts`.

    Args:
        parts: `hsic` of each batch.
        level: probability that the interval holds the true value, 0 to 1.
        resamples: number of draws.
        seed: seed of the draws.

    Raises:
        ValueError: if there are fewer than two batches, which have no spread.
    """
    count = len(parts)
    if count < 2:
        raise ValueError(f'an interval needs two batches or more: got {count}.')
    hosts = [part.on_host() for part in parts]
    if few := count < effects.FEW:  # each batch left out once
        draws = 1.0 - np.eye(count)
    else:
        share = np.full(count, 1 / count)
        draws = np.random.default_rng(seed).multinomial(count, share, resamples).astype(float)
    draws = np.concatenate([np.ones((1, count)), draws])
    xx = draws @ np.stack([part.xx for part in hosts])
    yy = draws @ np.stack([part.yy for part in hosts])
    low, high = np.empty((2, xx.shape[1], yy.shape[1]))
    quantile = scipy.stats.t.ppf((1 + level) / 2, count - 1)
    for i in range(xx.shape[1]):
        values = draws @ np.stack([part.xy[i] for part in hosts])
        values /= np.sqrt(xx[:, i, None]) * np.sqrt(yy)
        whole, drawn = values[0], values[1:]
        if few:
            half = quantile * np.sqrt((count - 1) * drawn.var(0))
            low[i], high[i] = whole - half, np.minimum(whole + half, 1)
        else:
            low[i], high[i] = np.quantile(drawn, effects.expanded(count, level), axis=0)
    return low, high
