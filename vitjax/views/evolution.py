"""evolution: how the class token turns into the one that the answer is read from."""

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.seen import Drawing, Drawings, NotApplicable, Seen, View


def draw(seen: Seen) -> Drawings:
    """The class token's norm, and its cosine to the final one, by layer.

    Args:
        seen: with the trunk's tokens.
    """
    blocks = seen.tokens()
    if not seen.trunk.class_token:
        raise NotApplicable(f'the trunk of this {seen.kind} has no class token; see lens')
    norm, cosine = map(np.asarray, tokens.evolution(blocks[:, :, 0]))
    values = {
        'norm of the class token': ('norm', norm),
        'cosine to the final class token': ('cosine', cosine),
    }
    figure = figures.over_depth(values, labels=seen.names)
    yield Drawing('evolution', figure, {'norm': norm, 'cosine': cosine})


VIEW = View('tokens', draw, 'blocks')
