"""What a model says of every image of a split, and how right it is."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax.data import augment
from vitjax.data.images import Preprocessing
from vitjax.data.sources import Data
from vitjax.train import eval_step


def normalisation(preprocessing: Preprocessing | None) -> tuple[Any, Any]:
    """Mean and deviation per channel, of pixels in 0..1."""
    assert preprocessing is not None
    return preprocessing.mean, preprocessing.deviation


def predict(
    model: Any,
    params: Any,
    data: Data,
    preprocessing: Preprocessing | None,
    batch_size: int,
    devices: Sequence[Any] | None = None,
) -> np.ndarray:
    """Logits [N, num_classes] float32 of every image once, over this process's devices."""
    assert preprocessing is not None
    devices = jax.local_devices() if devices is None else devices
    devices = [d for d in devices if d.process_index == jax.process_index()]
    batch_size = -(-min(batch_size, len(data)) // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), ('batch',), axis_types=(AxisType.Auto,), devices=devices)
    params = jax.device_put(on_host(params), NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec('batch'))
    forward = _forward(model, preprocessing.size, normalisation(preprocessing))
    out = []
    for start in range(0, len(data), batch_size):
        images = data.images[start : start + batch_size]
        count = len(images)
        if count < batch_size:  # the last batch is padded, and the padding dropped
            images = np.concatenate([images, np.repeat(images[:1], batch_size - count, axis=0)])
        out.append(np.asarray(forward(params, jax.device_put(images, split)))[:count])
    return np.concatenate(out)


@functools.lru_cache(maxsize=8)
def _forward(model: Any, size: int, normal: tuple[Any, Any]) -> Any:
    return jax.jit(lambda p, x: eval_step(p, augment.resize(x, size, normal), model=model))


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`loss` (cross-entropy in nats), `accuracy` and `top5` of logits [N, K] against labels [N]."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    right = np.take_along_axis(shifted, labels[:, None], 1)
    loss = (np.log(np.exp(shifted).sum(1)) - right[:, 0]).mean()
    rank = (shifted > right).sum(1)
    return {
        'loss': float(loss),
        'accuracy': float((logits.argmax(1) == labels).mean()),
        'top5': float((rank < 5).mean()),
    }


def on_host(params: Any) -> Any:
    """Parameters as host arrays, wherever they lie."""
    return jax.tree.map(np.asarray, params)
