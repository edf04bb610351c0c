"""class-attention: attention of the class-attention layers to the patches."""

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.forward import CLASS_WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """Attention of each head of these layers, and the heads' mean in the first (saliency).

    Arrays are weights; figures show them divided by uniform attention.

    Args:
        results: results with class-attention weights.
            Options: `enlarge`, `scale`.
    """
    if CLASS_WEIGHTS not in results.found:
        raise NotApplicable(f'{results.kind} has no class-attention layers')
    weights = results.found[CLASS_WEIGHTS]
    layers, count, heads, tokens, uniform = weights.shape
    scale = figures.UNIFORM._replace(how=results.options.scale or 'shared')
    who = f"the {results.trunk.reader}'s"
    if tokens > 1:  # a class token per class: those of the likeliest
        top = np.argsort(-results.logits, axis=1)[:, :4]
        rows = np.take_along_axis(np.asarray(weights[-1]).mean(1), top[..., None], 1)
        drawn = maps = _grid(results, rows)
        titles = [[results.answer(i, int(k)) for k in best] for i, best in enumerate(top)]
        title = f"likeliest classes' tokens, class-attention layer {layers}, mean of heads"
        arrays = {'maps': maps, 'classes': top}
        first = np.asarray(weights[0])[np.arange(count), :, results.chosen].mean(1)
        saliency, above = _grid(results, first), results.titles()
    else:
        maps = np.asarray(
            attention.head_maps(
                weights, grid=results.grid, prefix=results.keys_before(weights), query=0
            )
        )
        drawn = np.moveaxis(maps, 0, 1).reshape(count, -1, *results.grid)
        own = [f'layer {i + 1}\n' * (layers > 1) for i in range(layers)]
        titles = [f'{layer}head {h + 1}' for layer in own for h in range(heads)]
        title = f'{who} attention, {layers} class-attention layer' + 's' * (layers > 1)
        arrays, saliency, above = {'maps': maps}, maps[0].mean(1), results.titles(asked=False)
    photographs, names = results.photographs, results.names
    figure = figures.heads(
        photographs, uniform * drawn, scale, title=title, titles=titles, names=names
    )
    yield Drawing('class_attention', figure, arrays)
    title = f'{who} attention, class-attention layer 1 of {layers}, mean of heads'
    figure = figures.overlays(
        photographs, {'saliency': uniform * saliency}, scale, titles=above, title=title,
        smooth=results.options.smooth,
    )  # fmt: skip
    yield Drawing('saliency', figure, {'maps': saliency})


def _grid(results: Results, rows: np.ndarray) -> np.ndarray:
    return np.asarray(attention.to_grid(jnp.asarray(rows), grid=results.grid))


VIEW = View('attention', draw, CLASS_WEIGHTS)
