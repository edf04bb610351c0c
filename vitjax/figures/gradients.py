"""What gradients show: filters, preferred inputs, receptive fields, what can be removed."""

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from vitjax.figures.panels import (
    GAP,
    charts,
    fractions,
    montage,
    number,
    panels,
    percent,
    show,
    unclip,
    wrapped,
)
from vitjax.figures.style import COLUMN, WIDTH, Figure, styled


@styled
def filters(pictures: np.ndarray, components: np.ndarray | None, *, title: str) -> Figure:
    """First-layer filters, and their principal components where there are any.

    Args:
        pictures: in 0..1, filters in colour [n, h, w, 3] or grey [n, h, w], of which at most 64 are
            shown; or of many channels [n, channels, h, w], the first 16 channels of the first 16.
        components: [count, h, w, 3] or [count, h, w] in 0..1, or None.
        title: of the filters.
    """
    if pictures.ndim == 3 or (pictures.shape[-1] == 3 and pictures.shape[1] == pictures.shape[2]):
        left = montage(_coloured(pictures[:64]), fill=GAP)
    else:
        grey = pictures[:16, :16]
        left = montage(_coloured(grey.reshape(-1, *grey.shape[2:])), grey.shape[1], fill=GAP)
    figure, axes = panels(1, 1 if components is None else 2, side=WIDTH / 2)
    show(axes[0, 0], left, title)
    if components is not None:
        said = f'{len(components)} principal components'
        show(axes[0, 1], montage(_coloured(components), fill=GAP), said)
    return figure


def _coloured(pictures: np.ndarray) -> np.ndarray:
    """Grey pictures [n, h, w] as [n, h, w, 3]; others as they are."""
    return pictures if pictures.ndim == 4 else np.repeat(pictures[..., None], 3, -1)


@styled
def maximised(pictures: np.ndarray, *, titles: Sequence[str]) -> Figure:
    """What units prefer: pictures [n, H, W, 3], uint8."""
    figure, axes = wrapped(len(pictures), 4, side=WIDTH / 4)
    for axis, picture, title in zip(axes, pictures, titles, strict=True):
        show(axis, picture, title)
    return figure


@styled
def receptive_fields(fields: np.ndarray, sizes: np.ndarray, *, titles: Sequence[str]) -> Figure:
    """Effective receptive fields [n, H, W], each on its own logarithmic scale over three decades.

    `sizes` [n], sides in pixels, go into the titles.
    """
    figure, axes = wrapped(len(fields), 6, side=(WIDTH - 0.7) / 6, top=0.4)
    scale = Normalize(-3, 0)
    shares, label = fractions(fields, 'gradient', of="each field's")
    for axis, share, size, title in zip(axes, shares, sizes, titles, strict=True):
        relative = np.log10(np.maximum(share, 1e-3))
        show(axis, relative, f'{title}\n{size:.0f} px', cmap='inferno', norm=scale)
    colours = ScalarMappable(scale, 'inferno')
    bar = figure.colorbar(colours, ax=figure.axes, shrink=0.8, ticks=[-3, -2, -1, 0])
    bar.ax.set_yticklabels(['≤ 0.001', '0.01', '0.1', '1'])
    bar.set_label(label)
    return figure


@styled
def importance(
    heads: np.ndarray | None, shares: np.ndarray | None, left: np.ndarray | None,
    layers: Sequence[int], without: np.ndarray, *, ylabel: str,
) -> Figure:  # fmt: skip
    """How much each head matters, and what remains without heads or layers.

    Args:
        heads: importance, [layers, heads], 0 or more; None (with the next two) for a trunk without
            attention, whose layers alone are shown.
        shares: of all heads removed, least important first, 0 to 1.
        left: the measure then; as long as `shares`.
        layers: indices of the layers removed, one at a time.
        without: the measure without each of them.
        ylabel: what `left` and `without` measure.
    """
    alone = heads is None
    figure, axes = charts(COLUMN if alone else WIDTH, 2.4, 1 if alone else 3)
    axes[-1].bar(np.asarray(layers) + 1, without)
    axes[-1].set(title='one layer removed', xlabel='layer', ylabel=ylabel if alone else '')
    number(axes[-1])
    lowest = min([0.0, *without])
    if heads is not None and shares is not None and left is not None:
        extent = (0.5, heads.shape[1] + 0.5, len(heads) + 0.5, 0.5)
        shares_of, label = fractions(heads, 'importance', axis=None, of="the largest head's")
        image = axes[0].imshow(shares_of, aspect='auto', vmin=0, vmax=1, extent=extent)
        axes[0].set(title='importance of heads', xlabel='head', ylabel='layer')
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.colorbar(image, ax=axes[0], label=label)
        axes[1].plot(shares, left, 'o-')
        axes[1].set(title='heads removed', xlabel='share, least important first', ylabel=ylabel)
        percent(axes[1].xaxis)
        axes[1].grid(True)
        lowest = min([lowest, *left])
    for axis in axes[-2:]:  # the measure, whether or not there are heads
        axis.set_ylim(lowest, 1)
        unclip(axis)
    return figure
