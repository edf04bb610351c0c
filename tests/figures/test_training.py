from typing import Any

import numpy as np

from vitjax.figures import training as figures
from vitjax.figures.attention import UNIFORM

RNG = np.random.default_rng(0)


def record(epoch, split, **values):
    return {'epoch': epoch, 'split': split, 'accuracy': 0.5, 'loss': 1.0, **values}


def titles(figure):
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_a_run_of_one_epoch_has_points_and_one_tick():
    rows = [record(1, split, top5=0.7) for split in ('train', 'validation', 'test')]
    figure = figures.learning_curves(rows)
    assert titles(figure) == ['accuracy', 'top-5 accuracy', 'loss']
    figure.canvas.draw()
    for axis in figure.axes:
        assert [line.get_marker() for line in axis.lines] == ['o', 's']
        low, high = axis.get_xlim()
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]


def test_two_classes_have_no_top_5_and_no_axis_goes_beyond_100_percent():
    rows = [record(e, s, accuracy=1.0, top5=1) for e in (1, 2) for s in ('train', 'validation')]
    figure = figures.learning_curves(rows)
    assert titles(figure) == ['accuracy', 'loss']
    assert figure.axes[0].get_ylim()[1] == 1


def test_a_strip_of_attention_has_a_row_an_epoch():
    maps = RNG.uniform(size=(20, 2, 3, 3))
    figure = figures.attention_strip(
        RNG.uniform(size=(2, 12, 12, 3)), maps, UNIFORM, epochs=range(1, 21), true=['cat', 'dog'],
        predicted=[['dog', 'cat']] * 20, title='last layer',
    )  # fmt: skip
    rows = [axis.get_ylabel() for axis in figure.axes[:-1] if axis.get_ylabel()]
    assert len(rows) == 9 and (rows[0], rows[1], rows[-1]) == ('image', 'epoch 1', 'epoch 20')
    assert titles(figure)[:4] == ['cat', 'dog', 'dog', 'cat']
    said = 'true class above each image, predicted class above each map'
    assert figure.get_suptitle().replace('\n', ' ') == f'last layer; {said}'
    assert {axis.images[1].get_clim() for axis in figure.axes[2:18]} == {(0, 3)}


def test_a_normalised_confusion_matrix_is_percent_of_each_true_class():
    matrix = np.array([[3, 1], [0, 5]])
    counts, shares = (
        figures.confusion(matrix, ['$a^{', 'b'], normalised=each) for each in (False, True)
    )
    for figure, wanted in ((counts, ['3', '1', '5']), (shares, ['75', '25', '100'])):
        assert [text.get_text() for text in figure.axes[0].texts] == wanted
        figure.canvas.draw()
    shown: Any = shares.axes[0].images[0].get_array()  # errors alone
    np.testing.assert_array_equal(np.ma.filled(shown, np.nan), [[np.nan, 25], [np.nan] * 2])
    assert counts.get_suptitle().startswith('88.9% of 9 images are correct')


def test_a_hundred_classes_are_named_on_both_axes():
    names = [f'class {i}' for i in range(100)]
    axis = figures.confusion(np.eye(100, dtype=int), names).axes[0]
    for one in (axis.xaxis, axis.yaxis):
        assert [text.get_text() for text in one.get_ticklabels()] == names
