"""Titles and names in figures: broken into lines that fit, and cut."""

import textwrap
from typing import Any

from vitjax.figures.style import Figure, cut

LETTER = 0.068  # inches of an average letter of 8 points


def headed(figure: Any, title: str) -> None:
    """Gives a figure a title in as many lines as it needs, and the height for them.

    Matplotlib breaks lines as it draws. With two `$` it then reads a formula, whatever
    `text.parse_math` says.
    """
    most = max(8, int(figure.bbox.width / figure.dpi / LETTER))
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, most)]
    if len(lines) > 2 and isinstance(figure, Figure):
        figure.set_figheight(figure.get_figheight() + 0.14 * (len(lines) - 2))
    if title.count('$') < 2:
        figure.suptitle(title, wrap=True)
    else:
        figure.suptitle('\n'.join(lines))


def fitted(title: str, width: float) -> str:
    """A title in lines that fit in `width` inches; words and `a, b` stay in one piece."""
    most = max(1, int(width / LETTER))
    lines = (line.replace(', ', ',\xa0') for line in title.splitlines())
    parts = (textwrap.wrap(line, most, break_long_words=False) for line in lines)
    return '\n'.join('\n'.join(part) for part in parts).replace('\xa0', ' ')


def short(name: str, most: int = 22) -> str:
    """The first of a class's names, separated by commas, cut to `most` characters."""
    name = name.split(',')[0].strip() or name
    return named(name if len(name) <= most else name[: most - 1] + '…', most)


def named(name: str, most: int) -> str:
    """A name for a tick or legend: cut in the middle; a stand-in for a blank one."""
    return cut(name, most) if name.strip() else '(no name)'
