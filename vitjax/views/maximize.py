"""Inputs that units prefer."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import capture
from vitjax.analysis import gradients, tokens
from vitjax.figures import gradients as gradient_figures
from vitjax.views.seen import HIDDEN, Result, Seen


def maximize(seen: Seen) -> Iterator[Result]:
    """Inputs that units prefer: channels of a layer in the middle, and classes."""
    path = seen.options.at or _unit_path(seen)
    values = seen.found[path]
    model, params, layer = seen.model, seen.params, None
    label = path
    if path.startswith('blocks'):
        depth = len(values)
        layer = seen.layer(depth) if seen.options.layer else depth // 2
        model = model.clone(depth=layer + 1)  # what comes after has no say
        params = gradients.keep_layers(params, range(layer + 1))
        values, label = values[layer], f'layer {layer + 1}'
    means = np.asarray(values, np.float32).reshape(-1, values.shape[-1]).mean(0)
    channels = np.asarray(seen.options.channels or np.argsort(-means)[:4])
    if channels.min() < 0 or channels.max() >= len(means):
        raise ValueError(f'--channels must be 0 to {len(means) - 1} at {path}: got {channels}.')
    mean, deviation = (
        jnp.asarray(v) for v in (seen.preprocessing.mean, seen.preprocessing.deviation)
    )

    def of_channel(pixels: Any) -> Any:
        found = capture.capture(model, params, (pixels - mean) / deviation, keep=path)[1][path]
        found = found if layer is None else found[layer]
        if found.ndim == 3:
            found = found[:, -seen.grid[0] * seen.grid[1] :]
            found = found.reshape(len(found), *seen.grid, -1)
        return gradients.border_left_out(found)[jnp.arange(len(channels)), channels]

    def of_class(pixels: Any) -> Any:
        logits = seen.model.apply({'params': seen.params}, (pixels - mean) / deviation)
        return logits[jnp.arange(len(classes)), classes]

    key = jax.random.key(seen.options.seed)
    patch = getattr(seen.model, 'patch_size', 0)  # whose edges a transformer's gradients would show
    jitter = patch if seen.options.jitter is None else seen.options.jitter
    blur = patch / 14 if seen.options.blur is None else seen.options.blur
    unit = 'neuron' if path == HIDDEN else 'channel'
    goals = [(of_channel, channels, [f'{label}, {unit} {c}' for c in channels])]
    if seen.chosen is not None:
        classes = np.unique(seen.chosen)[:4]
        goals.append((of_class, classes, [seen.title(k) for k in classes]))
    pictures, titles = [], []
    for score, units, names in goals:
        start = gradients.grey_noise(key, (len(units), *seen.pixels.shape[1:]))
        options: Any = {
            'steps': seen.options.steps, 'jitter': jitter, 'blur': blur, 'key': key
        }  # fmt: skip
        ascend = jax.jit(
            lambda start, score=score, o=options: gradients.maximize(score, start, **o)
        )
        pictures.append(ascend(start))
        titles += names
    pixels = jnp.concatenate(pictures)
    shown = tokens.channels(pixels)
    yield (
        'maximize',
        gradient_figures.maximised(np.asarray(shown), titles=titles),
        {'pixels': pixels},
    )


def _unit_path(seen: Seen) -> str:
    """Whose channels are maximised: neurons of the MLP, or feature maps."""
    maps = seen.feature_maps()
    return list(maps)[-1] if maps else HIDDEN if HIDDEN in seen.found else 'blocks'
