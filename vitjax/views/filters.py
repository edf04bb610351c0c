"""What the first layer looks for."""

import math
from collections.abc import Iterator

import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import gradients as gradient_figures
from vitjax.views.seen import (
    Result,
    Seen,
)


def filters(seen: Seen) -> Iterator[Result]:
    """What the first layer looks for."""
    embed = seen.params.get('embed', {})
    if 'patch' in embed:
        kernel = embed['patch']['projection']['kernel']
        size = seen.model.patch_size
        kernel, name = kernel.reshape(size, size, 3, -1), 'patch embedding'
    elif 'conv_1' in embed:
        kernel, name = embed['conv_1']['kernel'], "the stem's first convolution"
    else:
        name = f'conv_{seen.layer(len(seen.feature_maps())) + 1 if seen.options.layer else 1}'
        kernel = seen.params[name]['conv']['kernel']
    pictures = gradients.filters(kernel)
    components = None
    if kernel.shape[2] == 3:
        side = min(6, math.isqrt(min(kernel.shape[3], kernel[..., 0].size)))
        components = gradients.filter_components(kernel, side**2)
    title = f'{name}: {kernel.shape[3]} filters of {kernel.shape[0]}x{kernel.shape[1]}'
    if kernel.shape[2] == 3 and kernel.shape[3] > 64:
        title += ', the first 64'
    elif kernel.shape[2] != 3:
        title += '\n(one a row, input channels across, the first 16 of each)'
    figure = gradient_figures.filters(
        np.asarray(pictures), None if components is None else np.asarray(components), title=title
    )
    arrays = {'filters': pictures} | ({} if components is None else {'components': components})
    yield 'filters', figure, arrays
