"""The picture that a run draws as it trains: where the class token looks on validation images."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.capture import capture, paths
from vitjax.data import preprocess
from vitjax.data.sources import Data
from vitjax.experiment import Experiment
from vitjax.figures import training as figures
from vitjax.types import Module, Params


def attention_figure(experiment: Experiment, params: Params, data: Data, count: int = 8) -> Any:
    """The first images of `data` with the last layer's class-token attention over them.

    Mean over heads; of several class tokens, the likeliest class's. None for a model whose answer
    is not read by attention from a class token.
    """
    model: Module = experiment.model
    prepared, trunk = experiment.preprocessing, model.trunk
    assert prepared is not None
    stack = {'class': 'blocks', 'attention': 'class_blocks'}.get(trunk.reads)
    path = f'{stack}/attention/weights'
    images = data.images[np.arange(min(count, len(data)))]
    inputs = preprocess.finish(jnp.asarray(images), prepared, data.prepared)
    if stack is None or path not in paths(model, params, inputs):
        return None
    logits, found = capture(model, params, inputs, keep=path)
    likeliest = np.asarray(logits.argmax(-1))
    rows = np.asarray(found[path][-1]).mean(1)
    token = likeliest if trunk.class_tokens > 1 else 0
    grid = trunk.grid(*inputs.shape[1:3])
    maps = rows[np.arange(len(rows)), token][:, -grid[0] * grid[1] :].reshape(-1, *grid)
    pictures = np.asarray(inputs) * prepared.deviation + prepared.mean
    names = experiment.classes
    titles = [names[i] if i < len(names) else str(i) for i in likeliest]
    return figures.attention_pictures(pictures.clip(0, 1), maps, titles)
