"""Every figure function at the ends: one of everything, all values equal, zero or NaN."""

import warnings
from typing import Any

import numpy as np
import pytest

from vitjax.figures import (
    ablation,
    attention,
    gradients,
    interventions,
    report,
    scaling,
    similarity,
    tokens,
    training,
    watch,
)
from vitjax.figures.panels import fractions, scaled

LOOK: Any = {'label': 'attention'}
PHOTO = np.zeros((1, 8, 8, 3))
NONE = [{'kind': 'none', 'layer': 0}]


def cases(v):
    """Every figure function on one image, layer, head, class and patch, all values being `v`."""

    def f(*shape):
        return np.full(shape, v)

    count = 0 if np.isnan(v) else int(v)
    for scale in ('shared', 'each'):
        for signed in (False, True):
            yield (
                f'heads {scale}{signed}',
                lambda scale=scale, signed=signed: attention.heads(
                    PHOTO, f(1, 1, 1, 1), title='t', scale=scale, signed=signed, **LOOK
                ),
            )
        yield (
            'hbl',
            lambda scale=scale: attention.heads_by_layer(
                PHOTO[0], f(1, 1, 1, 1), title='t', scale=scale, **LOOK
            ),
        )
        yield (
            'overlays',
            lambda scale=scale: attention.overlays(
                PHOTO, {'a': f(1, 1, 1)}, titles=['a'], smooth=True, scale=scale, **LOOK
            ),
        )
        yield (
            'over_depth',
            lambda scale=scale: attention.over_depth(
                PHOTO, f(1, 1, 1, 1), title='t', scale=scale, **LOOK
            )[0],
        )
    yield 'distances', lambda: attention.distances(f(1, 1), f(1, 1), largest=0.0)
    yield 'filters', lambda: gradients.filters(f(1, 1, 1, 3), f(1, 1, 1, 3), title='t')
    yield 'maximised', lambda: gradients.maximised(PHOTO, titles=['a'])
    yield 'fields', lambda: gradients.receptive_fields(f(1, 1, 1), np.array([1.0]), titles=['a'])
    yield 'importance', lambda: gradients.importance(f(1, 1), f(1), f(1), [0], f(1), ylabel='y')
    yield (
        'effects',
        lambda: interventions.heads(
            {'zero': f(1, 1), 'mean': f(1, 1)},
            np.abs(f(1, 1)),
            np.abs(f(1, 1)),
            measure='m',
            title='t',
        ),
    )
    yield (
        'places',
        lambda: interventions.places(f(1, 2), f(1, 2), 1, (1, 1), measure='m', title='t'),
    )
    yield (
        'places0',
        lambda: interventions.places(f(1, 1), f(1, 1), 0, (1, 1), measure='m', title='t'),
    )
    yield (
        'regions',
        lambda: interventions.regions((f(1, 2),) * 3, ['1,1', 'all'], 1, measure='m', title='t'),
    )
    yield (
        'lesions',
        lambda: interventions.lesions(
            NONE, f(1), f(1) * np.nan, f(1) * np.nan, [], measure='accuracy', title='t'
        ),
    )
    yield (
        'steering',
        lambda: interventions.steering(
            f(1, 1), f(1, 1) * np.nan, f(1, 1) * np.nan, (0.0,), toward='a', title='t'
        ),
    )
    yield (
        'over_seeds',
        lambda: interventions.over_seeds(
            {'a': (np.array([1]), f(1, 1), f(1), f(1) * np.nan, f(1) * np.nan)},
            measure='m',
            title='t',
        ),
    )
    yield (
        'curves',
        lambda: report.curves(
            {
                'a': {
                    ('train', 'loss'): report.Curve(
                        np.array([1.0]), f(1), f(1) * np.nan, f(1) * np.nan
                    )
                }
            }
        ),
    )
    yield (
        'scaling',
        lambda: scaling.scaling({'p': {('a', 'b'): (np.array([1.0]), f(1))}}, x_label='x'),
    )
    yield (
        'heat',
        lambda: similarity.heat_map(
            f(1, 1), ['blocks 1'], ['blocks 1'], measure='CKA', x_label='a', y_label='b'
        ),
    )
    yield 'probe', lambda: similarity.probe_accuracy(['blocks 1'], {'k': f(1)}, {'k': (f(1), f(1))})
    yield 'positions', lambda: tokens.positions(f(1, 1), grid=(1, 1))
    yield 'quant', lambda: tokens.over_depth({'a': ('b', f(1, 1))}, labels=['x'])
    yield 'lens', lambda: tokens.lens(f(1, 1), [['a']], labels=['x'], decided=np.array([0]))
    yield 'norms', lambda: tokens.norms(PHOTO, f(1, 1, 1, 1), layers=[0])
    yield 'patches', lambda: tokens.patches(PHOTO[0], PHOTO, PHOTO[0], columns=1, name='a')
    yield (
        'channels',
        lambda: tokens.channels({'a': np.zeros((1, 1, 1), np.uint8)}, {'a': 1}, title='t'),
    )
    yield (
        'large',
        lambda: tokens.large_channels(PHOTO[0], {'a': f(1, 1, 1)}, channels=(0,), title='t'),
    )
    yield (
        'learning',
        lambda: training.learning_curves(
            [{'epoch': 1, 'split': 'train', 'accuracy': v, 'loss': v}]
        ),
    )
    yield (
        'strip',
        lambda: training.attention_strip(
            PHOTO, f(1, 1, 1, 1), epochs=[1], true=['a'], predicted=[['a']], title='t', label='l'
        ),
    )
    yield 'confusion', lambda: training.confusion(np.full((1, 1), count), ['a'])
    yield 'confusionN', lambda: training.confusion(np.full((1, 1), count), ['a'], normalised=True)
    yield (
        'watch',
        lambda: watch.strip(
            [{'epoch': 1, 'cka': f(1, 1), 'rank': f(1), 'tokens': 'mean', 'images': 1}]
        ),
    )
    yield 'pair', lambda: ablation.pair(f(1, 1, 3), ('model.depth', [2]), ('a', [1]), seeds=1)
    yield (
        'flops',
        lambda: ablation.against_flops([1e9], [(v, np.nan, np.nan)], [{'a': 1}], ['a'], seeds=1),
    )


