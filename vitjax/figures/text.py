"""Texts in figures: measured, broken into lines that fit, and cut in the middle."""

import functools
import re

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from vitjax.figures.style import cut, families


@functools.lru_cache(20_000)
def inches(text: str, size: float = 8) -> float:
    """Width of the longest line of a text in the style's font, `size` in points."""
    font = FontProperties(family=families(), size=size)
    measure = text_to_path.get_text_width_height_descent
    # On a grid of pixels it may be some percent wider.
    return 1.03 / 72 * max(measure(line, font, ismath=False)[0] for line in text.split('\n'))


def fitted(text: str, width: float, *, size: float = 8, lines: int = 2) -> str:
    """A text in lines that fit in `width` inches; `dog, 80%` stays in one piece.

    Each line of the text is broken into at most `lines`; a longer one is cut in the middle.
    """
    return '\n'.join(_fitted(line, width, size, lines) for line in text.split('\n'))


def _fitted(text: str, width: float, size: float, lines: int) -> str:
    for most in range(len(text), 1, -1):
        broken: list[str] = []
        for word in re.split(r' (?!\d+%)', cut(text, most)):
            if broken and inches(f'{broken[-1]} {word}', size) <= width:
                broken[-1] += f' {word}'
            else:
                broken.append(word)
        if len(broken) <= lines and all(inches(line, size) <= width for line in broken):
            return '\n'.join(broken)
    return cut(text, 1)


def short(name: str, most: int = 22) -> str:
    """The first of a class's names, separated by commas, cut to `most` characters."""
    return named(name.split(',')[0].strip() or name, most)


def named(name: str, most: int) -> str:
    """A name for a tick or legend: cut in the middle; a stand-in for a blank one."""
    return cut(name, most) if name.strip() else '(no name)'
