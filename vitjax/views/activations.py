"""activations: channels of some layers as maps over an image."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import tokens
from vitjax.data.order import evenly
from vitjax.figures import tokens as figures
from vitjax.views.forward import STAGES, Layer, Results
from vitjax.views.view import Drawing, Drawn, View

_MOST, _LARGE = 64, 6  # channels of a layer side by side, and as large maps with their values


def draw(results: Results) -> Drawn:
    """The channels of a layer that vary most over an image, all of chosen layers, or some large.

    Arrays are maps by layer, [rows, columns, channels], and indices of the channels. Several
    chosen layers (`at`) have a drawing each, named after them.

    Args:
        results: results with the trunk's tokens, or feature maps.
            Options: `image`, `layer`, `at`, `channels`.
    """
    layers, large = _layers(results), 0 < len(results.options.channels) <= _LARGE
    if results.at and len(layers) > 1 and not large:
        for layer in layers:
            yield _drawing(results, [layer], f'activations_{layer.stem}')
    else:
        yield _drawing(results, layers, 'activations')


def _drawing(results: Results, layers: Sequence[Layer], name: str) -> Drawing:
    one, asked = results.image(), results.options.channels
    photograph, title = results.photographs[one], results.names[one]
    values = {layer.label: np.asarray(results.as_maps(layer)[one]) for layer in layers}
    most = None if results.at else _MOST
    chosen = {label: _channels(each, asked, label, most) for label, each in values.items()}
    maps = {label: each[..., chosen[label]] for label, each in values.items()}
    if 0 < len(asked) <= _LARGE:
        figure = figures.large_channels(photograph, maps, channels=asked, title=title)
    else:
        grey = {label: np.asarray(tokens.channels(jnp.asarray(m))) for label, m in maps.items()}
        counts = {label: each.shape[-1] for label, each in values.items()}
        title = f'{title}: {figures.STANDARDISED}'
        figure = figures.channels(grey, chosen, counts, title=title)
    arrays = maps | {f'{label} channels': each for label, each in chosen.items()}
    arrays = {label.replace('/', '.'): each for label, each in arrays.items()}
    return Drawing(name, figure, arrays | {'names': np.array(results.names[one : one + 1])})


def _layers(results: Results) -> list[Layer]:
    """Layers to show: all of chosen paths, else three of a stack, or four feature maps."""
    if results.at:
        layers = [layer for path in results.at for layer in results.layers(path)]
        return [*filter(results.has_patches, layers)] or layers
    if 'blocks' in results.found:
        layers = results.layers('blocks')
        return [layers[i] for i in evenly(len(layers), 3)]
    stages, maps = results.feature_maps(STAGES), [*results.feature_maps()]
    if results.options.layer is not None:
        return [Layer(maps[results.layer(len(maps))])]
    large = [path for path, values in stages.items() if values.shape[1] > 1] or [*stages]
    shown = [Layer(large[i]) for i in evenly(len(large), 4)]
    return shown[:1] if results.options.channels else shown  # later ones may lack these channels


def _channels(values: np.ndarray, asked: Sequence[int], label: str, most: int | None) -> np.ndarray:
    """Indices of the channels to show: those asked for, or those that vary most."""
    count = values.shape[-1]
    if not len(asked):
        return np.sort(np.argsort(-values.std((0, 1)), kind='stable')[:most])
    if not 0 <= min(asked) <= max(asked) < count:
        raise ValueError(f'channels must be 0 to {count - 1} at {label}: got {[*asked]}.')
    return np.asarray(asked)


VIEW = View('tokens', draw, f'blocks|{STAGES}')
