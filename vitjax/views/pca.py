"""pca: the first three principal components of patch features as colors (Oquab et al. 2023)."""

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis.components import components
from vitjax.figures import overview as figures
from vitjax.views.forward import MAPS, Layer, Results
from vitjax.views.view import Drawing, Drawn, View


def of_layer(results: Results) -> tuple[np.ndarray, np.ndarray, str]:
    """Components of a layer's patches over all images, by default the last layer's.

    Returns:
        components [B, rows, columns, 3], their fractions of the variance, and the layer's name.
    """
    maps = [Layer(path) for path in results.feature_maps()]
    layers = maps or [Layer('blocks', index) for index in range(len(results.tokens()))]
    layer = layers[results.layer(len(layers))]
    values = results.as_maps(layer)
    projected, fractions = jax.jit(components)(values.reshape(len(values), -1, values.shape[-1]))
    return np.asarray(projected.reshape(*values.shape[:3], 3)), np.asarray(fractions), layer.label


def draw(results: Results) -> Drawn:
    """Patches whose features are alike have the same color, in all images.

    Args:
        results: results with the trunk's tokens, or feature maps.
            Options: `layer`, `enlarge`.
    """
    projected, fractions, label = of_layer(results)
    shares = ', '.join(f'{fraction:.0%}' for fraction in fractions)
    figure = figures.features(
        results.photographs, projected, names=results.names, smooth=results.options.smooth,
        title=f'principal components 1 to 3 of the patches as red, green and blue, {label}; '
        f'{shares} of the variance',
    )  # fmt: skip
    yield Drawing('pca', figure, {'components': projected, 'variance': jnp.asarray(fractions)})


VIEW = View('tokens', draw, f'blocks|{MAPS}')
