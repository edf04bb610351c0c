"""How figures look: sizes, fonts and formats that journals take; all of it is set here."""

import os
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.figure

from vitjax import files
from vitjax.types import Format

WIDTH, COLUMN = 7.2, 3.5  # inches: two columns and one, as Nature, Science and IEEE print them
HEIGHT = 9.0  # inches of a page at most

# Text is 7 to 8 points at the printed size.
STYLE: Any = {
    'font.family': 'sans-serif',
    'font.sans-serif': ['Arial', 'Helvetica', 'Liberation Sans', 'DejaVu Sans'],
    'font.size': 8, 'figure.titlesize': 8, 'axes.titlesize': 8, 'axes.labelsize': 8,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'legend.fontsize': 7, 'legend.title_fontsize': 7,
    'axes.linewidth': 0.6, 'axes.axisbelow': True,
    'grid.linewidth': 0.5, 'grid.alpha': 0.3, 'lines.linewidth': 1.1,
    'lines.markersize': 3, 'xtick.major.width': 0.6, 'ytick.major.width': 0.6,
    'xtick.major.size': 2.5, 'ytick.major.size': 2.5, 'xtick.minor.size': 0, 'ytick.minor.size': 0,
    'legend.frameon': False, 'image.cmap': 'viridis', 'savefig.dpi': 300,
    'pdf.fonttype': 42, 'ps.fonttype': 42, 'svg.fonttype': 'none',  # text stays text
}  # fmt: skip

styled = matplotlib.rc_context(STYLE)  # decorates a function that makes a figure


class Figure(matplotlib.figure.Figure):
    """A figure that keeps the style whoever draws it: ticks are made when it is drawn."""

    def draw(self, renderer: Any) -> None:
        """Draws it, in the style."""
        with matplotlib.rc_context(STYLE):
            super().draw(renderer)

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Saves it, in the style."""
        with matplotlib.rc_context(STYLE):
            super().savefig(*args, **kwargs)

    def save(self, path: str | os.PathLike[str], formats: Sequence[Format] = ('png',)) -> list[str]:
        """Writes `PATH.FORMAT` for each format, each in one step; returns the files' names."""
        paths = [f'{os.fspath(path)}.{kind}' for kind in formats]
        for kind, path in zip(formats, paths, strict=True):
            with files.writing(path) as file:
                self.savefig(file, format=kind)
        return [os.path.basename(path) for path in paths]
