"""importance: importance of each head, and the model without heads or layers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import evaluate
from vitjax.analysis import prune, tokens
from vitjax.base.types import Array, Params
from vitjax.data.order import evenly
from vitjax.figures import gradients as figures
from vitjax.models.base import Model
from vitjax.views.examples import labelled
from vitjax.views.forward import MIXED, WEIGHTS, Results
from vitjax.views.view import Drawing, Drawn, View


def draw(results: Results) -> Drawn:
    """Importance of heads, and accuracy without the least important ones or without a layer.

    Args:
        results: results with the trunk's tokens, its attention weights and their gradients.
    """
    depth = len(results.tokens())
    measure, ylabel = _measure(results)
    arrays: dict[str, Array] = {}
    heads = left = removed = None
    path = MIXED if MIXED in results.found else WEIGHTS
    if path in results.found:
        heads = np.asarray(prune.head_importance(results.found[path], results.grads[path]))
        place = heads.argsort(axis=None).argsort().reshape(heads.shape)  # 0: the least important
        removed = np.linspace(0, 0.9, 10)
        gone = [jnp.asarray(place < round(part * heads.size)) for part in removed]
        left = np.array(
            [measure(results.model, prune.remove_heads(results.params, g)) for g in gone]
        )
        arrays = {'importance': heads, 'shares': removed, 'left': left}
    layers = evenly(depth, 24).tolist() if depth > 1 else []
    short = results.model.clone(depth=depth - 1)
    kept = [[i for i in range(depth) if i != layer] for layer in layers]
    without = np.array([measure(short, prune.keep_layers(results.params, k)) for k in kept])
    arrays |= {'layers': np.array(layers), 'without': without}
    figure = figures.importance(heads, removed, left, layers, without, ylabel=ylabel)
    yield Drawing('importance', figure, arrays)


def _measure(results: Results) -> tuple[Callable[[Model, Params], float], str]:
    """Measure of a pruned model: accuracy on labelled images, else likeness to the whole model."""
    experiment = results.loaded.experiment
    data = labelled(experiment)
    if data is not None:

        def accuracy(model: Model, params: Params) -> float:
            logits = evaluate.predict(model, params, data, results.preprocessing, 128)
            return evaluate.scores(logits, data.labels)['accuracy']

        return accuracy, f'accuracy, {len(data)} test images'

    apply = jax.jit(lambda m, p, x: m.apply({'params': p}, x), static_argnums=0)

    def likeness(model: Model, params: Params) -> float:
        logits = apply(model, params, results.images)
        return float(np.mean(tokens.cosines(logits, jnp.asarray(results.logits))))

    return likeness, 'cosine to the whole output'


VIEW = View('gradients', draw, f'blocks|{WEIGHTS}|{MIXED}', gradients=True)
