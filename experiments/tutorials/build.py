"""Makes the notebooks of this folder from their sources, and executes them.

    python experiments/tutorials/build.py                # all
    python experiments/tutorials/build.py 1_vit 2_cait

A source `NAME.py` is Python in the percent format: a line `# %%` begins a cell of code and
`# %% [markdown]` a text. `NAME.ipynb` has the same cells with their outputs. Runs that the
notebooks train are made anew, in `runs/` beside them.
"""

import base64
import io
import pathlib
import shutil
import sys

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4
from PIL import Image

HERE = pathlib.Path(__file__).parent
WIDTH, COLORS = 720, 256  # of pictures: a notebook then takes a few hundred kilobytes
METADATA = {
    'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
    'language_info': {'name': 'python'},
}


def notebook(source: str) -> NotebookNode:
    """Notebook of the cells of a source, without outputs."""
    cells = []
    for part in source.split('# %%')[1:]:
        head, _, body = part.partition('\n')
        text, body = head.strip() == '[markdown]', body.strip()
        if text:
            body = '\n'.join(line.removeprefix('#').removeprefix(' ') for line in body.split('\n'))
        make = v4.new_markdown_cell if text else v4.new_code_cell
        cells.append(make(body, id=f'cell-{len(cells) + 1}'))
    return v4.new_notebook(cells=cells, metadata=METADATA)


def execute(made: NotebookNode, folder: pathlib.Path) -> None:
    """Runs the cells of a notebook in a folder, and keeps their outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises.
    """
    about = {'metadata': {'path': str(folder)}}
    NotebookClient(made, timeout=1800, record_timing=False, resources=about).execute()
    made.metadata = METADATA  # without this machine's version of Python
    for cell in made.cells:
        for output in cell.get('outputs', []):
            if 'image/png' in output.get('data', {}):
                output.data['image/png'] = smaller(output.data['image/png'])


def smaller(png: str) -> str:
    """A PNG in base64, at most `WIDTH` pixels wide and in `COLORS` colors."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture = picture.convert('RGB')
    picture.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE).save(out, 'PNG', optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def main() -> None:
    """Builds the notebooks named on the command line, by default all."""
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob('[0-9]_*.py'))
    shutil.rmtree(HERE / 'runs', ignore_errors=True)
    for name in names:
        made = notebook((HERE / f'{name}.py').read_text())
        execute(made, HERE)
        nbformat.write(made, HERE / f'{name}.ipynb')
        print(f'written: {name}.ipynb, {(HERE / f"{name}.ipynb").stat().st_size / 1e3:.0f} KB')


if __name__ == '__main__':
    main()
