"""The pixels that each layer sees."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import capture
from vitjax.analysis import gradients
from vitjax.figures import gradients as gradient_figures
from vitjax.figures.panels import some
from vitjax.views.seen import Result, Seen


def field(seen: Seen) -> Iterator[Result]:
    """The pixels that the centre of each layer sees."""
    images, maps = seen.images, seen.feature_maps()
    if maps:
        fields, titles = [], []
        for path in [list(maps)[i] for i in some(len(maps), 6)]:
            height, width = maps[path].shape[1:3]
            centre = height // 2 * width + width // 2

            def flat(x: Any, path: str = path) -> Any:
                found = capture.capture(seen.model, seen.params, x, keep=path)[1][path]
                return found.reshape(1, len(x), -1, found.shape[-1])

            fields.append(gradients.receptive_field(flat, images, token=centre, layers=(0,))[0])
            titles.append(path)
        fields = jnp.stack(fields)
    else:
        layers = some(len(seen.tokens()), 6)
        centre = seen.prefix + seen.centre[0] * seen.grid[1] + seen.centre[1]

        def forward(x: Any) -> Any:
            return capture.capture(seen.model, seen.params, x, keep='blocks')[1]['blocks']

        see = jax.jit(lambda x: gradients.receptive_field(forward, x, token=centre, layers=layers))
        fields = see(images)
        titles = [f'layer {i + 1}' for i in layers]
    sizes = np.asarray(gradients.field_size(fields))
    figure = gradient_figures.receptive_fields(np.asarray(fields), sizes, titles=titles)
    yield 'field', figure, {'fields': fields, 'sizes': sizes}
