"""evolution: the class token on its way to the final one, by layer."""

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.forward import Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """Norm of the class token, and its cosine to the final one, by layer.

    Args:
        results: results with the trunk's tokens.
    """
    blocks = results.tokens()
    if not results.trunk.class_token:
        raise NotApplicable(f'the head of this {results.kind} reads no class token; see lens')
    norm, cosine = map(np.asarray, tokens.evolution(blocks[:, :, 0]))
    values = {
        'norm of the class token': ('norm', norm),
        'cosine to the final class token': ('cosine', cosine),
    }
    figure = figures.over_depth(values, labels=results.names)
    yield Drawing('evolution', figure, {'norm': norm, 'cosine': cosine})


VIEW = View('tokens', draw, 'blocks')
