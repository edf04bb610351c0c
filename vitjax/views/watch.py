"""What a run watches as it trains: its layers on a few validation images at each evaluation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis import similarity, tokens
from vitjax.base.types import Module, Params
from vitjax.data import preprocess
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.experiment import Experiment, Prepared
from vitjax.figures import watch as figures
from vitjax.inside.capture import capture, require_blocks
from vitjax.runs import Record

IMAGES, AT_ONCE = 64, 16


def require(experiment: Experiment) -> None:
    """Refuses what a run cannot watch.

    Raises:
        ValueError: for a model without a stack `blocks`.
    """
    if experiment.watch:
        require_blocks(experiment.model)


def look(experiment: Prepared, params: Params, data: Data) -> dict[str, Any]:
    """What `experiment.watch` asks for, on 64 images spread evenly over `data`.

    Returns:
        `cka` [L][L], unbiased linear CKA of every layer of `blocks` with every layer, of the class
        token where the trunk has one, else of the mean of its patches; `rank` [L], the effective
        rank of an image's patches leaving each layer, mean over images; `images`, how many; and
        `tokens`, `class` or `mean`. Rounded to 5 digits.
    """
    model: Module = experiment.model
    prepared = experiment.preprocessing
    rows = evenly(len(data), IMAGES)
    inputs = preprocess.finish(jnp.asarray(data.images[rows]), prepared, data.prepared)
    parts = [_layers(model, params, inputs[i : i + AT_ONCE]) for i in range(0, len(rows), AT_ONCE)]
    layers, ranks = (np.concatenate(each, 1) for each in zip(*parts, strict=True))
    found: dict[str, Any] = {'images': len(rows)}
    if 'cka' in experiment.watch:
        found |= {'tokens': 'class' if model.trunk.class_token else 'mean'}
        found |= {'cka': similarity.cka(layers).round(5).tolist()}
    if 'rank' in experiment.watch:
        found['rank'] = np.asarray(ranks, np.float64).mean(1).round(5).tolist()
    return found


@functools.partial(jax.jit, static_argnames='model')
def _layers(model: Any, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What CKA compares [L, B, D], and the effective rank of the patches [L, B]."""
    blocks = capture(model, params, images, keep='blocks')[1]['blocks']
    patches = blocks[:, :, model.trunk.prefix :]
    taken = blocks[:, :, 0] if model.trunk.class_token else patches.mean(2)
    return taken, jax.lax.map(tokens.effective_rank, patches)


def drawings(records: list[Record]) -> tuple[Any, Any]:
    """A figure and an animation of what was watched: lines of `watch.jsonl`."""
    return figures.strip(records), figures.film(records)
