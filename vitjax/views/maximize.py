"""maximize: preferred inputs of units."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import ops
from vitjax.analysis import gradients, prune, tokens
from vitjax.data.preprocess import normalise
from vitjax.figures import gradients as figures
from vitjax.inside import capture
from vitjax.views.examples import grey
from vitjax.views.forward import HIDDEN, MAPS, Layer, Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View

Score = Callable[[jax.Array], jax.Array]  # pixels [n, H, W, 1 or 3] in 0..1 to n activations


def draw(results: Results) -> Drawn:
    """Gradient ascent from noise for channels of a layer, and for the classes of the images.

    Args:
        results: results with the activations of the channels.
            Options: `layer`, by default the
            middle one; `at`, by default the MLP's neurons, or the last feature maps; `channels`,
            `steps`, `jitter`, `blur`, `seed`.
    """
    layer = _layer(results)
    units = _units(results, layer)
    unit = 'neuron' if layer.path == HIDDEN else 'channel'
    where = layer.label.removeprefix(f'{HIDDEN}, ')
    titles = [f'{where}, {unit} {number}' for number in units]
    pictures = [_ascend(results, _channels(results, layer, units), len(units))]
    if results.chosen is not None:
        classes = np.unique(results.chosen)[:4]
        titles += (f'logit of {results.title(index)}' for index in classes)
        pictures.append(_ascend(results, _classes(results, classes), len(classes)))
    pixels = jnp.concatenate(pictures)
    pixels = jnp.broadcast_to(pixels, (*pixels.shape[:3], 3))
    title = f'preferred inputs: {results.options.steps} steps of gradient ascent from noise'
    standardised = np.asarray(tokens.channels(pixels))
    figure = figures.maximised(standardised, titles=titles, title=title)
    yield Drawing('maximize', figure, {'pixels': pixels, 'units': np.array(titles)})


def _layer(results: Results) -> Layer:
    """The layer of the channels."""
    maps = [*results.feature_maps()]
    paths = results.at or maps[-1:] or [HIDDEN if HIDDEN in results.found else 'blocks']
    if len(paths) > 1:
        rule = f'it takes one path, {results.options.at!r} matches {len(paths)}'
        raise NotApplicable(f'{rule}: {", ".join(paths)}')
    layers = results.layers(paths[0])
    return layers[len(layers) // 2]


def _units(results: Results, layer: Layer) -> np.ndarray:
    """The channels that the user asks about; by default the four most active on the images."""
    values = np.asarray(layer.of(results.found))
    means = values.reshape(-1, values.shape[-1]).mean(0)
    units = np.asarray(results.options.channels or np.argsort(-means)[:4])
    if units.min() < 0 or units.max() >= len(means):
        raise ValueError(f'channels must be 0 to {len(means) - 1} at {layer.path}: got {units}.')
    return units


def _channels(results: Results, layer: Layer, units: np.ndarray) -> Score:
    """Mean activation of each unit, of its own image."""
    model, params, path, index = results.model, results.params, layer.path, layer.index
    if path.startswith('blocks') and index is not None:  # later layers do not matter
        model = model.clone(depth=index + 1)
        params = prune.keep_layers(params, range(index + 1))

    def score(pixels: jax.Array) -> jax.Array:
        found = capture.capture(model, params, _normalised(results, pixels), keep=path)[1]
        values = layer.of(found)
        if values.ndim == 3:  # all patches count: those that did not would stay grey, as a frame
            means = values[:, -results.grid[0] * results.grid[1] :].mean(1)
        else:
            means = gradients.border_left_out(values)
        return means[jnp.arange(len(units)), units]

    return score


def _classes(results: Results, classes: np.ndarray) -> Score:
    """Logit of each class, of its own image."""

    def score(pixels: jax.Array) -> jax.Array:
        inputs = _normalised(results, pixels)
        logits: Any = results.model.apply({'params': results.params}, inputs)
        return logits[jnp.arange(len(classes)), classes]

    return score


def _normalised(results: Results, pixels: jax.Array) -> jax.Array:
    return normalise(255 * jnp.broadcast_to(pixels, (*pixels.shape[:3], 3)), results.preprocessing)


def _ascend(results: Results, score: Score, count: int) -> jax.Array:
    """Pixels [count, H, W, 1 or 3] of large scores; grey for a model of grey images."""
    options, side = results.options, results.pixels.shape[1]
    patch = results.trunk.patch_size or 0  # a transformer's gradients would show its edges
    key = jax.random.key(options.seed)
    ascend = functools.partial(
        gradients.maximize, score, steps=options.steps, key=key,
        jitter=(patch or side // 2) if options.jitter is None else options.jitter,
        blur=patch / 14 if options.blur is None else options.blur,
    )  # fmt: skip
    with ops.entered():
        shape = count, side, side, 1 if grey(results) else 3
        return jax.jit(ascend)(gradients.grey_noise(key, shape))


VIEW = View('gradients', draw, f'blocks|{HIDDEN}|{MAPS}')
