from typing import Any

import numpy as np

from vitjax.figures import attention as figures
from vitjax.figures.panels import Scale

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(size=(2, 24, 24, 3))


def drawn(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


LOOK = Scale('attention, uniform = 1')


def said(text):
    return text.replace('\n', ' ')


def test_heads_has_one_row_an_image_and_one_panel_a_head():
    maps = RNG.uniform(size=(2, 4, 3, 3))
    figure = figures.heads(PICTURES, maps, LOOK, title='layer 2', query=(1, 2))
    assert len(figure.axes) == 2 * 5 + 1
    assert titles(figure) == ['head 1', 'head 2', 'head 3', 'head 4']
    np.testing.assert_array_equal(drawn(figure.axes[5 + 3]), maps[1, 2])
    square: Any = figure.axes[0].patches[0]
    assert (square.get_xy(), square.get_width()) == ((2 * 8 - 0.5, 8 - 0.5), 8)
    assert figure.get_suptitle() == 'layer 2'
    assert said(figure.axes[-1].get_ylabel()) == 'attention, uniform = 1'


def limits(figure):
    return [axis.images[0].get_clim() for axis in figure.axes[1:-1]]


def test_maps_share_a_scale_on_which_uniform_attention_is_dim_and_flat():
    maps = np.ones((1, 3, 3, 3))
    assert (
        limits(figures.heads(PICTURES[:1], maps, LOOK._replace(least=3.0), title='a'))
        == [(0, 3)] * 3
    )
    maps[0, 2] = 5
    shared = figures.heads(PICTURES[:1], maps, LOOK._replace(least=3.0), title='a')
    assert limits(shared) == [(0, 5)] * 3
    assert drawn(shared.axes[1]).max() == 1


def test_maps_on_scales_of_their_own_all_reach_the_end():
    maps = np.ones((1, 2, 3, 3)) * np.array([1, 9])[:, None, None]
    figure = figures.heads(PICTURES[:1], maps, LOOK._replace(how='each'), title='a')
    assert limits(figure) == [(0, 1)] * 2
    assert drawn(figure.axes[1]).max() == drawn(figure.axes[2]).max() == 1
    assert "fraction of each map's maximum" in said(figure.axes[-1].get_ylabel())


def test_sixteen_heads_wrap_into_rows_and_signed_ones_are_centered():
    maps = RNG.normal(size=(2, 16, 3, 3))
    figure = figures.heads(PICTURES, maps, LOOK._replace(signed=True), title='layer 2')
    assert titles(figure) == [f'head {head}' for head in range(1, 17)] * 2
    ys = {axis.get_position().y0 for axis in figure.axes[1:17]}
    assert len(figure.axes) == 2 * 17 + 1 and len(ys) == 2
    (low, high), *others = [axis.images[0].get_clim() for axis in figure.axes[1:17]]
    assert low == -high and set(others) == {(low, high)}


def test_each_image_may_have_titles_of_its_own():
    own = [['a', 'b'], ['c', 'd']]
    maps = RNG.uniform(size=(2, 2, 3, 3))
    figure = figures.heads(PICTURES, maps, LOOK, title='a', titles=own, names=['x', 'y'])
    assert titles(figure) == ['x', 'a', 'b', 'y', 'c', 'd']


def test_heads_by_layer_has_a_column_a_layer_and_a_row_a_head():
    figure = figures.heads_by_layer(PICTURES[0], RNG.uniform(size=(24, 3, 4, 4)), LOOK, title='')
    assert len(figure.axes) == 1 + 3 * 12 + 1
    assert titles(figure)[0] == 'layer 1' and titles(figure)[-1] == 'layer 24'
    labels = [axis.get_ylabel() for axis in figure.axes[:-1] if axis.get_ylabel()]
    assert labels == ['head 1', 'head 2', 'head 3']


def test_overlays_and_frames():
    maps = RNG.uniform(size=(2, 3, 3))
    both = {'a': maps, 'b': 7 * maps}
    figure = figures.overlays(PICTURES, both, LOOK, titles=['cat', 'dog'], smooth=False)
    panels = figure.axes[:6]
    assert titles(figure) == ['cat', 'dog']
    assert [axis.get_ylabel() for axis in panels[::2]] == ['', 'a', 'b']
    assert [len(axis.images) for axis in panels] == [1, 1, 2, 2, 2, 2]
    assert len({axis.images[1].get_clim() for axis in panels[2:]}) == 1  # one scale, one bar
    assert len(figure.axes) == 7
    one, two = figures.over_depth(PICTURES, np.stack([maps, 2 * maps]), LOOK, title='mean')
    assert (two.get_suptitle(), two.axes[0].get_ylabel()) == ('mean', 'layer 2 of 2')
    assert (one.get_size_inches() == two.get_size_inches()).all()
    assert one.axes[0].images[1].get_clim() == two.axes[0].images[1].get_clim()


def test_distances_show_every_head_and_the_uniform_line():
    distance, entropy = RNG.uniform(5, 90, size=(6, 4)), RNG.uniform(0, 3, size=(6, 4))
    figure = figures.distances(distance, entropy, largest=4.0)
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ('distance (pixels)', 'entropy (nats)')
    np.testing.assert_array_equal(left.lines[4].get_ydata(), distance.mean(1))
    assert left.get_ylim()[0] == 0 and left.get_ylim()[1] >= distance.max()
    assert right.get_ylim()[1] > 4.0  # the line of uniform attention is inside
