"""activations: channels of some layers as maps over an image."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import tokens
from vitjax.data.order import evenly
from vitjax.figures import tokens as figures
from vitjax.views.forward import MAPS, Results, layer_index
from vitjax.views.view import Drawing, Drawings, View

_MOST, _LARGE = 64, 6  # channels of a layer side by side, and as large maps with their values


def draw(
    results: Results, *, image: int = 1, layer: int | None = None, at: str | None = None,
    channels: Sequence[int] = (),
) -> Drawings:  # fmt: skip
    """The channels of a layer that vary most over an image, or chosen ones large.

    Arrays are maps by layer, [rows, columns, channels], and indices of the channels.

    Args:
        results: results with the trunk's tokens, or feature maps.
        image: image, from 1.
        layer: layer, from 1; by default three of a stack, or four convolutions and poolings.
        at: captured path; by default tokens leaving the blocks, or feature maps.
        channels: channels, from 0; by default the 64 that vary most.
    """
    one = results.image(image)
    layers = {
        name: np.asarray(results.as_maps(values[one : one + 1], name)[0])
        for name, values in _layers(results, layer, at).items()
    }
    if channels and 'blocks' not in results.found and layer is None and at is None:
        layers = dict([next(iter(layers.items()))])
    chosen = {name: _channels(values, channels, name) for name, values in layers.items()}
    maps = {name: values[..., chosen[name]] for name, values in layers.items()}
    counts = {name: values.shape[-1] for name, values in layers.items()}
    if 0 < len(channels) <= _LARGE:
        figure = figures.large_channels(
            results.pictures[one], maps, channels=channels, title=results.names[one]
        )
    else:
        grey = {name: np.asarray(tokens.channels(jnp.asarray(m))) for name, m in maps.items()}
        figure = figures.channels(
            grey, chosen, counts, title=f'{results.names[one]}: {figures.STANDARDISED}'
        )
    arrays = {name.replace('/', '.'): values for name, values in maps.items()}
    which = {f'{name.replace("/", ".")} channels': chosen[name] for name in maps}
    yield Drawing('activations', figure, arrays | which)


def _layers(results: Results, layer: int | None, at: str | None) -> dict[str, jnp.ndarray]:
    """Arrays of the layers to show, [B, ...], by name."""
    path = at or ('blocks' if 'blocks' in results.found else None)
    if path is None:
        known = results.stages()
        stages = {name: maps for name, maps in known.items() if maps.shape[1] > 1} or known
        shown = [list(stages)[i] for i in evenly(len(stages), 4)]
        if layer is not None:
            maps = list(results.feature_maps())
            shown = [maps[layer_index(layer, len(maps))]]
        return {name: known[name] for name in shown}
    values = results.found[path]
    if not path.startswith('blocks'):
        return {path: values}
    indices = evenly(len(values), 3) if layer is None else [layer_index(layer, len(values))]
    prefix = '' if path == 'blocks' else f'{path}, '
    return {f'{prefix}layer {i + 1}': values[i] for i in indices}


def _channels(values: np.ndarray, asked: Sequence[int], name: str) -> np.ndarray:
    count = values.shape[-1]
    if len(asked):
        if not 0 <= min(asked) <= max(asked) < count:
            raise ValueError(f'channels must be 0 to {count - 1} at {name}: got {[*asked]}.')
        return np.asarray(asked)
    return np.sort(np.argsort(-values.std((0, 1)), kind='stable')[:_MOST])


VIEW = View('tokens', draw, rf'blocks|{MAPS}|pool_\d+')
