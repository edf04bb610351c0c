"""Every figure function with names that files and classes may have: no error, and all shown."""

import pathlib
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from vitjax.figures import (
    ablation,
    attention,
    forecast,
    gradients,
    interventions,
    overview,
    report,
    scaling,
    similarity,
    style,
    tokens,
    training,
    watch,
)
from vitjax.figures.panels import Scale
from vitjax.figures.style import drawable
from vitjax.figures.text import named

RNG = np.random.default_rng(0)
PICTURES, MAPS = RNG.uniform(size=(2, 8, 8, 3)), RNG.uniform(size=(2, 2, 2))
NAMES = [
    '$x^$', '$', '$\\frac{$', '_x', '__', '_child0', '', '  ', 'two\nlines', 'tab\tbell\a\0', '%',
    '{x}', '{', '<b>&amp;</b>', ':cd:', '[red]', '\u96ea\u0628\u05d0', 'a\u202eb', '\U0001f600',
    '\udcff', 'e\u0301', 'x' * 300, 'many words ' * 30, 'a,b', ',', '/home/' + 'folder/' * 40,
]  # fmt: skip
TOGETHER = [
    '_$x^$ {x} \\frac{ % <b>', '\u96ea\u0628 \udcff\tbell\0\n[red] :cd:',
    'x' * 300 + ' many words' * 30,
]  # fmt: skip
SIX = RNG.uniform(0.2, 0.8, size=(3, 2))  # layers x images
CURVE = report.Curve(np.arange(3), SIX[:, 0], SIX[:, 0] - 0.1, SIX[:, 0] + 0.1)
LOOK: Any = {'label': 'attention', 'scale': 'each'}
LESIONS = [{'kind': kind, 'layer': 1} for kind in ('none', 'skipped', 'swapped', 'repeated')]
LESIONS += [{'kind': 'random', 'removed': 1}]
MEANS = [{'removed': 1, 'accuracy': 0.4, 'accuracy_low': 0.2, 'accuracy_high': 0.6,
          'drawn': 2, 'of': 3}]  # fmt: skip
X = np.array([1.0, 2, 4])
FIGURES = {
    'pair': lambda n: ablation.pair(
        np.sort(RNG.uniform(size=(2, 2, 3)))[..., [1, 0, 2]],
        ('model.depth', [n, 'b']), ('data.name', ['a', n]), seeds=3),
    'against_flops': lambda n: ablation.against_flops(
        [1e9, 2e9], [(0.5, 0.4, 0.6)] * 2, [{'a': n}, {'a': 'b'}], ['a'], seeds=3),
    'heads': lambda n: attention.heads(
        PICTURES, RNG.uniform(size=(2, 2, 2, 2)), title=n, titles=[n, 'b'], **LOOK),
    'heads_by_layer': lambda n: attention.heads_by_layer(
        PICTURES[0], RNG.uniform(size=(2, 2, 2, 2)), title=n, **LOOK),
    'overlays': lambda n: attention.overlays(
        PICTURES, {n: MAPS}, titles=[n, 'b'], smooth=True, title=n, **LOOK),
    'over_depth': lambda n: attention.over_depth(PICTURES, MAPS[None], title=n, **LOOK)[0],
    'distances': lambda n: attention.distances(SIX, SIX, largest=1),
    'features': lambda n: overview.features(
        PICTURES, RNG.uniform(size=(2, 2, 2, 3)), names=[n, 'b'], title=n),
    'overview': lambda n: overview.overview(
        PICTURES, {'map': (MAPS, Scale('map'))}, RNG.uniform(size=(2, 2, 2, 3)), names=[n, 'b']),
    'forecast': lambda n: forecast.forecast(
        {n: forecast.Share({n: 1e9}, 2e9, {n: (1.0, n)}), 'b': forecast.Share({}, 2e9, {})}),
    'filters': lambda n: gradients.filters(RNG.uniform(size=(4, 2, 2, 3)), None, title=n),
    'maximised': lambda n: gradients.maximised(PICTURES, titles=[n, 'b']),
    'receptive_fields': lambda n: gradients.receptive_fields(
        MAPS, np.array([3.0, 4.0]), titles=[n, 'b']),
    'importance': lambda n: gradients.importance(SIX, SIX[:, 0], SIX[:, 1], [0], SIX[0], ylabel=n),
    'effects': lambda n: interventions.heads({n: SIX}, SIX, SIX, measure=n, title=n),
    'places': lambda n: interventions.places(SIX, SIX, 1, (1, 1), measure=n, title=n),
    'regions': lambda n: interventions.regions((SIX,) * 3, ['1,1', n], 1, measure=n, title=n),
    'lesions': lambda n: interventions.lesions(
        LESIONS, np.full(5, 0.5), np.full(5, 0.4), np.full(5, 0.6), MEANS,
        measure='accuracy', title=n),
    'steering': lambda n: interventions.steering(SIX, SIX, SIX, (0.0, 1.0), toward=n, title=n),
    'over_seeds': lambda n: interventions.over_seeds(
        {n: (X, SIX, *[SIX[:, 0]] * 3)}, measure=n, title=n),
    'curves': lambda n: report.curves({n: {('train', 'loss'): CURVE}, 'b': {}}),
    'scaling': lambda n: scaling.scaling({n: {(n, n): (X, X**2)}}, x_label=n),
    'heat_map': lambda n: similarity.heat_map(
        SIX, ['a', n, 'c'], [n, 'b'], measure=n, x_label=n, y_label=n, title=n),
    'probe_accuracy': lambda n: similarity.probe_accuracy(
        ['a', n, 'c'], {'ridge': X / 5}, {'ridge': (X / 6, X / 4)}, title=n),
    'positions': lambda n: tokens.positions(np.eye(4), grid=(2, 2), title=n),
    'quantities': lambda n: tokens.over_depth(
        {n: (n, SIX)}, labels=[n, 'b'], layers=['a', n, 'c']),
    'lens': lambda n: tokens.lens(
        SIX, [[n, 'b']] * 3, labels=[n, 'b'], decided=np.array([0, 1])),
    'norms': lambda n: tokens.norms(PICTURES, MAPS[None], layers=[0]),
    'patches': lambda n: tokens.patches(
        PICTURES[0], PICTURES[:, :4, :4], PICTURES[0], columns=2, name=n),
    'channels': lambda n: tokens.channels(
        {n: np.zeros((4, 4, 3), np.uint8)}, {n: 3}, title=n),
    'large_channels': lambda n: tokens.large_channels(
        PICTURES[0], {n: SIX[None]}, channels=(0, 1), title=n),
    'learning_curves': lambda n: training.learning_curves(
        [{'epoch': 1, 'split': 'train', 'accuracy': 0.5, 'loss': 1.0}]),
    'attention_strip': lambda n: training.attention_strip(
        PICTURES, MAPS[None], epochs=[1], true=[n, 'b'], predicted=[['b', n]], title=n, label=n),
    'confusion': lambda n: training.confusion(np.eye(2, dtype=int), [n, 'b']),
    'strip': lambda n: watch.strip(
        [{'epoch': 1, 'cka': np.eye(2), 'rank': [1, 2], 'tokens': 'mean', 'images': 4}]),
}  # fmt: skip
NAMELESS = {'distances', 'norms', 'learning_curves', 'strip'}


