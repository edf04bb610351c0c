"""Style of figures: the sizes, fonts and formats of journals, and text that fonts can draw."""

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib
from matplotlib import font_manager

WIDTH = 7.2  # inches: two columns, as Nature, Science and IEEE print them

# Text is 7 to 8 points at the printed size.
STYLE: Any = {
    'font.size': 8, 'figure.titlesize': 8, 'axes.titlesize': 8, 'axes.labelsize': 8,
    'xtick.labelsize': 7, 'ytick.labelsize': 7, 'legend.fontsize': 7, 'legend.title_fontsize': 7,
    'axes.linewidth': 0.6, 'axes.titlepad': 3, 'axes.axisbelow': True,
    'grid.linewidth': 0.5, 'grid.alpha': 0.3, 'lines.linewidth': 1.1,
    'lines.markersize': 3, 'xtick.major.width': 0.6, 'ytick.major.width': 0.6,
    'xtick.major.size': 2.5, 'ytick.major.size': 2.5, 'xtick.minor.size': 0, 'ytick.minor.size': 0,
    'legend.frameon': False, 'image.cmap': 'viridis', 'savefig.dpi': 300,
    'pdf.fonttype': 42, 'ps.fonttype': 42, 'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'vitjax',  # the same bytes for the same figure
    'text.parse_math': False,  # a $ in the name of a file or class is a $
}  # fmt: skip

# The first installed one is used, and the others for characters that it lacks.
_LATIN = ('Arial', 'Helvetica', 'Liberation Sans')
_OTHERS = (
    'DejaVu Sans', 'Noto Sans CJK SC', 'Noto Sans CJK JP', 'PingFang SC', 'Hiragino Sans',
    'Microsoft YaHei', 'Malgun Gothic', 'WenQuanYi Zen Hei', 'Noto Sans Arabic', 'Noto Sans Hebrew',
    'Noto Sans Devanagari', 'Noto Sans Thai',
)  # fmt: skip
_WORD, _TEXT = 60, 240  # characters that are shown; titles are broken between words


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Sets matplotlib's defaults and `STYLE`, and afterwards restores the user's settings.

    The defaults come first: with `text.usetex` or others of a user's matplotlibrc, figures could
    not be drawn.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({'font.family': [*families()], **STYLE})
        yield


def drawable(value: Any) -> Any:
    r"""A text, or the texts in lists, tuples and mappings, with characters that fonts can draw.

    A character that no font has becomes its escape, such as `\u96ea`: matplotlib would warn and
    draw one box for all of them. Words are cut to 60 characters and texts to 240, in the middle.
    """
    if isinstance(value, str):
        text = ''.join(c if c == '\n' or ord(c) in _glyphs() else _escape(c) for c in value)
        text = re.sub(rf'\S{{{_WORD + 1},}}', lambda found: cut(found[0], _WORD), text)
        return cut(text, _TEXT)
    if isinstance(value, Mapping):
        return {drawable(key): drawable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [*map(drawable, value)]
    if isinstance(value, tuple):
        parts = map(drawable, value)
        return type(value)(*parts) if hasattr(value, '_fields') else tuple(parts)
    return value


def cut(text: str, most: int) -> str:
    """A text cut in the middle to at most `most` characters."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f'{text[: most - 1 - end]}…{text[len(text) - end :]}'


def _escape(character: str) -> str:
    return character.encode('unicode_escape').decode()


@functools.cache
def families() -> tuple[str, ...]:
    """Installed fonts in the order of use."""
    known = {*font_manager.fontManager.get_font_names()}
    return tuple(name for name in (*_LATIN, *_OTHERS) if name in known)


@functools.cache
def _glyphs() -> frozenset[int]:
    """Code points of all fonts together."""
    fonts = (font_manager.get_font(font_manager.findfont(name)) for name in families())
    return frozenset().union(*(font.get_charmap() for font in fonts)) - {*range(32), 127}
