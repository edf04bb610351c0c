from typing import Any

import numpy as np
import pytest

from vitjax.figures import tokens as figures

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(size=(2, 24, 24, 3))


def drawn(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


@pytest.mark.parametrize(('side', 'shown'), [(4, 4), (16, 16), (37, 13)])
def test_positions_are_a_grid_of_grids(side, shown):
    figure = figures.positions(np.eye(side**2), grid=(side, side), title='learned')
    axis = figure.axes[0]
    assert axis.get_title() == 'learned'
    assert len(axis.get_xticks()) == len(axis.get_yticks()) == shown
    picture = drawn(axis)
    gap = max(1, side // 10)
    assert picture.shape == (shown * (side + gap) - gap,) * 2
    assert picture[0, 0] == 1 and picture[0, side + gap] == 0  # the second grid's patch is not it
    assert (figure.axes[1].get_ylabel(), axis.images[0].get_clim()) == ('cosine similarity', (0, 1))


def test_over_depth_draws_a_line_an_image():
    values = RNG.normal(size=(5, 2))
    figure = figures.over_depth({'a': ('x', values), 'b': ('y', -values)}, labels=['cat', 'dog'])
    assert [axis.get_title() for axis in figure.axes] == ['a', 'b']
    np.testing.assert_array_equal(figure.axes[1].lines[1].get_ydata(), -values[:, 1])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['cat', 'dog']
    named = figures.over_depth({'a': ('x', values)}, labels=['cat', 'dog'], layers=list('pqrst'))
    assert [label.get_text() for label in named.axes[0].get_xticklabels()] == list('pqrst')


def test_lens_writes_the_class_of_every_layer():
    names = [['cat', 'a very long name of a class, or two'], ['cat', 'dog'], ['cat', 'dog']]
    figure = figures.lens(
        np.full((3, 2), 0.5), names, labels=['one', 'two'], decided=np.array([0, 1])
    )
    axis = figure.axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts.pop(1).startswith('a very')
    assert texts == ['cat', 'cat', 'dog', 'cat', 'dog']
    marks = [np.asarray(line.get_ydata())[0] for line in axis.lines[1::2]]
    assert marks == [-0.5, 0.5]  # below the first layer, and between the first and the second
    assert axis.get_ylim() == (-0.5, 2.5)


def test_norms_have_one_scale_a_layer():
    maps = RNG.uniform(1, 9, size=(3, 2, 4, 4))
    figure = figures.norms(PICTURES, maps, layers=[0, 3, 6])
    axes = np.array(figure.axes[:10]).reshape(5, 2)
    for row, values in zip(axes[1:-1], maps, strict=True):
        assert {axis.images[0].get_clim() for axis in row} == {(values.min(), values.max())}
    assert axes[2, 0].get_ylabel() == 'layer 4'
    bars: Any = axes[-1, 1].patches
    assert sum(bar.get_height() for bar in bars) == 16  # every patch is counted


def test_patches_activations_and_channels():
    cut = RNG.uniform(size=(9, 8, 8, 3))
    figure = figures.patches(PICTURES[0], cut, PICTURES[0], columns=3, name='cat')
    assert [axis.get_title() for axis in figure.axes[:2]] == ['cat', '3x3 patches of 8x8 pixels']
    few, many = (RNG.integers(0, 255, size=(6, 6, c)).astype(np.uint8) for c in (3, 64))
    counts = {'few': 3, 'many': 80}
    numbers = {'few': [0, 1, 2], 'many': range(64)}
    figure = figures.channels({'few': few, 'many': many}, numbers, counts, title='cat', columns=8)
    titles = ['few: 3 channels of 6x6', 'many: 80 channels of 6x6, the 64 that vary most']
    assert [axis.get_title() for axis in figure.axes] == titles
    assert drawn(figure.axes[1]).shape[1] == 8 * 7 - 1
    assert [text.get_text() for text in figure.axes[0].texts] == ['0', '1', '2']


def test_large_channels_are_a_row_a_layer_on_one_scale():
    maps = RNG.normal(size=(6, 6, 2))
    figure = figures.large_channels(
        PICTURES[0], {'a': maps, 'b': 9 * maps}, channels=(5, 7), title='cat'
    )
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ['channel 5', 'channel 7']
    np.testing.assert_array_equal(drawn(figure.axes[2]), maps[..., 1])
    assert figure.axes[1].images[0].get_clim() == figure.axes[2].images[0].get_clim()
    assert figure.axes[4].images[0].get_clim() == (9 * maps.min(), 9 * maps.max())