def test_every_figure_function_is_here():
    modules = (ablation, attention, forecast, gradients, interventions, overview, report, scaling,
               similarity, tokens, training, watch)  # fmt: skip
    made = {
        f'{module.__name__.split(".")[-1]}.{name}'
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, '__wrapped__') and value.__module__ == module.__name__
    }
    assert len(made - {'watch.film'}) == len(FIGURES), made


def words(figure) -> str:
    said = (text.get_text() for text in figure.findobj(Text) if text.get_visible())
    return '\n'.join(said)


def visible(name: str) -> str:
    """The first characters of a name, or what stands for it, that every figure shows."""
    return named(drawable(name), 60)[:4].split(',')[0].strip()


def draws(kind, names):
    for name in names if kind not in NAMELESS else names[:1]:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            figure = FIGURES[kind](name)
            figure.draw_without_rendering()
        if kind not in NAMELESS and name.strip():
            assert visible(name) in words(figure), (kind, name)


@pytest.mark.slow
@pytest.mark.parametrize('kind', FIGURES)
def test_any_name_is_drawn(kind):
    draws(kind, TOGETHER)


@pytest.mark.faults
@pytest.mark.parametrize('kind', FIGURES)
def test_every_name_is_drawn_and_written(kind, tmp_path, record_property):
    names = NAMES[[*FIGURES].index(kind) % 3 :: 3]  # each name in a third of the figures
    draws(kind, names)
    FIGURES[kind](TOGETHER[0]).save(tmp_path / 'x', ('png', 'pdf', 'svg'))
    record_property('faults', (f'names in the figure `{kind}`', len(names), len(names), 0, 0))


def test_a_legend_shows_names_that_matplotlib_reserves():
    names = ['_x', '', '_child0', 'a']
    figure = tokens.over_depth({'a': ('b', RNG.uniform(size=(2, 4)))}, labels=names)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ['_x', '(no name)', '_child0', 'a']


def test_no_label_is_a_formula():
    """Axes of powers of ten have labels that matplotlib writes as formulas by default."""
    for kind, make in FIGURES.items():
        figure = make('name')
        figure.canvas.draw()
        assert '$' not in words(figure), kind


def test_names_that_differ_in_the_middle_alone_keep_both_ends():
    assert style.cut('abcdefghij', 7) == 'abc…hij' and style.cut('abc', 3) == 'abc'
    assert len(drawable('x' * 300)) == 60 and drawable('a\tb') == 'a\\tb'
    assert drawable({'\udcff': ['\0', ('a', 1)]}) == {'\\udcff': ['\\x00', ('a', 1)]}


RC = 'text.usetex: True\nfont.size: 40\nsavefig.bbox: tight\ntext.parse_math: True\n'
PROGRAM = """
from vitjax.figures import training, watch
rows = [{'epoch': 1, 'split': 'train', 'accuracy': 0.5, 'loss': 1.0}]
figure = training.learning_curves(rows)
figure.axes[0].set_title('$x^$')
figure.save('learning_curves', ('png', 'svg'))
seen = [{'epoch': e, 'rank': [1, 2], 'tokens': 'mean', 'images': 4} for e in (1, 2)]
watch.film(seen).save('film.gif', writer='pillow', dpi=50)
import matplotlib
assert matplotlib.rcParams['text.usetex'] and matplotlib.rcParams['font.size'] == 40
"""


@pytest.mark.slow
def test_a_user_s_matplotlibrc_ends_no_run_and_changes_no_figure(tmp_path):
    (tmp_path / 'matplotlibrc').write_text(RC)
    here = str(pathlib.Path(__file__).parent.parent.parent)
    path = {'PATH': '', 'PYTHONPATH': here, 'HOME': str(tmp_path)}
    svg = []
    for more in ({}, {'MATPLOTLIBRC': str(tmp_path / 'matplotlibrc')}):
        program = PROGRAM if more else PROGRAM.split('import matplotlib\n')[0]
        done = subprocess.run(
            [sys.executable, '-W', 'error', '-c', program], cwd=tmp_path, env=path | more,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        svg.append((tmp_path / 'learning_curves.svg').read_text().split('</metadata>')[1])
    assert svg[0] == svg[1]
