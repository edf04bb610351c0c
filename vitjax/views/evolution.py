"""What the answer is over depth: the class token, and what each layer would answer."""

from collections.abc import Iterator

import jax
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as token_figures
from vitjax.views.seen import NoMeaning, Result, Seen


def evolution(seen: Seen) -> Iterator[Result]:
    """How the class token comes to be what it ends as."""
    blocks = seen.tokens()
    if getattr(seen.model, 'pool', '') != 'class':
        raise NoMeaning(f'the trunk of this {seen.kind} has no class token; see lens')
    norm, cosine = map(np.asarray, tokens.evolution(blocks[:, :, 0]))
    figure = token_figures.over_depth(
        [norm, cosine],
        titles=['norm of the class token', 'cosine to the final class token'],
        ylabels=['norm', 'cosine'],
        labels=seen.names,
    )
    yield 'evolution', figure, {'norm': norm, 'cosine': cosine}


def lens(seen: Seen) -> Iterator[Result]:
    """What each layer would answer."""
    blocks = seen.tokens()
    read = jax.jit(lambda p, t: seen.model.apply({'params': p}, t, method='readout'))
    logits = tokens.lens(lambda t: read(seen.params, t), blocks)
    if seen.model.num_classes > 1:
        probability = np.asarray(jax.nn.softmax(logits).max(-1))
        names = [[seen.title(k) for k in row] for row in np.asarray(logits.argmax(-1))]
        decided = np.asarray(tokens.decided(logits))
        figure = token_figures.lens(probability, names, labels=seen.names, decided=decided)
        yield 'lens', figure, {'logits': logits, 'decided': decided}
        return
    if seen.model.num_classes == 1:
        values, title, unit = logits[..., 0], 'the logit that each layer would give', 'logit'
    else:  # no classes: how close each layer's features already are to the last one's
        values = tokens.evolution(logits)[1]
        title, unit = "each layer's features against the final ones", 'cosine'
    values = np.asarray(values)
    figure = token_figures.over_depth([values], titles=[title], ylabels=[unit], labels=seen.names)
    yield 'lens', figure, {'values': values, 'logits': logits}
