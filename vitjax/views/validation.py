"""Attention of the class token on validation images, drawn as a run trains."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vitjax.base.types import Array, Params
from vitjax.data import preprocess
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.experiment import Experiment, Prepared
from vitjax.figures import training as figures
from vitjax.figures.attention import UNIFORM
from vitjax.inside.capture import capture, paths
from vitjax.runs.records import Record

IMAGES, SIDE = 8, 256  # pixels of a photograph at most: eight in a row are no larger


def require(experiment: Experiment) -> None:
    """Refuses a run whose attention cannot be drawn as it trains.

    Raises:
        ValueError: for a model without a class token.
    """
    model = experiment.model
    trunk = model.trunk
    if experiment.attention_every and not (trunk.class_token or trunk.class_tokens):
        pool = getattr(model, 'pool', None)
        named = type(model).__name__ + (f' with --model.pool {pool}' if pool else '')
        raise ValueError(
            f'--attention-every draws the attention of a class token: {named} has none. '
            '--attention-every 0 draws nothing.'
        )


def attention_maps(experiment: Prepared, params: Params, data: Data) -> dict[str, Any] | None:
    """The last layer's class-token attention on a few images of `data`.

    Returns:
        `attention` [images][rows][columns], mean over heads, to 6 digits; `uniform`, a patch's
        weight under uniform attention; and `predicted` [images], the index of the likeliest class.
        If each class has its own token, the attention is the likeliest class's. None for a model
        whose prediction is not read by attention from a class token.
    """
    model = experiment.model
    trunk, inputs = model.trunk, _inputs(experiment, data)
    path = f'{"class_blocks" if trunk.class_tokens else "blocks"}/attention/weights'
    readable = trunk.class_token or trunk.class_tokens
    if not readable or path not in paths(model, inputs):
        return None
    logits, found = capture(model, params, inputs, keep=path)
    likeliest = np.asarray(logits.argmax(-1))
    rows = np.asarray(found[path][-1], np.float64).mean(1)
    token = likeliest if trunk.class_tokens > 1 else 0
    grid = trunk.grid(*inputs.shape[1:3])
    maps = rows[np.arange(len(rows)), token][:, -grid[0] * grid[1] :].reshape(-1, *grid)
    return {
        'attention': maps.round(6).tolist(), 'uniform': 1 / rows.shape[-1],
        'predicted': likeliest.tolist(),
    }  # fmt: skip


def strip(experiment: Prepared, data: Data, records: Sequence[Record]) -> Any:
    """Figure of the maps of `attention_maps`, a row per epoch, from lines of `attention.jsonl`."""
    images = np.asarray(data.images[_rows(data)])
    if data.prepared is None:
        images = preprocess.photographs([*images], experiment.preprocessing, SIDE)
    maps = np.array([record['attention'] for record in records]) / records[0]['uniform']
    names = dict(enumerate(experiment.classes))
    return figures.attention_strip(
        images / np.float32(255), maps, UNIFORM, epochs=[record['epoch'] for record in records],
        true=[names.get(int(i), str(i)) for i in data.labels[_rows(data)]],
        predicted=[[names.get(i, str(i)) for i in record['predicted']] for record in records],
        title="the class token's attention in the last layer, mean of heads",
    )  # fmt: skip


def _inputs(experiment: Prepared, data: Data) -> Array:
    images = data.images[_rows(data)]
    return preprocess.finish(jnp.asarray(images), experiment.preprocessing, data.prepared)


def _rows(data: Data) -> np.ndarray:
    """Rows of evenly spaced images: folders are sorted by class."""
    return evenly(len(data), IMAGES)
