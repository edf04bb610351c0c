"""The pages tried: snippets run, their commands leave nothing for git, their numbers agree."""

import ast
import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest

from vitjax import experiment as experiments
from vitjax import runs
from vitjax.training import trainer

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    ROOT / 'README.md',
    *(ROOT / f / 'README.md' for f in ('vitjax', 'experiments', 'scripts')),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}


def snippets(page):
    return re.findall(r'^```python\n(.*?)^```', TEXTS[page], re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_notebook_runs_as_it_stands(capsys):
    trained = trainer.make(experiments.find('digits').experiment)
    model = trained.experiment.model
    params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write('runs/digits', trained.experiment, params)
    notebook, _ = snippets('README.md')
    exec(notebook, made := {})
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if re.match(r'\d \d+%, else \d \d$', line)]) == 8
    for name in ('rollout', 'lens'):
        assert pathlib.Path(f'runs/digits/{name}.png').stat().st_size > 1000
    matrix = made['matrix']
    assert matrix.shape == (5, 5) and len(matrix) == 1 + model.depth
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-3)


def test_pure_functions_run_as_they_stand_on_smaller_images():
    _, functions = snippets('README.md')
    edits = next(text for text in snippets('scripts/README.md') if 'intervene(' in text)
    exec(functions.replace('(2, 224, 224, 3)', '(1, 32, 32, 3)'), made := {})
    assert made['grads'].keys() == made['found'].keys()
    assert made['grads']['blocks/attention/weights'].shape == (24, 1, 4, 4, 4)
    exec(edits, made)
    assert made['logits'].shape == (1, 10) and made['found']['blocks'].shape == (24, 1, 4, 192)


def test_numbers_to_expect_of_experiments_stand_in_their_files():
    """Accuracies, seconds and rates of the table of experiments."""
    rows = re.findall(
        r'^\| ((?:`\w+`(?:, )?)+) \| [^|]* \| ([^|]*) \|$', TEXTS['experiments/README.md'],
        re.MULTILINE,
    )  # fmt: skip
    said = {names: expected for names, expected in rows if '%' in expected}
    assert len(said) >= 4 and '`digits`' in said
    for names, expected in said.items():
        files = [experiments.known()[name] for name in re.findall(r'\w+', names)]
        told = ' '.join(ast.get_docstring(ast.parse(file.read_text())) or '' for file in files)
        for number in re.findall(r'[\d.]+(?:%| s\b| images/s)', expected):
            assert number in ' '.join(told.split()), f'{names}: {number}'


def test_every_experiment_has_a_row():
    names = set(re.findall(r'`(\w+)`', TEXTS['experiments/README.md']))
    assert {*experiments.known()} <= names


def commands():
    """Scripts and arguments of the commands that the pages show."""
    for text in TEXTS.values():
        for script, rest in re.findall(r'python scripts/([a-z]+)\.py([^`\n#&]*)', text):
            yield script, shlex.split(rest)


def written(script, arguments, monkeypatch, capsys):
    """The file or folder that a command writes; None for none, and for a place of the user's."""
    if '--out' in arguments:
        out = arguments[arguments.index('--out') + 1]
        return None if out.isupper() else out
    if script in ('train', 'ablate', 'plan') and arguments[0] in experiments.known():
        monkeypatch.setattr(sys, 'argv', [f'scripts/{script}.py', arguments[0], '--help'])
        with pytest.raises(SystemExit):
            importlib.import_module(script).main()
        found = re.search(r'--out STR.*?default:\s+(\S+)\)', capsys.readouterr().out, re.DOTALL)
        assert found, script
        return found[1]
    if script == 'report':
        return f'{arguments[0]}/report.html' if len(arguments) == 1 else 'report.html'
    return None


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='a copy without git')
def test_commands_leave_nothing_that_git_shows(monkeypatch, capsys):
    found = {written(*command, monkeypatch, capsys): command for command in commands()}
    found.pop(None)
    assert len(found) > 15 and {'plans/vit_cifar100', 'runs/digits'} <= found.keys()
    for out, command in found.items():
        call = ['git', 'check-ignore', '--quiet', '--no-index', f'{out}/file']
        assert subprocess.run(call, cwd=ROOT).returncode == 0, command
