"""grad-cam: places of a layer that are evidence for the class."""

import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import attention as figures
from vitjax.figures.panels import Scale
from vitjax.views.forward import MAPS, Layer, Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """Grad-CAM at the trunk's tokens, feature maps, or each chosen path that has patches.

    Args:
        results: results with tokens or feature maps, and their gradients.
            Options: `layer`, `at`, `enlarge`, `scale`.
    """
    known = [p for p in ('blocks', *reversed(results.feature_maps())) if p in results.found]
    if not (results.at or known):
        raise NotApplicable(f'{results.kind} has no tokens and no feature maps')
    layers = [_layer(results, path) for path in results.at or known[:1]]
    layers = [*filter(results.has_patches, layers)] or layers
    for layer in layers:
        values, grads = (results.as_maps(layer, each) for each in (results.found, results.grads))
        maps = np.asarray(gradients.grad_cam(values, grads))
        titles = [
            title + '\nnothing is positive' * (not own.any())
            for title, own in zip(results.titles(), maps, strict=True)
        ]
        figure = figures.overlays(
            results.photographs, {'Grad-CAM': maps},
            Scale('Grad-CAM', results.options.scale or 'each'), titles=titles,
            title=f'{layer.label}: {results.differentiated}', smooth=results.options.smooth,
        )  # fmt: skip
        name = f'grad_cam_{layer.stem}' if len(layers) > 1 else 'grad_cam'
        yield Drawing(name, figure, {'maps': maps})


def _layer(results: Results, path: str) -> Layer:
    """The layer of a path that the user counts from 1; by default the last that matters."""
    layers = results.layers(path)
    # Patches that leave the last block reach no class token.
    unread = len(layers) > 1 and results.trunk.class_token
    return layers[-2 if unread else -1]


VIEW = View('gradients', draw, f'blocks|{MAPS}', gradients=True)
