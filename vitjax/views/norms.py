"""norms: lengths of patch tokens, which show outliers."""

import numpy as np

from vitjax.analysis import tokens
from vitjax.data.order import evenly
from vitjax.figures import tokens as figures
from vitjax.views.forward import Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Norms over the image at three layers, and their histogram at the last.

    Args:
        results: results with the trunk's tokens.
    """
    length = np.asarray(tokens.norms(results.patches()))
    layers = evenly(len(length), 3).tolist()
    maps = length[layers].reshape(len(layers), -1, *results.grid)
    figure = figures.norms(results.photographs, maps, layers=layers, names=results.names)
    yield Drawing('norms', figure, {'norms': length})


VIEW = View('tokens', draw, 'blocks')
