"""rollout: attention through all layers, back to the patches."""

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.forward import CLASS_WEIGHTS, WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Attention rollout, over all weights and over the largest alone.

    Args:
        results: results with attention weights of the trunk, of class attention or of both.
            Options: `discard`, `enlarge`, `scale`.
    """
    found, discard = results.found, results.options.discard
    maps, drawn, matrix, rows = {}, {}, None, None
    for name, kind, smallest in (
        ('rollout', 'rollout', 0.0), ('discarded', f'smallest {discard:.0%} discarded', discard)
    ):  # fmt: skip
        if WEIGHTS in found:
            matrix = attention.rollout(found[WEIGHTS], discard=smallest)[-1]
        if CLASS_WEIGHTS in found:
            rows = attention.class_rollout(found[CLASS_WEIGHTS], matrix)[-1]
        maps[name] = results.answer_map(matrix, rows)
        last = matrix if rows is None else rows
        keys = 1 if last is None else last.shape[-1] - results.trunk.latent
        drawn[kind] = maps[name] * keys
        if matrix is None or not discard:
            break  # a convolutional trunk has no weights to discard
    titles = results.titles(asked=results.trunk.class_tokens > 1)
    title = 'attention through all layers, counting residual connections'
    figure = figures.overlays(
        results.photographs, drawn, figures.UNIFORM._replace(how=results.options.scale or 'shared'),
        titles=titles, title=title, smooth=results.options.smooth,
    )  # fmt: skip
    yield Drawing('rollout', figure, maps)


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}')
