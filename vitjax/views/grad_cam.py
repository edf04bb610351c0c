"""grad-cam: which places of a layer are evidence for the class."""

import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import attention as figures
from vitjax.views.seen import MAPS, Drawing, Drawings, NotApplicable, Seen, View, layer_index


def draw(
    seen: Seen, *, layer: int | None = None, at: str | None = None, smooth: bool = True,
    scale: str | None = None,
) -> Drawings:  # fmt: skip
    """Grad-CAM at the trunk's tokens, feature maps, or any path that has patches.

    Args:
        seen: with tokens or feature maps, and their gradients.
        layer: from 1 on; by default the last whose patches reach the answer.
        at: captured path; by default the tokens leaving the blocks, or the last feature maps.
        smooth: interpolate maps over images.
        scale: of colours, `shared` or `each` map's own, as by default: sizes of gradients differ
            from image to image.
    """
    known = [path for path in ('blocks', *reversed(seen.feature_maps())) if path in seen.found]
    if not (at or known):
        raise NotApplicable(f'{seen.kind} has no tokens and no feature maps')
    path = at or known[0]
    values, grads, label = seen.found[path], seen.grads[path], path
    if path.startswith('blocks'):
        if layer is None and seen.trunk.class_token and len(values) > 1:
            layer = len(values) - 1  # patches that leave the last block reach no class token
        index = layer_index(layer, len(values))
        values, grads, label = values[index], grads[index], f'{path}, layer {index + 1}'
    values, grads = (seen.as_maps(x, path) for x in (values, grads))
    maps = np.asarray(gradients.grad_cam(values, grads))
    figure = figures.overlays(
        seen.pictures, {'Grad-CAM': maps}, titles=seen.titles, label='Grad-CAM', smooth=smooth,
        title=f'{label}: {seen.differentiated}', scale=scale or 'each',
    )  # fmt: skip
    yield Drawing('grad_cam', figure, {'maps': maps})


VIEW = View('gradients', draw, f'blocks|{MAPS}', gradients=True)
