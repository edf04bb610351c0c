"""What hangs on heads and layers."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import evaluate
from vitjax.analysis import gradients, tokens
from vitjax.data import sources
from vitjax.experiment import Experiment
from vitjax.figures import gradients as gradient_figures
from vitjax.figures.panels import some
from vitjax.views.seen import MIXED, WEIGHTS, Result, Seen


def importance(seen: Seen) -> Iterator[Result]:
    """What hangs on each head, and what is left without heads or layers."""
    depth = len(seen.tokens())
    measure, ylabel = _measure(seen)
    arrays: dict[str, Any] = {}
    heads = left = shares = None
    path = MIXED if MIXED in seen.found else WEIGHTS
    if path in seen.found:
        heads = np.asarray(gradients.head_importance(seen.found[path], seen.grads[path]))
        order = np.argsort(heads, axis=None)
        shares = np.linspace(0, 0.9, 10)
        left = []
        for share in shares:
            removed = np.zeros(heads.size, bool)
            removed[order[: round(share * heads.size)]] = True
            gone = jnp.asarray(removed.reshape(heads.shape))
            edited = gradients.remove_heads(seen.params, gone)
            left.append(measure(seen.model, edited))
        left = np.array(left)
        arrays = {'importance': heads, 'shares': shares, 'left': left}
    layers, without = some(depth, 24) if depth > 1 else [], []
    for layer in layers:
        kept = [i for i in range(depth) if i != layer]
        short = seen.model.clone(depth=depth - 1)
        without.append(measure(short, gradients.keep_layers(seen.params, kept)))
    arrays |= {'layers': np.array(layers), 'without': np.array(without)}
    figure = gradient_figures.importance(
        heads, shares, left, layers, np.array(without), ylabel=ylabel
    )
    yield 'importance', figure, arrays


def _measure(seen: Seen) -> tuple[Callable[[Any, Any], float], str]:
    """How well a model does: accuracy on labelled images, else likeness to the whole model."""
    data = _labelled(seen.experiment)
    if data is not None:

        def accuracy(model: Any, params: Any) -> float:
            logits = evaluate.predict(model, params, data, seen.preprocessing, 128)
            return evaluate.scores(logits, data.labels)['accuracy']

        return accuracy, f'accuracy, {len(data)} test images'

    apply = jax.jit(lambda m, p, x: m.apply({'params': p}, x), static_argnums=0)

    def likeness(model: Any, params: Any) -> float:
        return float(np.mean(tokens.cosines(apply(model, params, seen.images), seen.logits)))

    return likeness, 'cosine to the whole output'


def _labelled(experiment: Experiment, most: int = 256) -> sources.Data | None:
    """Some test images of a run, the same each time; None where its data are not its classes'."""
    try:
        data = sources.load(experiment.data, 'test')
    except ValueError:
        return None
    if data.classes != experiment.classes:
        return None
    some = np.random.default_rng(0).permutation(len(data))[:most]
    return sources.Data(data.images[some], data.labels[some], data.classes)
