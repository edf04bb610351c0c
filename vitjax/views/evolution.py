"""evolution: how the class token turns into the one that the answer is read from."""

from collections.abc import Iterator

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.seen import Drawing, NotApplicable, Seen, View


def draw(seen: Seen) -> Iterator[Drawing]:
    """The class token's norm, and its cosine to the final one, by layer.

    Args:
        seen: with the trunk's tokens.
    """
    blocks = seen.tokens()
    if not seen.trunk.class_token:
        raise NotApplicable(f'the trunk of this {seen.kind} has no class token; see lens')
    norm, cosine = map(np.asarray, tokens.evolution(blocks[:, :, 0]))
    figure = figures.over_depth(
        [norm, cosine],
        titles=['norm of the class token', 'cosine to the final class token'],
        ylabels=['norm', 'cosine'],
        labels=seen.names,
    )
    yield Drawing('evolution', figure, {'norm': norm, 'cosine': cosine})


VIEW = View('tokens', draw, 'blocks')
