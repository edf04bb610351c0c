"""Every figure function at the ends: one of everything, all values equal, zero or NaN."""

import warnings

import every_figure
import numpy as np
import pytest
from every_figure import FIGURES

from vitjax.figures.panels import Scale, fractions


@pytest.fixture(params=[0.0, 0.5, np.nan])
def value(request, monkeypatch):
    """A value that all arrays have."""
    monkeypatch.setattr(every_figure, 'values', lambda *shape: np.full(shape, request.param))
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize('value', [0.0, 0.5], indirect=True)
@pytest.mark.parametrize('kind', FIGURES)
def test_one_of_everything_is_drawn(kind, value):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        FIGURES[kind](1, 1, 1, 'a').draw_without_rendering()


@pytest.mark.parametrize('value', [np.nan], indirect=True)
def test_nan_is_drawn_as_nothing_or_refused_in_a_line(value):
    refused = set()
    for kind, make in FIGURES.items():
        try:
            make(1, 1, 1, 'a').draw_without_rendering()
        except ValueError as error:
            assert str(error).startswith('what is drawn must be finite: '), kind
            assert '\n' not in str(error)
            refused.add(kind)
    assert {'overlays', 'distances', 'norms', 'attention_strip', 'effects', 'regions'} <= refused
    assert not refused & {'lens', 'heat_map', 'probe_accuracy', 'learning_curves', 'curves'}


@pytest.mark.parametrize('signed', [False, True])
def test_maps_on_their_own_scale_are_fractions_of_the_maximum_in_the_label(signed):
    """They were divided by their 99th percentile under a label that named the maximum."""
    maps = np.random.default_rng(0).exponential(size=(2, 30, 30)) ** 3
    maps = maps - 2 * signed
    scale = Scale('relevance', 'each', signed).colors(maps)
    what = 'largest magnitude' if signed else 'maximum'
    assert scale.label == f"relevance\n(fraction of each map's {what})"
    np.testing.assert_allclose(np.abs(scale.maps).max((-2, -1)), 1)
    assert (scale.norm.vmin, scale.norm.vmax) == (-1 if signed else 0, 1)
    whole, label = fractions(maps, 'importance', axis=None, of="the largest head's", signed=True)
    assert np.abs(whole).max() == 1 and 'the largest head' in label
    assert not fractions(np.zeros((1, 2, 2)), 'x')[0].any()
