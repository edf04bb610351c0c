"""grad-cam: places of a layer that are evidence for the class."""

import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import attention as figures
from vitjax.figures.panels import Scale
from vitjax.views.forward import MAPS, Results, layer_index
from vitjax.views.view import Drawing, Drawings, NotApplicable, View


def draw(
    results: Results, *, layer: int | None = None, at: str | None = None, smooth: bool = True,
    scale: str | None = None,
) -> Drawings:  # fmt: skip
    """Grad-CAM at the trunk's tokens, feature maps, or any path that has patches.

    Args:
        results: results with tokens or feature maps, and their gradients.
        layer: layer, from 1; by default the last whose patches reach the prediction.
        at: captured path; by default the tokens leaving the blocks, or the last feature maps.
        smooth: interpolate maps over images.
        scale: scale of colours, `shared` or `each` map's own; by default `each`: sizes of gradients
            differ from image to image.
    """
    known = [
        path for path in ('blocks', *reversed(results.feature_maps())) if path in results.found
    ]
    if not (at or known):
        raise NotApplicable(f'{results.kind} has no tokens and no feature maps')
    path = at or known[0]
    values, grads, label = results.found[path], results.grads[path], path
    if path.startswith('blocks'):
        if layer is None and results.trunk.class_token and len(values) > 1:
            layer = len(values) - 1  # patches that leave the last block reach no class token
        index = layer_index(layer, len(values))
        values, grads, label = values[index], grads[index], f'{path}, layer {index + 1}'
    values, grads = (results.as_maps(x, path) for x in (values, grads))
    maps = np.asarray(gradients.grad_cam(values, grads))
    figure = figures.overlays(
        results.pictures, {'Grad-CAM': maps}, Scale('Grad-CAM', scale or 'each'),
        titles=results.titles, smooth=smooth, title=f'{label}: {results.differentiated}',
    )  # fmt: skip
    yield Drawing('grad_cam', figure, {'maps': maps})


VIEW = View('gradients', draw, f'blocks|{MAPS}', gradients=True)
