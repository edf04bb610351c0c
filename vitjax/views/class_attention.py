"""class-attention: what the class-attention layers read of the patches."""

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, Drawing, Drawings, NotApplicable, Seen, View


def draw(seen: Seen, *, smooth: bool = True) -> Drawings:
    """What each head of these layers reads, and the saliency of the first layer.

    Args:
        seen: with class-attention weights.
        smooth: interpolate maps over images.
    """
    if CLASS_WEIGHTS not in seen.found:
        raise NotApplicable(f'{seen.kind} has no class-attention layers')
    weights = seen.found[CLASS_WEIGHTS]
    layers, _, heads, tokens, _ = weights.shape
    if tokens > 1:  # one class token for each class: those of the likeliest
        top = np.argsort(-seen.logits, axis=1)[:, :4]
        rows = np.take_along_axis(np.asarray(weights[-1]).mean(1), top[..., None], 1)
        maps = np.asarray(attention.to_grid(jnp.asarray(rows), grid=seen.grid))
        titles = ['1st class', '2nd class', '3rd class', '4th class']
        figure = figures.heads(seen.pictures, maps, titles=titles)
        yield Drawing('class_attention', figure, {'maps': maps, 'classes': top})
        each = [attention.saliency(weights, grid=seen.grid, token=int(k)) for k in top[:, 0]]
        saliency = np.stack([maps[image] for image, maps in enumerate(each)])
    else:
        maps = np.asarray(attention.head_maps(weights, grid=seen.grid, prefix=1, query=0))
        titles = [f'head {h + 1}' for h in range(heads)]
        if layers > 1:
            titles = [f'layer {i + 1}\n{title}' for i in range(layers) for title in titles]
        flat = np.moveaxis(maps, 0, 1).reshape(len(seen.pixels), -1, *seen.grid)
        figure = figures.heads(seen.pictures, flat, titles=titles)
        yield Drawing('class_attention', figure, {'maps': maps})
        saliency = np.asarray(attention.saliency(weights, grid=seen.grid))
    maps = {'saliency': saliency}
    figure = figures.overlays(seen.pictures, maps, titles=seen.titles, smooth=smooth)
    yield Drawing('saliency', figure, {'maps': saliency})


VIEW = View('attention', draw, CLASS_WEIGHTS)
