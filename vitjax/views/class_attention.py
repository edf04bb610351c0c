"""What the class-attention layers read."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as attention_figures
from vitjax.views.seen import Result, Seen


def class_attention(seen: Seen) -> Iterator[Result]:
    """What the class-attention layers read, per head, and the saliency of the first."""
    weights = seen.class_weights()
    layers, _, count, classes, _ = weights.shape
    if classes > 1:  # one class token per class: draw those of the likeliest
        top = np.argsort(-np.asarray(seen.logits), axis=1)[:, :4]
        rows = np.take_along_axis(np.asarray(weights[-1]).mean(1), top[..., None], 1)
        maps = np.asarray(attention.to_grid(jnp.asarray(rows), grid=seen.grid))
        titles = [f'{rank} class' for rank in ('1st', '2nd', '3rd', '4th')]
        figure = attention_figures.heads(seen.pictures, maps, titles=titles)
        yield 'class_attention', figure, {'maps': maps, 'classes': top}
        each = [attention.saliency(weights, grid=seen.grid, token=int(k)) for k in top[:, 0]]
        saliency = np.stack([maps[image] for image, maps in enumerate(each)])
    else:
        maps = np.asarray(attention.head_maps(weights, grid=seen.grid, prefix=1, query=0))
        titles = [f'head {h + 1}' for h in range(count)]
        if layers > 1:
            titles = [f'layer {i + 1}\n{title}' for i in range(layers) for title in titles]
        flat = np.moveaxis(maps, 0, 1).reshape(len(seen.pixels), -1, *seen.grid)
        figure = attention_figures.heads(seen.pictures, flat, titles=titles)
        yield 'class_attention', figure, {'maps': maps}
        saliency = np.asarray(attention.saliency(weights, grid=seen.grid))
    figure = attention_figures.overlays(
        seen.pictures, [saliency], labels=['saliency'], titles=seen.titles, smooth=seen.smooth
    )
    yield 'saliency', figure, {'maps': saliency}
