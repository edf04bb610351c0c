"""Filters, preferred inputs, receptive fields, and the importance of heads and layers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from vitjax.figures.charts import charts, heat, number, percent, unclip
from vitjax.figures.figure import Figure, styled
from vitjax.figures.panels import GAP, fractions, montage, panels, show, table


@styled
def filters(pictures: np.ndarray, components: np.ndarray | None, *, title: str) -> Figure:
    """First-layer filters, and their principal components if given.

    Args:
        pictures: filters in 0..1. In color [n, h, w, 3] or grey [n, h, w] at most 64 are shown;
            of many channels [n, channels, h, w], the first 16 channels of the first 16.
        components: [count, h, w, 3] or [count, h, w] in 0..1, or None.
        title: title of the filters.
    """
    if pictures.ndim == 3 or (pictures.shape[-1] == 3 and pictures.shape[1] == pictures.shape[2]):
        left = montage(_colored(pictures[:64]), fill=GAP)
    else:
        grey = pictures[:16, :16]
        left = montage(_colored(grey.reshape(-1, *grey.shape[2:])), grey.shape[1], fill=GAP)
    figure, axes = panels(1, 1 if components is None else 2, side=3.2)
    show(axes[0, 0], left, title)
    if components is not None:
        said = f'{len(components)} principal components'
        show(axes[0, 1], montage(_colored(components), fill=GAP), said)
    return figure


def _colored(pictures: np.ndarray) -> np.ndarray:
    """Grey pictures [n, h, w] as [n, h, w, 3]; others unchanged."""
    return pictures if pictures.ndim == 4 else np.repeat(pictures[..., None], 3, -1)


@styled
def maximised(pictures: np.ndarray, *, titles: Sequence[str], title: str = '') -> Figure:
    """Preferred inputs of units: pictures [n, H, W, 3], uint8."""
    figure, (axes,), _ = table(len(pictures), [''], 4)
    for axis, picture, said in zip(axes, pictures, titles, strict=True):
        show(axis, picture, said)
    figure.suptitle(title)
    return figure


@styled
def receptive_fields(fields: np.ndarray, sizes: np.ndarray, *, titles: Sequence[str]) -> Figure:
    """Effective receptive fields [n, H, W], each on its own logarithmic scale over three decades.

    Args:
        fields: gradients, 0 or more.
        sizes: sides of the fields in pixels [n], for the titles.
        titles: titles of the panels.
    """
    figure, (axes,), _ = table(len(fields), [''], 6)
    scale = Normalize(-3, 0)
    relative, label = fractions(fields, 'gradient', of="each field's")
    for axis, values, size, title in zip(axes, relative, sizes, titles, strict=True):
        logarithm = np.log10(np.maximum(values, 1e-3))
        show(axis, logarithm, f'{title}\n{size:.0f} px', cmap='inferno', norm=scale)
    bar = figure.bar(ScalarMappable(scale, 'inferno'), axes, label)
    bar.set_ticks([-3, -2, -1, 0], labels=['≤ 0.001', '0.01', '0.1', '1'])
    return figure


@styled
def importance(
    heads: np.ndarray | None, removed: np.ndarray | None, left: np.ndarray | None,
    layers: Sequence[int], without: np.ndarray, *, ylabel: str,
) -> Figure:  # fmt: skip
    """Importance of each head, and a measure without heads or layers.

    Args:
        heads: importance, [layers, heads], 0 or more; None (with the next two) for a trunk without
            attention, of which only the layers are shown.
        removed: fractions of all heads that are removed, least important first.
        left: measure without these heads; as long as `removed`.
        layers: indices of the layers removed, one at a time.
        without: measure without each of them.
        ylabel: quantity of `left` and `without`.
    """
    count = 1 if heads is None else 3
    figure, axes = charts(count)
    axes[-1].bar(np.asarray(layers) + 1, without)
    axes[-1].set(title='one layer removed', xlabel='layer removed', ylabel=ylabel)
    number(axes[-1])
    lowest = min([0.0, *without])
    if heads is not None and removed is not None and left is not None:
        relative, label = fractions(heads, 'importance', axis=None, of='the')
        layer, head = (range(1, count + 1) for count in heads.shape)
        image = heat(axes[0], relative, ('head', head), ('layer', layer), vmin=0, vmax=1)
        axes[0].set_title('importance of heads')
        figure.bar(image, axes[0], label)
        axes[1].plot(removed, left, 'o-')
        axes[1].set(
            title='heads removed', xlabel='heads removed, least important first', ylabel=ylabel
        )
        percent(axes[1].xaxis)
        axes[1].grid(True)
        lowest = min([lowest, *left])
    for axis in axes[-2:]:  # those of the measure
        axis.set_ylim(lowest, 1)
        unclip(axis)
    return figure
