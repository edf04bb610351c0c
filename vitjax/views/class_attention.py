"""class-attention: what the class-attention layers read of the patches."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import (
    CLASS_WEIGHTS,
    DIM,
    UNIFORM,
    Drawing,
    Drawings,
    NotApplicable,
    Seen,
    View,
)


def draw(seen: Seen, *, smooth: bool = True, scale: str | None = None) -> Drawings:
    """What each head of these layers reads, and the heads' mean in the first (saliency).

    Arrays are weights; figures show them over those of uniform attention.

    Args:
        seen: with class-attention weights.
        smooth: interpolate maps over images.
        scale: of colours, `shared`, as by default, or `each` map's own.
    """
    if CLASS_WEIGHTS not in seen.found:
        raise NotApplicable(f'{seen.kind} has no class-attention layers')
    weights = seen.found[CLASS_WEIGHTS]
    layers, count, heads, tokens, uniform = weights.shape
    look: Any = {'label': UNIFORM, 'scale': scale or 'shared', 'least': DIM}
    if tokens > 1:  # one class token for each class: those of the likeliest
        top = np.argsort(-seen.logits, axis=1)[:, :4]
        rows = np.take_along_axis(np.asarray(weights[-1]).mean(1), top[..., None], 1)
        maps = np.asarray(attention.to_grid(jnp.asarray(rows), grid=seen.grid))
        titles = [[seen.answer(image, int(k)) for k in of] for image, of in enumerate(top)]
        title = f"likeliest classes' tokens, class-attention layer {layers} of {layers}"
        figure = figures.heads(
            seen.pictures, uniform * maps, title=title + ', mean of heads', titles=titles, **look
        )
        yield Drawing('class_attention', figure, {'maps': maps, 'classes': top})
        first = np.asarray(weights[0])[np.arange(count), :, seen.chosen].mean(1)
        saliency = np.asarray(attention.to_grid(jnp.asarray(first), grid=seen.grid))
    else:
        maps = np.asarray(attention.head_maps(weights, grid=seen.grid, prefix=1, query=0))
        titles = [f'head {h + 1}' for h in range(heads)]
        if layers > 1:
            titles = [f'layer {i + 1}\n{title}' for i in range(layers) for title in titles]
        flat = np.moveaxis(maps, 0, 1).reshape(count, -1, *seen.grid)
        title = f"the class token's attention, {layers} class-attention layer" + 's' * (layers > 1)
        figure = figures.heads(seen.pictures, uniform * flat, title=title, titles=titles, **look)
        yield Drawing('class_attention', figure, {'maps': maps})
        saliency = maps[0].mean(1)
    title = f"the class token's attention, class-attention layer 1 of {layers}, mean of heads"
    titles = seen.titles if tokens > 1 else seen.answers
    figure = figures.overlays(
        seen.pictures, {'saliency': uniform * saliency}, titles=titles, smooth=smooth, title=title,
        **look,
    )  # fmt: skip
    yield Drawing('saliency', figure, {'maps': saliency})


VIEW = View('attention', draw, CLASS_WEIGHTS)
