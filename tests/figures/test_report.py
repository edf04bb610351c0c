import numpy as np

from vitjax.figures import report as figures
from vitjax.figures.report import Curve


def curve(seeds):
    """Of one seed, which has no interval, or of several."""
    epochs, mean = np.arange(1, 5), np.array([0.1, 0.5, 0.7, 0.9])
    low, high = (mean - 0.05, mean + 0.05) if seeds > 1 else (mean * np.nan, mean * np.nan)
    return Curve(epochs, mean, low, high)


def test_every_group_is_drawn_in_every_panel_that_it_has():
    groups = {
        f'$rate_{i}': {('train', 'loss'): curve(1), ('validation', 'loss'): curve(i)}
        | ({('validation', 'accuracy'): curve(i)} if i == 1 else {})
        for i in (1, 3)
    }
    figure = figures.curves(groups)
    accuracy, loss = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ['accuracy', 'loss']
    assert len(accuracy.lines) == 1 and len(loss.lines) == 4
    assert len(accuracy.collections) == 0 and len(loss.collections) == 1  # of three seeds
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ['$rate_1', '$rate_3', 'train', 'validation']
    np.testing.assert_array_equal(np.asarray(loss.lines[0].get_ydata()), curve(1).mean)


def test_files_in_memory_are_the_same_for_the_same_figure():
    groups = {'a $ group': {('validation', 'accuracy'): curve(3)}}
    first, second = (figures.svg(figures.curves(groups)) for _ in range(2))
    assert first == second and b'<svg' in first
    figure = figures.curves(groups)
    figure.suptitle('no $formula^{')
    assert figure.png().startswith(b'\x89PNG')


def test_many_groups_have_colours_of_their_own():
    groups = {f'group {i}': {('validation', 'loss'): curve(1)} for i in range(30)}
    (axis,) = figures.curves(groups).axes
    assert len({tuple(line.get_color()) for line in axis.lines}) == 30
