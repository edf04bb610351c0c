"""rollout: attention through all layers, back to the patches."""

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.figures.attention import UNIFORM
from vitjax.views.forward import CLASS_WEIGHTS, WEIGHTS, Results
from vitjax.views.view import Drawing, Drawings, View


def draw(
    results: Results, *, discard: float = 0.9, smooth: bool = True, scale: str | None = None
) -> Drawings:
    """Attention rollout, over all weights and over the largest alone.

    Args:
        results: results with attention weights of the trunk, of class attention or of both.
        discard: fraction of weights, the smallest, that the second rollout leaves out.
        smooth: interpolate maps over images.
        scale: scale of colours, `shared` or `each` map's own; by default `shared`.
    """
    found, maps, uniform = results.found, [], 1
    for smallest in (0.0, discard):
        matrix = rows = None
        if WEIGHTS in found:
            matrix = attention.rollout(found[WEIGHTS], discard=smallest)[-1]
            uniform = matrix.shape[-1]
        if CLASS_WEIGHTS in found:
            rows = attention.class_rollout(found[CLASS_WEIGHTS], matrix)[-1]
            uniform = rows.shape[-1]
        maps.append(results.answer_map(matrix, rows))
        if matrix is None or not discard:
            break  # a convolutional trunk has no weights to discard
    kinds, drawn = ('rollout', f'smallest {discard:.0%} discarded'), [uniform * m for m in maps]
    title = 'attention through all layers, counting residual connections'
    figure = figures.overlays(
        results.pictures, dict(zip(kinds, drawn, strict=False)),
        UNIFORM._replace(how=scale or 'shared'),
        titles=results.titles if results.trunk.class_tokens > 1 else results.answers, smooth=smooth,
        title=title,
    )  # fmt: skip
    yield Drawing('rollout', figure, dict(zip(('rollout', 'discarded'), maps, strict=False)))


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}')
