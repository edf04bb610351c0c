import numpy as np

from vitjax.figures import similarity as figures


def test_a_heat_map_shows_every_layer_of_both_in_its_place():
    matrix = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, -0.1]])
    figure = figures.heat_map(
        matrix, ['a0', 'a1'], ['b0', 'b1', 'b2'], measure='CKA', x_label='A', y_label='B',
        span=(-0.1, 1),
    )  # fmt: skip
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ['b0', 'b1', 'b2']
    assert [t.get_text() for t in axis.get_yticklabels()] == ['a0', 'a1']
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('B', 'A')
    np.testing.assert_array_equal(np.asarray(axis.images[0].get_array()), matrix)
    assert axis.images[0].get_clim() == (-0.1, 1)
    written = {t.get_text(): t.get_position() for t in axis.texts}
    assert written['0.30'] == (2, 0) and written['-0.10'] == (2, 1)


def test_every_probe_has_its_curve_and_interval():
    accuracy = {'k-NN': np.array([0.2, 0.9]), 'ridge': np.array([0.3, 0.8])}
    interval = {name: (value - 0.1, value + 0.1) for name, value in accuracy.items()}
    axis = figures.probe_accuracy(['a', 'b'], accuracy, interval).axes[0]
    assert [line.get_label() for line in axis.lines] == ['k-NN', 'ridge']
    np.testing.assert_array_equal(np.asarray(axis.lines[1].get_ydata()), accuracy['ridge'])
    assert len(axis.collections) == 2
