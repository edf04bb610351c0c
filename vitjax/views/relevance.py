"""relevance: which patches are evidence for the class."""

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, WEIGHTS, Drawing, Drawings, Seen, View


def draw(seen: Seen, *, smooth: bool = True, scale: str | None = None) -> Drawings:
    """Attention weighted by its gradient, through all layers.

    Args:
        seen: with attention weights and their gradients.
        smooth: interpolate maps over images.
        scale: of colours, `shared` or `each` map's own, as by default: sizes of gradients differ
            from image to image.
    """
    found, grads, matrix, rows = seen.found, seen.grads, None, None
    if WEIGHTS in found:
        matrix = attention.relevance(found[WEIGHTS], grads[WEIGHTS])
    if CLASS_WEIGHTS in found:
        rows = attention.class_relevance(found[CLASS_WEIGHTS], grads[CLASS_WEIGHTS], matrix)
    maps = seen.answer_map(matrix, rows)
    figure = figures.overlays(
        seen.pictures, {'relevance': maps}, titles=seen.titles, label='relevance', smooth=smooth,
        title=f'attention times {seen.differentiated}, through all layers', scale=scale or 'each',
    )  # fmt: skip
    yield Drawing('relevance', figure, {'maps': maps})


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}', gradients=True)
