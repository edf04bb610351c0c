"""rollout: which patches attention through all layers leads back to."""

from collections.abc import Iterator

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, WEIGHTS, Drawing, NotApplicable, Seen, View


def draw(seen: Seen, *, discard: float = 0.9, smooth: bool = True) -> Iterator[Drawing]:
    """Attention rollout, over all weights and over the largest alone.

    Args:
        seen: with attention weights, of the trunk, of class attention or of both.
        discard: share of weights, the smallest, that the second rollout leaves out.
        smooth: interpolate maps over images.
    """
    maps = {}
    for name, share in (('rollout', 0.0), ('discarded', discard)):
        trunk = None
        if WEIGHTS in seen.found:
            trunk = attention.rollout(seen.found[WEIGHTS], discard=share)[-1]
        if CLASS_WEIGHTS in seen.found:
            rows = attention.class_rollout(seen.found[CLASS_WEIGHTS], trunk)[-1]
            maps[name] = seen.class_map(rows)
        elif trunk is None:
            raise NotApplicable(f'{seen.kind} has no attention')
        else:
            maps[name] = seen.answer_map(trunk)
        if trunk is None or not discard:
            break  # a convolutional trunk has no weights to discard
    labels = ['rollout', f'smallest {discard:.0%} discarded'][: len(maps)]
    figure = figures.overlays(
        seen.pictures, list(maps.values()), labels=labels, titles=seen.titles, smooth=smooth
    )
    yield Drawing('rollout', figure, maps)


VIEW = View('attention', draw, f'{WEIGHTS}|{CLASS_WEIGHTS}')
