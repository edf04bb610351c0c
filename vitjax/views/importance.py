"""importance: how much each head matters, and what remains without heads or layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import evaluate
from vitjax.analysis import prune, tokens
from vitjax.base.types import Array, Module, Params
from vitjax.figures import gradients as figures
from vitjax.figures.panels import some
from vitjax.views.examples import labelled
from vitjax.views.seen import MIXED, WEIGHTS, Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """Each head's importance, and how well the model does without the least important, or a layer.

    Args:
        seen: with the trunk's tokens, its attention weights and their gradients.
    """
    depth = len(seen.tokens())
    measure, ylabel = _measure(seen)
    arrays: dict[str, Array] = {}
    heads = left = shares = None
    path = MIXED if MIXED in seen.found else WEIGHTS
    if path in seen.found:
        heads = np.asarray(prune.head_importance(seen.found[path], seen.grads[path]))
        place = heads.argsort(axis=None).argsort().reshape(heads.shape)  # 0: the least important
        shares = np.linspace(0, 0.9, 10)
        gone = [jnp.asarray(place < round(share * heads.size)) for share in shares]
        left = np.array([measure(seen.model, prune.remove_heads(seen.params, g)) for g in gone])
        arrays = {'importance': heads, 'shares': shares, 'left': left}
    layers, short = some(depth, 24) if depth > 1 else [], seen.model.clone(depth=depth - 1)
    kept = [[i for i in range(depth) if i != layer] for layer in layers]
    without = np.array([measure(short, prune.keep_layers(seen.params, k)) for k in kept])
    arrays |= {'layers': np.array(layers), 'without': without}
    figure = figures.importance(heads, shares, left, layers, without, ylabel=ylabel)
    yield Drawing('importance', figure, arrays)


def _measure(seen: Seen) -> tuple[Callable[[Module, Params], float], str]:
    """How well a model does: accuracy on labelled images, else likeness to the whole model."""
    experiment = seen.loaded.experiment
    data = labelled(experiment)
    if data is not None:

        def accuracy(model: Module, params: Params) -> float:
            logits = evaluate.predict(model, params, data, seen.preprocessing, 128)
            return evaluate.scores(logits, data.labels)['accuracy']

        return accuracy, f'accuracy, {len(data)} test images'

    apply = jax.jit(lambda m, p, x: m.apply({'params': p}, x), static_argnums=0)

    def likeness(model: Module, params: Params) -> float:
        logits = apply(model, params, seen.images)
        return float(np.mean(tokens.cosines(logits, jnp.asarray(seen.logits))))

    return likeness, 'cosine to the whole output'


VIEW = View('gradients', draw, f'blocks|{WEIGHTS}|{MIXED}', gradients=True)
