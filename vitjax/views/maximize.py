"""maximize: inputs that units prefer."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import ops
from vitjax.analysis import gradients, prune, tokens
from vitjax.figures import gradients as figures
from vitjax.inside import capture
from vitjax.views.examples import grey
from vitjax.views.seen import HIDDEN, MAPS, Drawing, Drawings, Seen, View, layer_index


def draw(
    seen: Seen, *, layer: int | None = None, at: str | None = None, channels: Sequence[int] = (),
    steps: int = 30, jitter: int | None = None, blur: float | None = None, seed: int = 0,
) -> Drawings:  # fmt: skip
    """Gradient ascent from noise for channels of a layer, and for the classes of the images.

    Args:
        seen: with the activations of the channels.
        layer: from 1 on; the middle one by default.
        at: captured path of the channels; by default the MLP's neurons, or the last feature maps.
        channels: by default the four most active on the images.
        steps: of ascent.
        jitter: in pixels; by default the patch size, or half the side for convolutional networks,
            in which pixels near the border count less: they would stay grey, as a frame.
        blur: a standard deviation in pixels; by default the patch size / 14, 0 for convolutional
            networks.
        seed: of the noise.
    """
    maps = list(seen.feature_maps())
    path = at or (maps[-1] if maps else HIDDEN if HIDDEN in seen.found else 'blocks')
    values, label, model, params = seen.found[path], path, seen.model, seen.params
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
    mean = jnp.asarray(seen.preprocessing.mean)
    deviation = jnp.asarray(seen.preprocessing.deviation)

    colours = 1 if grey(seen) else 3

    def inputs(pixels: jax.Array) -> jax.Array:
        return (jnp.broadcast_to(pixels, (*pixels.shape[:3], 3)) - mean) / deviation

    def of_channels(pixels: jax.Array) -> jax.Array:
        found = capture.capture(model, params, inputs(pixels), keep=path)[1][path]
        found = found if index is None else found[index]
        if found.ndim == 3:  # all patches count: those that did not would stay grey, as a frame
            means = found[:, -seen.grid[0] * seen.grid[1] :].mean(1)
        else:
            means = gradients.border_left_out(found)
        return means[jnp.arange(len(units)), units]

    patch = seen.trunk.patch_size or 0  # a transformer's gradients would show its edges
    side = seen.pixels.shape[1]
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
    if seen.chosen is not None:
        classes = np.unique(seen.chosen)[:4]

        def of_classes(pixels: jax.Array) -> jax.Array:
            logits = seen.model.apply({'params': seen.params}, inputs(pixels))
            return logits[jnp.arange(len(classes)), classes]

        titles += map(seen.title, classes)
        pictures.append(preferred(of_classes, len(classes)))
    pixels = jnp.concatenate(pictures)
    pixels = jnp.broadcast_to(pixels, (*pixels.shape[:3], 3))
    figure = figures.maximised(np.asarray(tokens.channels(pixels)), titles=titles)
    yield Drawing('maximize', figure, {'pixels': pixels})


VIEW = View('gradients', draw, f'blocks|{HIDDEN}|{MAPS}')
