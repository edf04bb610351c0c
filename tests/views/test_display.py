"""Drawings in a notebook: what they hand to it, and a notebook that runs."""

import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from vitjax import runs, views
from vitjax.views import Drawing, Drawings, Page


@pytest.fixture(scope='module')
def drawings(opened, photographs):
    return views.draw(opened['vit'], photographs, 'heads', 'filters', 'grad-cam')


def test_drawings_are_found_by_number_drawing_and_view(drawings):
    names = [name for name, figure, arrays in drawings]
    assert names == ['heads', 'heads_by_layer', 'heads_over_depth', 'grad_cam', 'filters']
    assert drawings[1] is drawings['heads_by_layer'] and drawings['grad-cam'] is drawings[3]
    with pytest.raises(KeyError, match="no drawing 'lens'; there are heads, heads_by_layer"):
        drawings['lens']


def test_a_drawing_shows_its_figure_and_prints_its_arrays(drawings):
    heads = drawings['heads']
    assert Image.open(io.BytesIO(heads._repr_png_())).width > 300
    assert heads._repr_html_() is None  # a notebook would prefer it
    assert repr(heads) == 'Drawing heads: names [2], maps [2, 2, 4, 4]'
    film = drawings['heads_over_depth']
    assert film._repr_png_() is None and 'src="data:image/gif;base64' in film._repr_html_()


def test_all_drawings_show_themselves(drawings):
    shown = drawings._repr_html_()
    assert re.findall('data:image/([a-z]+);base64', shown) == ['png', 'png', 'gif', 'png', 'png']
    assert repr(drawings).splitlines() == [*map(repr, drawings)]


def test_a_page_shows_itself_in_a_frame():
    page = Page('<p title="a">a & b</p>')
    (inside,) = re.findall('srcdoc="([^"]*)"', page._repr_html_())
    assert html.unescape(inside) == page
    drawing = Drawing('explorer', page, {})
    assert drawing._repr_html_() == page._repr_html_() == Drawings([drawing])._repr_html_()


@pytest.mark.slow
def test_a_notebook_shows_drawings_and_bars(opened, photographs, tmp_path):
    """Images in its outputs; a bar that shows progress, and goes."""
    import nbformat
    from nbclient import NotebookClient

    runs.write(tmp_path / 'run', *opened['vit'][:2])
    np.save(tmp_path / 'photographs.npy', photographs)
    cells = (
        'import numpy, vitjax\nfrom vitjax import views\nfrom vitjax.base.console import Console\n'
        'photographs = [*numpy.load("photographs.npy")]\n'
        'drawn = views.draw(vitjax.load("run"), photographs, "heads", "norms")',
        'drawn', 'drawn["norms"]', 'drawn["norms"].figure',
        'Console().say("a line"); work = Console().progress("steps", 4)\nwork.__enter__()(2)',
        'work.__exit__(None, None, None)',
    )  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
    bars = []

    class Client(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if msg['msg_type'] == 'display_data':
                bars.append(msg['content']['data']['text/html'])
            return super().process_message(msg, cell, cell_index)

    Client(notebook, resources={'metadata': {'path': str(tmp_path)}}).execute()
    first, every, one, figure, line, _ = (cell.outputs for cell in notebook.cells)
    assert first == []
    assert every[0].data['text/html'].count('data:image/') == 4
    assert one[0].data['image/png'] == figure[0].data['image/png']
    assert bars == ['<progress max="4" value="0"></progress> steps 0/4']
    assert line[0].text == 'a line\n' and line[1].data['text/html'] == ''
