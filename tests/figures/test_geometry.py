"""Geometry of every figure: all texts apart and inside, and no small panel, whatever it shows."""

import itertools
import warnings

import numpy as np
import pytest
from every_figure import FIGURES
from matplotlib.text import Text

LONG = 'a_name_of_fifty_characters_or a few more of words, '
GRID = [*itertools.product((1, 2, 3, 5, 8), (1, 2, 3, 6, 12, 16), (2, 7, 24), ('a', LONG))]


def faults(figure):
    """Texts outside a figure, two that cover each other, and panels of under half an inch."""
    texts, ours = [], Text.draw

    def draw(self, renderer):
        if self.get_text().strip() and self.get_visible():
            texts.append((self.get_text(), self.get_window_extent(renderer)))
        ours(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, 'draw', draw)
        figure.draw_without_rendering()
    width, height = figure.bbox.size
    for text, box in texts:
        if '$' in text:
            yield f'a formula: {text!r}'
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            yield f'outside: {text!r}'
    boxes = np.array([box.extents for _, box in texts]) + (0.5, 0.5, -0.5, -0.5)  # half a pixel
    low, high = boxes[:, None, :2], boxes[None, :, 2:]
    meet = (low < high).all(-1)
    for i, j in np.argwhere(np.triu(meet & meet.T, 1)):
        yield f'{texts[i][0]!r} covers {texts[j][0]!r}'
    for axis in figure.axes:
        sides = axis.get_window_extent().size / figure.dpi
        if axis.get_label() != '<colorbar>' and sides.min() < 0.5:
            yield f'a panel of {sides} inches: {axis.get_title()!r}'


def check(kind, *numbers):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        figure = FIGURES[kind](*numbers)
        assert not [*faults(figure)], (kind, *numbers)
    assert figure.get_figwidth() < 7.45, (kind, *numbers)


@pytest.mark.parametrize('kind', FIGURES)
def test_texts_lie_apart_and_inside_and_panels_are_large_enough(kind):
    check(kind, 2, 3, 4, LONG)


@pytest.mark.slow
@pytest.mark.parametrize('kind', FIGURES)
def test_any_number_of_images_heads_and_layers_is_drawn(kind):
    """A few corners each; another function takes others."""
    for numbers in GRID[[*FIGURES].index(kind) :: 60]:
        check(kind, *numbers)
