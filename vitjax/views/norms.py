"""norms: lengths of patch tokens, where outliers show."""

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.figures.panels import some
from vitjax.views.seen import Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """Norms over the image at three layers, and how they spread at the last.

    Args:
        seen: with the trunk's tokens.
    """
    length = np.asarray(tokens.norms(seen.patches()))
    layers = some(len(length), 3)
    maps = length[layers].reshape(len(layers), -1, *seen.grid)
    yield Drawing('norms', figures.norms(seen.pictures, maps, layers=layers), {'norms': length})


VIEW = View('tokens', draw, 'blocks')
