"""field: effective receptive field of the central token of each layer."""

from collections.abc import Sequence

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
    if maps := results.feature_maps():
        titles = [[*maps][i] for i in evenly(len(maps), 6)]
        sides = [maps[path].shape[1:3] for path in titles]
        fields = jnp.concatenate([
            _fields(results, path, height // 2 * width + width // 2)
            for path, (height, width) in zip(titles, sides, strict=True)
        ])  # fmt: skip
    else:
        layers = evenly(len(results.tokens()), 6).tolist()
        fields = _fields(results, 'blocks', results.token(results.centre), layers)
        titles = [f'layer {i + 1}' for i in layers]
    sizes = np.asarray(gradients.field_size(fields))
    figure = figures.receptive_fields(np.asarray(fields), sizes, titles=titles)
    yield Drawing('field', figure, {'fields': fields, 'sizes': sizes})


def _fields(results: Results, path: str, token: int, layers: Sequence[int] = (0,)) -> jax.Array:
    """Receptive fields [layers, H, W] of a token, or of a place of feature maps."""

    def read(images: jax.Array) -> jax.Array:
        found = capture.capture(results.model, results.params, images, keep=path)[1][path]
        return found if path == 'blocks' else found.reshape(1, len(images), -1, found.shape[-1])

    see = jax.jit(lambda x: gradients.receptive_field(read, x, token=token, layers=layers))
    return see(jnp.asarray(results.images))


VIEW = View('gradients', draw, f'blocks|{MAPS}')
