"""rollout: which patches the answer is made of, through all layers."""

from collections.abc import Iterator

from vitjax.analysis import attention
from vitjax.figures import attention as figures
from vitjax.views.seen import CLASS_WEIGHTS, WEIGHTS, Drawing, NoMeaning, Seen, View


def draw(seen: Seen, *, discard: float = 0.9, smooth: bool = True) -> Iterator[Drawing]:
    """Attention rollout, of all weights and of the largest.

    Args:
        seen: with attention weights, of the trunk, of class attention or of both.
        discard: share of the smallest weights left out the second time.
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
            raise NoMeaning(f'{seen.kind} has no attention')
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
