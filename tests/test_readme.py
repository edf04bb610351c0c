"""What the README says, tried: its notebook, and numbers that stand elsewhere too."""

import ast
import pathlib
import re

import jax
import numpy as np

from vitjax import experiment as experiments
from vitjax import runs
from vitjax.training import trainer

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()


def notebook():
    found = re.search(r'^In a notebook.*?^```python\n(.*?)^```', README, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def test_the_notebook_runs_as_it_stands(capsys):
    plan = trainer.make(experiments.find('digits').experiment)
    model = plan.experiment.model
    params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write('runs/digits', plan.experiment, params)
    exec(notebook(), made := {})
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if re.match(r'\d \d+%, else \d \d$', line)]) == 8
    assert pathlib.Path('rollout.png').stat().st_size > 1000 and pathlib.Path('lens.png').exists()
    matrix = made['matrix']
    assert matrix.shape == (5, 5) and len(matrix) == 1 + model.depth
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-3)


def test_what_to_expect_of_experiments_is_what_their_files_say():
    """Accuracies, seconds and rates of the README's table stand in the experiment's file."""
    rows = re.findall(r'^\| ((?:`\w+`(?:, )?)+) \| [^|]* \| ([^|]*) \|$', README, re.MULTILINE)
    said = {names: expected for names, expected in rows if '%' in expected}
    assert len(said) >= 4 and '`digits`' in said
    for names, expected in said.items():
        files = [experiments.known()[name] for name in re.findall(r'\w+', names)]
        told = ' '.join(ast.get_docstring(ast.parse(file.read_text())) or '' for file in files)
        for number in re.findall(r'[\d.]+(?:%| s\b| images/s)', expected):
            assert number in told, f'{names}: {number}'
