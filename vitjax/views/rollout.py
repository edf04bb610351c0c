"""rollout: which patches attention through all layers leads back to."""

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, WEIGHTS, Drawing, Drawings, Seen, View


def draw(seen: Seen, *, discard: float = 0.9, smooth: bool = True) -> Drawings:
    """Attention rollout, over all weights and over the largest alone.

    Args:
        seen: with attention weights, of the trunk, of class attention or of both.
        discard: share of weights, the smallest, that the second rollout leaves out.
        smooth: interpolate maps over images.
    """
    found, maps = seen.found, []
    for share in (0.0, discard):
        matrix = rows = None
        if WEIGHTS in found:
            matrix = attention.rollout(found[WEIGHTS], discard=share)[-1]
        if CLASS_WEIGHTS in found:
            rows = attention.class_rollout(found[CLASS_WEIGHTS], matrix)[-1]
        maps.append(seen.answer_map(matrix, rows))
        if matrix is None or not discard:
            break  # a convolutional trunk has no weights to discard
    labelled = dict(zip(('rollout', f'smallest {discard:.0%} discarded'), maps, strict=False))
    figure = figures.overlays(seen.pictures, labelled, titles=seen.titles, smooth=smooth)
    yield Drawing('rollout', figure, dict(zip(('rollout', 'discarded'), maps, strict=False)))


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}')
