"""relevance: patches that are evidence for the class (Chefer et al. 2021)."""

import numpy as np

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.figures.panels import Scale
from vitjax.views.forward import CLASS_WEIGHTS, WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, View


def scores(results: Results) -> np.ndarray:
    """Relevance of the patches for the differentiated class, [B, rows, columns]."""
    found, grads, matrix, rows = results.found, results.grads, None, None
    if WEIGHTS in found:
        matrix = attention.relevance(found[WEIGHTS], grads[WEIGHTS])
    if CLASS_WEIGHTS in found:
        rows = attention.class_relevance(found[CLASS_WEIGHTS], grads[CLASS_WEIGHTS], matrix)
    return results.answer_map(matrix, rows)


def draw(results: Results) -> Drawn:
    """Attention weighted by its gradient, through all layers.

    Args:
        results: results with attention weights and their gradients.
            Options: `enlarge`, `scale`.
    """
    maps = scores(results)
    figure = figures.overlays(
        results.photographs, {'relevance': maps},
        Scale('relevance', results.options.scale or 'each'), titles=results.titles(),
        title=f'attention times {results.differentiated}, through all layers',
        smooth=results.options.smooth,
    )  # fmt: skip
    yield Drawing('relevance', figure, {'maps': maps})


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}', gradients=True)