@pytest.mark.slow
@pytest.mark.parametrize('value', [0.0, 0.5])
def test_one_of_everything_is_drawn(value):
    for name, make in cases(value):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            try:
                make().draw_without_rendering()
            except Exception as error:
                raise AssertionError(f'{name} of {value}') from error


def test_nan_is_drawn_as_nothing_or_refused_in_a_line():
    refused = set()
    for name, make in cases(np.nan):
        try:
            make().draw_without_rendering()
        except ValueError as error:
            assert str(error).startswith('what is drawn must be finite: '), name
            assert '\n' not in str(error)
            refused.add(name)
    assert {'overlays', 'distances', 'norms', 'strip', 'effects', 'regions'} <= refused
    assert not refused & {'lens', 'heat', 'probe', 'learning', 'curves'}


@pytest.mark.parametrize('signed', [False, True])
def test_maps_on_their_own_scale_are_fractions_of_the_maximum_in_the_label(signed):
    """They were divided by their 99th percentile under a label that named the maximum."""
    maps = np.random.default_rng(0).exponential(size=(2, 30, 30)) ** 3
    maps = maps - 2 * signed
    scale = scaled(maps, 'relevance', 'each', signed=signed)
    what = 'largest magnitude' if signed else 'maximum'
    assert scale.label == f"relevance\n(fraction of each map's {what})"
    np.testing.assert_allclose(np.abs(scale.maps).max((-2, -1)), 1)
    assert (scale.norm.vmin, scale.norm.vmax) == (-1 if signed else 0, 1)
    whole, label = fractions(maps, 'importance', axis=None, of="the largest head's", signed=True)
    assert np.abs(whole).max() == 1 and 'the largest head' in label
    assert not fractions(np.zeros((1, 2, 2)), 'x')[0].any()
