"""lens: predictions read from each layer."""

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.views.forward import Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Prediction read from each layer's tokens as if they were the last layer's.

    Args:
        results: results with the trunk's tokens.
    """
    blocks = results.tokens()
    read = jax.jit(lambda p, t: results.model.apply({'params': p}, t, method='readout'))
    logits = tokens.lens(lambda t: read(results.params, t), blocks)
    if results.model.num_classes > 1:
        probability = np.asarray(jax.nn.softmax(logits).max(-1))
        names = [[*map(results.title, row)] for row in np.asarray(logits.argmax(-1))]
        decided = np.asarray(tokens.decided(logits))
        figure = figures.lens(probability, names, labels=results.names, decided=decided)
        yield Drawing('lens', figure, {'logits': logits, 'decided': decided})
        return
    if results.model.num_classes == 1:
        values, title, unit = logits[..., 0], 'logit read from each layer', 'logit'
    else:  # no classes: the features of each layer against the last one's
        values = tokens.evolution(logits)[1]
        title, unit = 'features of each layer', 'cosine to the final features'
    figure = figures.over_depth({title: (unit, np.asarray(values))}, labels=results.names)
    yield Drawing('lens', figure, {'values': values, 'logits': logits})


VIEW = View('tokens', draw, 'blocks')
