"""filters: the first layer's filters."""

import math

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import gradients as figures
from vitjax.views.examples import grey
from vitjax.views.forward import MAPS, Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """Filters of the first layer, with their principal components if they are in colour.

    Args:
        results: any results; only parameters are read.
            Options: `layer`.
    """
    embed = results.params.get('embed', {})
    if 'patch' in embed:
        kernel = embed['patch']['projection']['kernel']
        size = math.isqrt(len(kernel) // 3)
        kernel, name = kernel.reshape(size, size, 3, -1), 'patch embedding'
    elif 'conv_1' in embed:
        kernel, name = embed['conv_1']['kernel'], "the stem's first convolution"
    elif maps := [*results.feature_maps()]:
        name = maps[results.layer(len(maps), default=0)]
        kernel = results.params[name]['conv']['kernel']
    else:
        raise NotApplicable(f'{results.kind} has no filters at embed/patch, embed/conv_1 or conv_1')
    height, width, channels, count = kernel.shape
    title = f'{name}: {count} filters of {height}x{width}'
    in_colour = channels == 3
    if in_colour and grey(results):  # the filter of pixels with equal channels
        deviation = jnp.asarray(results.preprocessing.deviation)
        kernel = (kernel / deviation[:, None]).sum(2, keepdims=True)
        title += ', of grey images'
    pictures, components = gradients.filters(kernel), None
    if in_colour:
        side = min(6, math.isqrt(min(count, math.prod(kernel.shape[:3]))))
        components = gradients.filter_components(kernel, side**2)
        if kernel.shape[2] == 1:
            pictures, components = pictures[:, 0], components[..., 0]
        components = np.asarray(components)
        title += ', the first 64' if count > 64 else ''
    else:
        title += '\n(one a row, input channels across, the first 16 of each)'
    figure = figures.filters(np.asarray(pictures), components, title=title)
    arrays = {'filters': pictures} | ({} if components is None else {'components': components})
    yield Drawing('filters', figure, arrays)


VIEW = View('gradients', draw, MAPS)
