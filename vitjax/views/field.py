"""field: effective receptive field of the central token of each layer."""

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis import gradients
from vitjax.data.order import evenly
from vitjax.figures import gradients as figures
from vitjax.inside import capture
from vitjax.views.forward import MAPS, Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Effective receptive fields of six layers, and their sizes.

    Args:
        results: results with the trunk's tokens, or feature maps.
    """
    model, params, images = results.model, results.params, jnp.asarray(results.images)
    if maps := results.feature_maps():
        fields, titles = [], [list(maps)[i] for i in evenly(len(maps), 6)]
        for path in titles:
            height, width = maps[path].shape[1:3]
            centre = height // 2 * width + width // 2

            def flat(x: jax.Array, path: str = path) -> jax.Array:
                found = capture.capture(model, params, x, keep=path)[1][path]
                return found.reshape(1, len(x), -1, found.shape[-1])

            fields.append(gradients.receptive_field(flat, images, token=centre, layers=(0,))[0])
        fields = jnp.stack(fields)
    else:
        layers, centre = evenly(len(results.tokens()), 6).tolist(), results.token(results.centre)

        def blocks(x: jax.Array) -> jax.Array:
            return capture.capture(model, params, x, keep='blocks')[1]['blocks']

        see = jax.jit(lambda x: gradients.receptive_field(blocks, x, token=centre, layers=layers))
        fields, titles = see(images), [f'layer {i + 1}' for i in layers]
    sizes = np.asarray(gradients.field_size(fields))
    figure = figures.receptive_fields(np.asarray(fields), sizes, titles=titles)
    yield Drawing('field', figure, {'fields': fields, 'sizes': sizes})


VIEW = View('gradients', draw, f'blocks|{MAPS}')
