import numpy as np
import pytest

from vitjax.figures import charts, panels
from vitjax.figures.text import fitted


def drawn(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def test_montage_puts_pictures_row_by_row_with_gaps():
    pictures = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    out = panels.montage(pictures, 3, gap=1, fill=-1)
    assert out.shape == (2 * 3 - 1, 3 * 4 - 1)
    np.testing.assert_array_equal(out[:2, 8:11], pictures[2])
    np.testing.assert_array_equal(out[3:, 4:7], pictures[4])
    assert (out[2] == -1).all() and (out[3:, 8:] == -1).all()  # gaps, and the place left over
    assert panels.montage(np.zeros((4, 2, 2, 3)), 2).shape == (5, 5, 3)


def test_overlay_covers_the_picture_and_one_outlier_does_not_hide_the_rest():
    figure, axes = panels.panels(1, 1)
    values = np.full((20, 20), 0.1)
    values[3, 4] = 100
    colors = panels.Scale('weight').colors(values)
    assert colors.norm(0.1) == 1
    panels.overlay(axes[0, 0], np.zeros((40, 60, 3)), values, colors.norm)
    photo, heat = axes[0, 0].images
    assert photo.get_extent() == heat.get_extent() == [-0.5, 59.5, 39.5, -0.5]
    assert (axes[0, 0].get_xlim(), axes[0, 0].get_ylim()) == ((-0.5, 59.5), (39.5, -0.5))
    assert heat.get_interpolation() == 'bicubic'
    colors.bar(figure, axes[0, 0])
    assert figure.axes[1].get_ylabel() == 'weight'


@pytest.mark.parametrize('how', ['shared', 'each'])
def test_maps_of_zeros_are_drawn(how):
    figure, axes = panels.panels(1, 1)
    zeros = panels.Scale('weight', how).colors(np.zeros((2, 2)))
    panels.overlay(axes[0, 0], np.zeros((8, 8, 3)), zeros.maps, zeros.norm, smooth=False)
    assert axes[0, 0].images[1].get_interpolation() == 'nearest'
    assert [text.get_text() for text in axes[0, 0].texts] == ['none\nabove 0']
    figure.canvas.draw()


def labels(axis):
    axis.figure.canvas.draw()
    return [text.get_text() for text in axis.get_yticklabels()]


@pytest.mark.parametrize(
    ('low', 'high', 'wanted'),
    [(0.82, 0.98, '82.5%'), (0.2, 0.9, '40%'), (0.9991, 0.9999, '99.94%')],
)
def test_percent_ticks_say_exactly_where_they_stand(low, high, wanted):
    figure, (axis,) = charts.charts()
    axis.plot([0, 1], [low, high])
    charts.percent(axis.yaxis)
    axis.set_yticks(np.arange(*{'82.5%': (0.8, 1, 0.025), '40%': (0.2, 1, 0.2)}.get(
        wanted, (0.9990, 1, 2e-4))))  # fmt: skip
    said = labels(axis)
    assert wanted in said
    read = [float(text.removesuffix('%')) / 100 for text in said]
    np.testing.assert_allclose(read, axis.get_yticks(), atol=1e-9)


def test_an_axis_of_fractions_ends_at_0_and_100_percent():
    figure, (axis,) = charts.charts()
    axis.plot([0, 1], [0.0, 1.0], 'o')
    charts.percent(axis.yaxis)
    assert axis.get_ylim() == (0, 1)
    assert not axis.lines[0].get_clip_on()  # markers there are drawn whole


def test_titles_are_wrapped_at_the_panel_and_predictions_stay_in_one_piece():
    title = 'a.jpg\npredicted: dog, 80%'
    assert fitted(title, 2) == title
    assert fitted(title, 1.0) == 'a.jpg\npredicted:\ndog, 80%'
    cut = fitted('a_long_name_of_a_photograph', 1.0)
    assert cut.startswith('a_long_') and cut.endswith('graph') and '…' in cut
