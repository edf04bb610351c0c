"""activations: channels of some layers as maps over an image."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.figures.panels import some
from vitjax.views.seen import MAPS, Drawing, Drawings, Seen, View, layer_index

_MOST, _LARGE = 64, 6  # channels of a layer side by side, and as large maps with their values


def draw(
    seen: Seen, *, image: int = 1, layer: int | None = None, at: str | None = None,
    channels: Sequence[int] = (),
) -> Drawings:  # fmt: skip
    """The channels of a layer that vary most over an image, or chosen ones large.

    Arrays are by layer, [rows, columns, channels], and which channels they are.

    Args:
        seen: with the trunk's tokens, or feature maps.
        image: from 1 on.
        layer: from 1 on; by default three of a stack, or four convolutions and poolings.
        at: captured path; by default tokens leaving the blocks, or feature maps.
        channels: which, from 0 on; by default at most 64, those that vary most.
    """
    one = seen.image(image)
    layers = {
        name: np.asarray(seen.as_maps(values[one : one + 1], name)[0])
        for name, values in _layers(seen, layer, at).items()
    }
    if channels and 'blocks' not in seen.found and layer is None and at is None:
        layers = dict([next(iter(layers.items()))])
    chosen = {name: _channels(values, channels, name) for name, values in layers.items()}
    maps = {name: values[..., chosen[name]] for name, values in layers.items()}
    counts = {name: values.shape[-1] for name, values in layers.items()}
    if 0 < len(channels) <= _LARGE:
        figure = figures.large_channels(
            seen.pictures[one], maps, channels=channels, title=seen.names[one]
        )
    else:
        grey = {name: np.asarray(tokens.channels(jnp.asarray(m))) for name, m in maps.items()}
        figure = figures.channels(grey, counts, title=f'{seen.names[one]}: {figures.STANDARDISED}')
    arrays = {name.replace('/', '.'): values for name, values in maps.items()}
    which = {f'{name.replace("/", ".")} channels': chosen[name] for name in maps}
    yield Drawing('activations', figure, arrays | which)


def _layers(seen: Seen, layer: int | None, at: str | None) -> dict[str, jnp.ndarray]:
    """Layers to show by name, [B, ...] each."""
    path = at or ('blocks' if 'blocks' in seen.found else None)
    if path is None:
        known = seen.stages()
        stages = {name: maps for name, maps in known.items() if maps.shape[1] > 1} or known
        shown = [list(stages)[i] for i in some(len(stages), 4)]
        if layer is not None:
            shown = [list(seen.feature_maps())[layer_index(layer, len(seen.feature_maps()))]]
        return {name: known[name] for name in shown}
    values = seen.found[path]
    if not path.startswith('blocks'):
        return {path: values}
    indices = some(len(values), 3) if layer is None else [layer_index(layer, len(values))]
    of = '' if path == 'blocks' else f'{path}, '
    return {f'{of}layer {i + 1}': values[i] for i in indices}


def _channels(values: np.ndarray, asked: Sequence[int], name: str) -> np.ndarray:
    count = values.shape[-1]
    if len(asked):
        if not 0 <= min(asked) <= max(asked) < count:
            raise ValueError(f'channels must be 0 to {count - 1} at {name}: got {[*asked]}.')
        return np.asarray(asked)
    return np.sort(np.argsort(-values.std((0, 1)), kind='stable')[:_MOST])


VIEW = View('tokens', draw, rf'blocks|{MAPS}|pool_\d+')
