"""class-attention: attention of the class-attention layers to the patches."""

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.figures.attention import UNIFORM
from vitjax.views.forward import CLASS_WEIGHTS, Results
from vitjax.views.view import Drawing, Drawings, NotApplicable, View


def draw(results: Results, *, smooth: bool = True, scale: str | None = None) -> Drawings:
    """Attention of each head of these layers, and the heads' mean in the first (saliency).

    Arrays are weights; figures show them divided by uniform attention.

    Args:
        results: results with class-attention weights.
        smooth: interpolate maps over images.
        scale: scale of colours, `shared` or `each` map's own; by default `shared`.
    """
    if CLASS_WEIGHTS not in results.found:
        raise NotApplicable(f'{results.kind} has no class-attention layers')
    weights = results.found[CLASS_WEIGHTS]
    layers, count, heads, tokens, uniform = weights.shape
    look = UNIFORM._replace(how=scale or 'shared')
    if tokens > 1:  # a class token per class: those of the likeliest
        top = np.argsort(-results.logits, axis=1)[:, :4]
        rows = np.take_along_axis(np.asarray(weights[-1]).mean(1), top[..., None], 1)
        maps = np.asarray(attention.to_grid(jnp.asarray(rows), grid=results.grid))
        titles = [[results.answer(i, int(k)) for k in best] for i, best in enumerate(top)]
        title = f"likeliest classes' tokens, class-attention layer {layers} of {layers}"
        figure = figures.heads(
            results.pictures, uniform * maps, look, title=title + ', mean of heads', titles=titles
        )
        yield Drawing('class_attention', figure, {'maps': maps, 'classes': top})
        first = np.asarray(weights[0])[np.arange(count), :, results.chosen].mean(1)
        saliency = np.asarray(attention.to_grid(jnp.asarray(first), grid=results.grid))
    else:
        maps = np.asarray(attention.head_maps(weights, grid=results.grid, prefix=1, query=0))
        titles = [f'head {h + 1}' for h in range(heads)]
        if layers > 1:
            titles = [f'layer {i + 1}\n{title}' for i in range(layers) for title in titles]
        flat = np.moveaxis(maps, 0, 1).reshape(count, -1, *results.grid)
        title = f"the class token's attention, {layers} class-attention layer" + 's' * (layers > 1)
        figure = figures.heads(results.pictures, uniform * flat, look, title=title, titles=titles)
        yield Drawing('class_attention', figure, {'maps': maps})
        saliency = maps[0].mean(1)
    title = f"the class token's attention, class-attention layer 1 of {layers}, mean of heads"
    titles = results.titles if tokens > 1 else results.answers
    figure = figures.overlays(
        results.pictures, {'saliency': uniform * saliency}, look, titles=titles, smooth=smooth,
        title=title,
    )  # fmt: skip
    yield Drawing('saliency', figure, {'maps': saliency})


VIEW = View('attention', draw, CLASS_WEIGHTS)
