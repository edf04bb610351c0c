"""Where a layer speaks for the class."""

from collections.abc import Iterator

import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import attention as attention_figures
from vitjax.views.seen import Result, Seen


def grad_cam(seen: Seen) -> Iterator[Result]:
    """Where a layer speaks for the class."""
    path = seen.options.at or (
        'blocks' if 'blocks' in seen.found else list(seen.feature_maps())[-1]
    )
    if path not in seen.found:
        raise ValueError(f'--at must be one captured path: {path!r} is none.')
    values, grads = seen.found[path], seen.grads[path]
    label = path
    if path.startswith('blocks'):
        depth = len(values)
        # The last patches that a class token reads are those entering the last block.
        last = depth - 2 if getattr(seen.model, 'pool', '') == 'class' and depth > 1 else depth - 1
        layer = last if seen.options.layer is None else seen.layer(depth)
        values, grads, label = values[layer], grads[layer], f'{path}, layer {layer + 1}'
    if values.ndim == 3 and values.shape[1] == seen.prefix + seen.grid[0] * seen.grid[1]:
        values, grads = (
            x[:, seen.prefix :].reshape(len(x), *seen.grid, -1) for x in (values, grads)
        )
    if values.ndim != 4:
        raise ValueError(f'--at must have tokens or feature maps: {path} is {list(values.shape)}.')
    maps = gradients.grad_cam(values, grads)
    figure = attention_figures.overlays(
        seen.pictures, [np.asarray(maps)], labels=[f'Grad-CAM\n{label}'],
        titles=seen.titles, smooth=seen.smooth,
    )  # fmt: skip
    yield 'grad_cam', figure, {'maps': maps}
