"""CKA and rank of a run's layers on validation images, at each evaluation."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis import similarity, tokens
from vitjax.base.types import Params
from vitjax.data import preprocess
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.experiment import Experiment, Prepared
from vitjax.figures import watch as figures
from vitjax.inside.capture import capture, require_blocks
from vitjax.models.base import Model
from vitjax.runs.records import Record

IMAGES, AT_ONCE = 64, 16


def require(experiment: Experiment) -> None:
    """Refuses a run whose layers cannot be watched.

    Raises:
        ValueError: for a model without a stack `blocks`.
    """
    if experiment.watch:
        require_blocks(experiment.model)


def of_layers(experiment: Prepared, params: Params, data: Data) -> dict[str, Any]:
    """Measures of the layers that `experiment.watch` names, on 64 images spread evenly over `data`.

    Returns:
        `cka` [L][L], unbiased linear CKA of every layer of `blocks` with every layer; `tokens`, its
        tokens: `class`, or in a trunk without class token `mean` of the patches; `rank` [L], the
        effective rank of an image's patches leaving each layer, mean over images; and `images`,
        their number. Rounded to 5 digits.
    """
    model = experiment.model
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
def _layers(model: Model, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features that CKA compares [L, B, D], and the effective rank of the patches [L, B]."""
    blocks = capture(model, params, images, keep='blocks')[1]['blocks']
    patches = blocks[:, :, model.trunk.prefix :]
    taken = blocks[:, :, 0] if model.trunk.class_token else patches.mean(2)
    return taken, jax.lax.map(tokens.effective_rank, patches)


def drawings(records: list[Record]) -> tuple[Any, Any]:
    """Figure and animation of lines of `watch.jsonl`."""
    return figures.strip(records), figures.film(records)
