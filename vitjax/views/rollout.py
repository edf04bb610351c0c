"""Which patches the answer is made of, and which speak for a class."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as attention_figures
from vitjax.views.seen import CLASS_WEIGHTS, WEIGHTS, NoMeaning, Result, Seen


def rollout(seen: Seen) -> Iterator[Result]:
    """Which patches the answer is made of, through all layers."""
    kinds = {}
    for discard in (0.0, seen.options.discard):
        rolled = None
        if WEIGHTS in seen.found:
            rolled = attention.rollout(seen.found[WEIGHTS], discard=discard)[-1]
        if CLASS_WEIGHTS in seen.found:
            rows = _own_rows(seen, attention.class_rollout(seen.found[CLASS_WEIGHTS], rolled)[-1])
            prefix = 1
        elif rolled is None:
            raise NoMeaning(f'{seen.kind} has no attention')
        else:
            rows, prefix = _answer_rows(seen, rolled), seen.prefix
        label = f'smallest {discard:.0%} discarded' if discard else 'rollout'
        kinds[label] = np.asarray(attention.to_grid(rows, grid=seen.grid, prefix=prefix))
        if rolled is None:
            break  # a convolutional trunk has nothing to discard
    figure = attention_figures.overlays(
        seen.pictures, list(kinds.values()), labels=list(kinds), titles=seen.titles,
        smooth=seen.smooth,
    )  # fmt: skip
    names = ('rollout', 'discarded')
    yield 'rollout', figure, dict(zip(names, kinds.values(), strict=False))


def relevance(seen: Seen) -> Iterator[Result]:
    """Which patches speak for the class: attention weighted by its gradient."""
    trunk = None
    if WEIGHTS in seen.found:
        trunk = attention.relevance(seen.found[WEIGHTS], seen.grads[WEIGHTS])
    if CLASS_WEIGHTS in seen.found:
        weights, grads = seen.found[CLASS_WEIGHTS], seen.grads[CLASS_WEIGHTS]
        rows, prefix = _own_rows(seen, attention.class_relevance(weights, grads, trunk)), 1
    elif trunk is None:
        raise NoMeaning(f'{seen.kind} has no attention; see grad-cam')
    else:
        rows, prefix = _answer_rows(seen, trunk), seen.prefix
    maps = np.asarray(attention.to_grid(rows, grid=seen.grid, prefix=prefix))
    figure = attention_figures.overlays(
        seen.pictures, [maps], labels=['relevance'], titles=seen.titles,
        smooth=seen.smooth,
    )  # fmt: skip
    yield 'relevance', figure, {'maps': maps}


def _answer_rows(seen: Seen, matrix: Any) -> Any:
    """Of [B, N, N], the row that the head reads: the class token's, or the mean of all."""
    return matrix[:, 0] if getattr(seen.model, 'pool', '') == 'class' else matrix.mean(1)


def _own_rows(seen: Seen, rows: Any) -> Any:
    """Of class-attention rows [B, K, 1 + N], the one of the class that is asked about."""
    if rows.shape[1] == 1:
        return rows[:, 0]

    return rows[np.arange(len(rows)), seen.chosen]
