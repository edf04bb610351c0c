"""relevance: which patches are evidence for the class."""

from collections.abc import Iterator

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, WEIGHTS, Drawing, NotApplicable, Seen, View


def draw(seen: Seen, *, smooth: bool = True) -> Iterator[Drawing]:
    """Attention weighted by its gradient, through all layers.

    Args:
        seen: with attention weights and their gradients.
        smooth: interpolate maps over images.
    """
    trunk = None
    if WEIGHTS in seen.found:
        trunk = attention.relevance(seen.found[WEIGHTS], seen.grads[WEIGHTS])
    if CLASS_WEIGHTS in seen.found:
        weights, grads = seen.found[CLASS_WEIGHTS], seen.grads[CLASS_WEIGHTS]
        maps = seen.class_map(attention.class_relevance(weights, grads, trunk))
    elif trunk is None:
        raise NotApplicable(f'{seen.kind} has no attention; see grad-cam')
    else:
        maps = seen.answer_map(trunk)
    figure = figures.overlays(
        seen.pictures, [maps], labels=['relevance'], titles=seen.titles, smooth=smooth
    )
    yield Drawing('relevance', figure, {'maps': maps})


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}', gradients=True)
