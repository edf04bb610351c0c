"""Every figure function with names that files and classes may have: no error, and all shown."""

import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
from every_figure import FIGURES
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
from vitjax.figures.style import drawable
from vitjax.figures.text import named

RNG = np.random.default_rng(0)
NAMES = [
    '$x^$', '$', '$\\frac{$', '_x', '__', '_child0', '', '  ', 'two\nlines', 'tab\tbell\a\0', '%',
    '{x}', '{', '<b>&amp;</b>', ':cd:', '[red]', '\u96ea\u0628\u05d0', 'a\u202eb', '\U0001f600',
    '\udcff', 'e\u0301', 'x' * 300, 'many words ' * 30, 'a,b', ',', '/home/' + 'folder/' * 40,
]  # fmt: skip
TOGETHER = [
    '_$x^$ {x} \\frac{ % <b>', '\u96ea\u0628 \udcff\tbell\0\n[red] :cd:',
    'x' * 300 + ' many words' * 30,
]  # fmt: skip
NAMELESS = {'distances', 'norms', 'learning_curves', 'strip', 'film'}


def test_every_figure_function_is_here():
    modules = (ablation, attention, forecast, gradients, interventions, overview, report, scaling,
               similarity, tokens, training, watch)  # fmt: skip
    made = {
        f'{module.__name__.split(".")[-1]}.{name}'
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, '__wrapped__') and value.__module__ == module.__name__
    }
    assert len(made) == len({*FIGURES} - {'heads_of_classes'}), made


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
            figure = FIGURES[kind](2, 2, 3, name)
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
    FIGURES[kind](2, 2, 3, TOGETHER[0]).save(tmp_path / 'x', ('png', 'pdf', 'svg'))
    record_property('faults', (f'names in the figure `{kind}`', len(names), len(names), 0, 0))


def test_a_legend_shows_names_that_matplotlib_reserves():
    names = ['_x', '', '_child0', 'a']
    figure = tokens.over_depth({'a': ('b', RNG.uniform(size=(2, 4)))}, labels=names)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ['_x', '(no name)', '_child0', 'a']


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
