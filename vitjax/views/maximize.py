"""maximize: preferred inputs of units."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import ops
from vitjax.analysis import gradients, prune, tokens
from vitjax.figures import gradients as figures
from vitjax.inside import capture
from vitjax.views.examples import grey
from vitjax.views.forward import HIDDEN, MAPS, Results, layer_index
from vitjax.views.view import Drawing, Drawings, View


def draw(
    results: Results, *, layer: int | None = None, at: str | None = None,
    channels: Sequence[int] = (), steps: int = 30, jitter: int | None = None,
    blur: float | None = None, seed: int = 0,
) -> Drawings:  # fmt: skip
    """Gradient ascent from noise for channels of a layer, and for the classes of the images.

    Args:
        results: results with the activations of the channels.
        layer: layer, from 1; by default the middle one.
        at: captured path of the channels; by default the MLP's neurons, or the last feature maps.
        channels: channels, from 0; by default the four most active on the images.
        steps: steps of ascent.
        jitter: pixels; by default the patch size, or half the side for convolutional networks, in
            which pixels near the border count less and would stay grey, as a frame.
        blur: standard deviation in pixels; by default the patch size / 14, 0 for convolutional
            networks.
        seed: seed of the noise.
    """
    maps = list(results.feature_maps())
    path = at or (maps[-1] if maps else HIDDEN if HIDDEN in results.found else 'blocks')
    values, label, model, params = results.found[path], path, results.model, results.params
    index = None
    if path.startswith('blocks'):
        index = len(values) // 2 if layer is None else layer_index(layer, len(values))
        model = model.clone(depth=index + 1)  # later layers do not matter
        params = prune.keep_layers(params, range(index + 1))
        values, label = values[index], f'layer {index + 1}'
    means = np.asarray(values, np.float32).reshape(-1, values.shape[-1]).mean(0)
    units = np.asarray(channels if len(channels) else np.argsort(-means)[:4])
    if units.min() < 0 or units.max() >= len(means):
        raise ValueError(f'channels must be 0 to {len(means) - 1} at {path}: got {units}.')
    mean = jnp.asarray(results.preprocessing.mean)
    deviation = jnp.asarray(results.preprocessing.deviation)

    colours = 1 if grey(results) else 3

    def inputs(pixels: jax.Array) -> jax.Array:
        return (jnp.broadcast_to(pixels, (*pixels.shape[:3], 3)) - mean) / deviation

    def of_channels(pixels: jax.Array) -> jax.Array:
        found = capture.capture(model, params, inputs(pixels), keep=path)[1][path]
        found = found if index is None else found[index]
        if found.ndim == 3:  # all patches count: those that did not would stay grey, as a frame
            means = found[:, -results.grid[0] * results.grid[1] :].mean(1)
        else:
            means = gradients.border_left_out(found)
        return means[jnp.arange(len(units)), units]

    patch = results.trunk.patch_size or 0  # a transformer's gradients would show its edges
    side = results.pixels.shape[1]
    key = jax.random.key(seed)
    ascend = functools.partial(
        gradients.maximize, steps=steps, key=key,
        jitter=(patch or side // 2) if jitter is None else jitter,
        blur=patch / 14 if blur is None else blur,
    )  # fmt: skip

    def preferred(score: Callable[[jax.Array], jax.Array], count: int) -> jax.Array:
        start = gradients.grey_noise(key, (count, side, side, colours))
        with ops.entered():
            return jax.jit(functools.partial(ascend, score))(start)

    unit = 'neuron' if path == HIDDEN else 'channel'
    titles = [f'{label}, {unit} {c}' for c in units]
    pictures = [preferred(of_channels, len(units))]
    if results.chosen is not None:
        classes = np.unique(results.chosen)[:4]

        def of_classes(pixels: jax.Array) -> jax.Array:
            logits: Any = results.model.apply({'params': results.params}, inputs(pixels))
            return logits[jnp.arange(len(classes)), classes]

        titles += map(results.title, classes)
        pictures.append(preferred(of_classes, len(classes)))
    pixels = jnp.concatenate(pictures)
    pixels = jnp.broadcast_to(pixels, (*pixels.shape[:3], 3))
    figure = figures.maximised(np.asarray(tokens.channels(pixels)), titles=titles)
    yield Drawing('maximize', figure, {'pixels': pixels})


VIEW = View('gradients', draw, f'blocks|{HIDDEN}|{MAPS}')
