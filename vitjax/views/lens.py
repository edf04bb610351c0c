"""lens: what each layer would answer."""

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.seen import Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """The answer read from each layer's tokens as if they were the last layer's.

    Args:
        seen: with the trunk's tokens.
    """
    blocks = seen.tokens()
    read = jax.jit(lambda p, t: seen.model.apply({'params': p}, t, method='readout'))
    logits = tokens.lens(lambda t: read(seen.params, t), blocks)
    if seen.model.num_classes > 1:
        probability = np.asarray(jax.nn.softmax(logits).max(-1))
        names = [[*map(seen.title, row)] for row in np.asarray(logits.argmax(-1))]
        decided = np.asarray(tokens.decided(logits))
        figure = figures.lens(probability, names, labels=seen.names, decided=decided)
        yield Drawing('lens', figure, {'logits': logits, 'decided': decided})
        return
    if seen.model.num_classes == 1:
        values, title, unit = logits[..., 0], 'the logit that each layer would give', 'logit'
    else:  # no classes: how close each layer's features already are to the last one's
        values = tokens.evolution(logits)[1]
        title, unit = "each layer's features against the final ones", 'cosine'
    figure = figures.over_depth({title: (unit, np.asarray(values))}, labels=seen.names)
    yield Drawing('lens', figure, {'values': values, 'logits': logits})


VIEW = View('tokens', draw, 'blocks')
