import numpy as np
import pytest

from vitjax.figures.scaling import exponent, fit, scaling

X = np.array([64, 256, 1024, 4096])


def test_exponents_are_those_of_power_laws():
    assert exponent(X, 3 * X**1.7) == pytest.approx(1.7)
    assert exponent(X, np.array([1.0, 16, 256, np.nan])) == pytest.approx(2)
    assert np.isnan(exponent(X, np.array([1.0, np.nan, np.nan, np.nan])))
    assert np.isnan(exponent(np.array([5, 5]), np.array([1.0, 2.0])))


def test_a_fit_with_as_many_parameters_as_points_is_refused():
    found = fit(X[:2], np.array([1.0, 5.0]))
    assert np.isnan(found.exponent) and '3 sizes are needed, 2 measured' in found.fault
    assert np.isnan(exponent(np.array([8, 8, 16]), np.array([1.0, 2.0, 3.0])))


def test_poor_fits_name_their_fault():
    falling = fit(X[:3], np.array([3.0, 2.1, 1.0]))
    assert falling.exponent < 0 and 'no growth' in falling.fault
    assert '(3 points, 1 degree of freedom)' in falling.fault
    noise = fit(X[:3], np.array([1.0, 9.0, 1.5]))
    assert noise.exponent > 0 and 'no exponent to speak of' in noise.fault
    assert not fit(X, 3.0 * X**1.7).fault


def test_intervals_of_exponents_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for count in (3, 4, 8):
        x = 64.0 * 2 ** np.arange(count)
        found = [fit(x, x**1.5 * np.exp(0.1 * rng.normal(size=count))) for _ in range(1000)]
        inside = np.mean([abs(each.exponent - 1.5) <= each.half for each in found])
        assert 0.93 < inside < 0.97, count


def test_curves_have_their_exponents_and_out_of_memory_is_a_cross():
    out = np.array([1.0, 16, 256, np.nan])
    curves = {
        'time': {('a', 'explicit'): (X, out), ('a', 'chunked'): (X, 1.0 * X)},
        'memory': {('a', 'explicit'): (X, out), ('b', 'explicit'): (X, 2.0 * X)},
    }
    figure = scaling(curves, x_label='tokens')
    axes = figure.axes
    assert [axis.get_ylabel() for axis in axes] == ['time', 'memory']
    legend = axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ['a, explicit: 2.00', 'out of memory', 'a, chunked: 1.00']
    lines = axes[0].get_lines()
    assert lines[0].get_color() == lines[2].get_color()  # a colour for a, a style for each line
    assert lines[0].get_linestyle() != lines[2].get_linestyle()
    assert lines[1].get_marker() == 'x' and np.array_equal(lines[1].get_xdata(), [4096])
    assert len(lines) == 3
    assert axes[0].get_xscale() == axes[0].get_yscale() == 'log'
