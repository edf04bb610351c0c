"""field: the pixels that the centre of each layer sees."""

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis import gradients
from vitjax.figures import gradients as figures
from vitjax.figures.panels import some
from vitjax.inside import capture
from vitjax.views.seen import MAPS, Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """Effective receptive fields of six layers, and their sizes.

    Args:
        seen: with the trunk's tokens, or feature maps.
    """
    model, params, images = seen.model, seen.params, jnp.asarray(seen.images)
    if maps := seen.feature_maps():
        fields, titles = [], [list(maps)[i] for i in some(len(maps), 6)]
        for path in titles:
            height, width = maps[path].shape[1:3]
            centre = height // 2 * width + width // 2

            def flat(x: jax.Array, path: str = path) -> jax.Array:
                found = capture.capture(model, params, x, keep=path)[1][path]
                return found.reshape(1, len(x), -1, found.shape[-1])

            fields.append(gradients.receptive_field(flat, images, token=centre, layers=(0,))[0])
        fields = jnp.stack(fields)
    else:
        layers, centre = some(len(seen.tokens()), 6), seen.token(seen.centre)

        def forward(x: jax.Array) -> jax.Array:
            return capture.capture(model, params, x, keep='blocks')[1]['blocks']

        see = jax.jit(lambda x: gradients.receptive_field(forward, x, token=centre, layers=layers))
        fields, titles = see(images), [f'layer {i + 1}' for i in layers]
    sizes = np.asarray(gradients.field_size(fields))
    figure = figures.receptive_fields(np.asarray(fields), sizes, titles=titles)
    yield Drawing('field', figure, {'fields': fields, 'sizes': sizes})


VIEW = View('gradients', draw, f'blocks|{MAPS}')
