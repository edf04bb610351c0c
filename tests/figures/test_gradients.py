from typing import Any

import numpy as np
import pytest

from vitjax.figures import gradients as figures

RNG = np.random.default_rng(0)


def drawn(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def test_filters_in_colour_come_with_their_components():
    figure = figures.filters(
        RNG.uniform(size=(80, 4, 4, 3)), RNG.uniform(size=(9, 4, 4, 3)), title='first layer'
    )
    assert [axis.get_title() for axis in figure.axes] == ['first layer', '9 principal components']
    assert drawn(figure.axes[0]).shape == (8 * 5 - 1, 8 * 5 - 1, 3)


@pytest.mark.parametrize('channels', [4, 32])
def test_filters_in_grey_are_a_grid_of_outputs_and_inputs(channels):
    figure = figures.filters(RNG.uniform(size=(32, channels, 3, 3)), None, title='deeper')
    shown = min(channels, 16)
    assert drawn(figure.axes[0]).shape == (16 * 4 - 1, shown * 4 - 1, 3)


def test_maximised_and_fields_leave_empty_places_blank():
    figure = figures.maximised(RNG.integers(0, 255, (5, 8, 8, 3)), titles=list('abcde'))
    assert [axis.get_title() for axis in figure.axes[:5]] == list('abcde')
    assert not any(axis.axison for axis in figure.axes[5:])
    fields = RNG.uniform(size=(3, 9, 9))
    figure = figures.receptive_fields(fields, np.array([3.0, 5.0, 9.0]), titles=['a', 'b', 'c'])
    assert [axis.get_title() for axis in figure.axes[:3]] == ['a\n3 px', 'b\n5 px', 'c\n9 px']
    assert all(axis.images[0].get_clim() == (-3, 0) for axis in figure.axes[:3])


def test_importance_with_and_without_heads():
    shares, left = np.linspace(0, 0.9, 10), np.linspace(1, -0.2, 10)
    figure = figures.importance(
        RNG.uniform(size=(6, 4)), shares, left, [0, 2, 5], np.array([0.9, 0.8, 0.1]),
        ylabel='accuracy',
    )  # fmt: skip
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ['importance of heads', 'heads removed', 'one layer removed']
    assert figure.axes[1].get_ylim()[0] <= -0.2 and figure.axes[1].get_ylabel() == 'accuracy'
    bars: Any = figure.axes[2].patches
    assert [bar.get_height() for bar in bars] == [0.9, 0.8, 0.1]
    alone = figures.importance(None, None, None, [0, 1], np.array([0.5, 0.4]), ylabel='accuracy')
    assert len(alone.axes) == 1 and alone.axes[0].get_ylabel() == 'accuracy'
    figures.importance(None, None, None, [], np.array([]), ylabel='accuracy').canvas.draw()
