"""Tutorials: notebooks are those of their sources, and their cells run on reduced sizes."""

import importlib.util
import os
import pathlib
import re

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / 'experiments' / 'tutorials'
SOURCES = sorted(FOLDER.glob('[0-9]_*.py'))
SMALL = {'epochs': 1, 'crops': 16, 'seeds': 2}  # in place of the numbers of a source

each = pytest.mark.parametrize('source', SOURCES, ids=[path.stem for path in SOURCES])


@pytest.fixture(scope='module')
def build():
    spec = importlib.util.spec_from_file_location('build', FOLDER / 'build.py')
    assert spec and spec.loader
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def outputs(notebook):
    """Outputs of all cells of code; each was executed, and none raised."""
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    found = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != 'error' for output in found)
    return found


def pictures(found):
    return [output for output in found if 'image/png' in output.get('data', {})]


@each
def test_a_notebook_has_the_cells_of_its_source_and_their_outputs(source, build):
    notebook = nbformat.read(source.with_suffix('.ipynb'), as_version=4)
    nbformat.validate(notebook)
    wanted = build.notebook(source.read_text())
    cells = [[(c.id, c.cell_type, c.source) for c in n.cells] for n in (notebook, wanted)]
    assert cells[0] == cells[1], f'python experiments/tutorials/build.py {source.stem}'
    found = outputs(notebook)
    assert pictures(found)
    for output in found:
        texts = [output.get('text', ''), *output.get('data', {}).values()]
        assert not any(re.search(r'(^|[\s"\'(=])/\w+/', text) for text in texts if ' ' in text)
    assert source.with_suffix('.ipynb').stat().st_size < 600_000


@each
def test_a_tutorial_ends_with_three_things_to_try(source, build):
    *_, last = build.notebook(source.read_text()).cells
    _, things = last.source.split('## Things to try\n')
    assert re.findall(r'^(\d)\. ', things, re.MULTILINE) == ['1', '2', '3']
    assert f'[{source.stem}]({source.stem}.ipynb)' in (FOLDER / 'README.md').read_text()


@pytest.mark.slow
@each
def test_every_cell_runs_on_reduced_sizes(source, build, tmp_path, monkeypatch):
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))  # no settings of the user's
    one = os.environ['XLA_FLAGS'].replace('count=8', 'count=1')
    monkeypatch.setenv('XLA_FLAGS', one)  # a device, as a reader has
    here = tmp_path / 'experiments' / 'tutorials'
    here.mkdir(parents=True)
    for name in ('models', 'photos'):
        (here.parent / name).symlink_to(ROOT / 'experiments' / name)
    text = source.read_text()
    for name, value in SMALL.items():
        text = re.sub(rf'^{name} = \d+$', f'{name} = {value}', text, flags=re.MULTILINE)
    build.execute(notebook := build.notebook(text), here)
    assert pictures(outputs(notebook))
