from typing import Any

import numpy as np

from vitjax.figures import attention as figures

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(size=(2, 24, 24, 3))


def drawn(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_heads_has_one_row_an_image_and_one_panel_a_head():
    maps = RNG.uniform(size=(2, 4, 3, 3))
    figure = figures.heads(PICTURES, maps, query=(1, 2))
    assert len(figure.axes) == 2 * 5
    assert titles(figure) == ['head 1', 'head 2', 'head 3', 'head 4']
    np.testing.assert_array_equal(drawn(figure.axes[5 + 3]), maps[1, 2])
    square: Any = figure.axes[0].patches[0]
    assert (square.get_xy(), square.get_width()) == ((2 * 8 - 0.5, 8 - 0.5), 8)


def test_heads_beyond_twelve_are_thinned_and_signed_ones_centred():
    maps = RNG.normal(size=(2, 16, 3, 3))
    figure = figures.heads(PICTURES, maps, signed=True)
    assert len(figure.axes) == 2 * 13
    assert titles(figure)[0] == 'head 1' and titles(figure)[-1] == 'head 16'
    for axis in figure.axes[1:13]:
        low, high = axis.images[0].get_clim()
        assert low == -high


def test_heads_by_layer_has_a_column_a_layer_and_a_row_a_head():
    figure = figures.heads_by_layer(PICTURES[0], RNG.uniform(size=(24, 3, 4, 4)))
    assert len(figure.axes) == 3 * 13
    assert titles(figure)[0] == 'layer 1' and titles(figure)[-1] == 'layer 24'
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert labels == ['head 1', 'head 2', 'head 3']


def test_overlays_and_frames():
    maps = RNG.uniform(size=(2, 3, 3))
    figure = figures.overlays(PICTURES, {'a': maps, 'b': maps}, titles=['cat', 'dog'], smooth=False)
    assert len(figure.axes) == 6
    assert titles(figure) == ['cat', 'dog']
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ['', 'a', 'b']
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 2, 2, 2, 2]
    frame = figures.frame(PICTURES, maps, 'layer 3 of 9')
    assert len(frame.axes) == 2 and frame.get_suptitle() == 'layer 3 of 9'


def test_distances_show_every_head_and_the_uniform_line():
    distance, entropy = RNG.uniform(5, 90, size=(6, 4)), RNG.uniform(0, 3, size=(6, 4))
    figure = figures.distances(distance, entropy, largest=4.0)
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ('pixels', 'nats')
    np.testing.assert_array_equal(left.lines[4].get_ydata(), distance.mean(1))
    assert left.get_ylim()[0] == 0 and left.get_ylim()[1] >= distance.max()
    assert right.get_ylim()[1] > 4.0  # the line of uniform attention is inside
