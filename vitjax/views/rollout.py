"""rollout: which patches attention through all layers leads back to."""

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, DIM, UNIFORM, WEIGHTS, Drawing, Drawings, Seen, View


def draw(
    seen: Seen, *, discard: float = 0.9, smooth: bool = True, scale: str | None = None
) -> Drawings:
    """Attention rollout, over all weights and over the largest alone.

    Args:
        seen: with attention weights, of the trunk, of class attention or of both.
        discard: share of weights, the smallest, that the second rollout leaves out.
        smooth: interpolate maps over images.
        scale: of colours, `shared`, as by default, or `each` map's own.
    """
    found, maps, uniform = seen.found, [], 1
    for share in (0.0, discard):
        matrix = rows = None
        if WEIGHTS in found:
            matrix = attention.rollout(found[WEIGHTS], discard=share)[-1]
            uniform = matrix.shape[-1]
        if CLASS_WEIGHTS in found:
            rows = attention.class_rollout(found[CLASS_WEIGHTS], matrix)[-1]
            uniform = rows.shape[-1]
        maps.append(seen.answer_map(matrix, rows))
        if matrix is None or not discard:
            break  # a convolutional trunk has no weights to discard
    kinds, drawn = ('rollout', f'smallest {discard:.0%} discarded'), [uniform * m for m in maps]
    title = 'attention through all layers, counting residual connections'
    figure = figures.overlays(
        seen.pictures, dict(zip(kinds, drawn, strict=False)), label=UNIFORM, least=DIM,
        titles=seen.titles if seen.trunk.class_tokens > 1 else seen.answers, smooth=smooth,
        title=title, scale=scale or 'shared',
    )  # fmt: skip
    yield Drawing('rollout', figure, dict(zip(('rollout', 'discarded'), maps, strict=False)))


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}')
