import re

import matplotlib

from vitjax.figures import style
from vitjax.figures.charts import charts
from vitjax.figures.figure import styled


@styled
def example():
    figure, (axis,) = charts()
    axis.plot([0, 1])
    axis.set(title='patch size', xlabel='layer')
    return figure


def test_a_figure_keeps_its_style_and_nobody_elses_changes(tmp_path):
    before = {name: matplotlib.rcParams[name] for name in style.STYLE}
    figure = example()
    figure.save(tmp_path / 'figure')
    assert {name: matplotlib.rcParams[name] for name in style.STYLE} == before
    texts = [figure.axes[0].title, *figure.axes[0].get_xticklabels()]
    assert [text.get_fontsize() for text in texts[:2]] == [8, 7]


def test_formats_are_written_with_text_as_text(tmp_path):
    names = example().save(tmp_path / 'accuracy_model.depth', ('png', 'pdf', 'svg'))
    assert names == [f'accuracy_model.depth.{kind}' for kind in ('png', 'pdf', 'svg')]
    svg = (tmp_path / 'accuracy_model.depth.svg').read_text()
    assert 'patch size' in re.sub('<[^>]*>', '', svg)
    pdf = (tmp_path / 'accuracy_model.depth.pdf').read_bytes()
    assert b'/Type0' in pdf and b'/Type3' not in pdf  # TrueType, which journals take


def test_no_text_is_too_small_to_print():
    sizes = [value for name, value in style.STYLE.items() if name.endswith('size')]
    assert min(size for size in sizes if size > 4) >= 7
