"""Scripts, flags, extras and names exist that messages, help and docstrings tell users to type."""

import ast
import contextlib
import functools
import importlib
import inspect
import io
import re
import sys
import tomllib

import command
import pytest
import tyro
from command import arguments
from helpers import SCRIPTS

from vitjax import experiment, models
from vitjax.base import fields

ROOT = SCRIPTS.parent
FLAG = re.compile(r'(?<![\w-])--[a-z][\w.-]*[\w]')
OTHERS = {'--import', '--multiprocessing-fork', '--porcelain'}  # of all commands, Python, git
COMMANDS = sorted(p.stem for p in SCRIPTS.glob('*.py'))
EXPERIMENTS = {'train', 'ablate', 'plan'}


def literals(path):
    """Strings of a file, of f-strings with `X` for what is filled in; and their lines."""
    nodes = [*ast.walk(ast.parse(path.read_text('utf-8')))]
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    inside = {id(value) for node in joined for value in node.values}
    for node in joined:
        parts = [v.value if isinstance(v, ast.Constant) else 'X' for v in node.values]
        yield ''.join(map(str, parts)), node.lineno
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in inside:
                yield node.value, node.lineno


FILES = [*sorted((ROOT / 'vitjax').rglob('*.py')), *sorted(SCRIPTS.rglob('*.py'))]
STRINGS = [(path, text, line) for path in FILES for text, line in literals(path)]
PAGES = [
    (path, path.read_text('utf-8'), 1)
    for folder in (ROOT, ROOT / 'vitjax', ROOT / 'experiments', SCRIPTS)
    for path in sorted(folder.glob('*.md'))
]


@functools.cache
def flags(script, name='digits'):
    """The flags of a command, as its own `--help` lists them."""
    module = importlib.import_module(script)
    if script in EXPERIMENTS:
        kind = {'train': 'Run', 'ablate': 'Ablation', 'plan': 'Asked'}[script]
        kind = getattr(module, kind)
        return {*command.flags(kind, default=kind(experiment.find(name).experiment, 'out'))}
    if script == 'benchmark':
        cli = tyro.extras.subcommand_cli_from_dict
        found = [command.flags(module.SUBJECTS, cli=cli, args=[name]) for name in module.SUBJECTS]
        return {flag for each in found for flag in each}
    return {*command.flags(module.main)}


def every_flag():
    experiments = [f for name in experiment.known() for f in flags('train', name)]
    return {*experiments, *(flag for each in COMMANDS for flag in flags(each))} | OTHERS


def test_flags_are_found_as_tyro_has_them():
    assert flags('predict') >= {'--help', '--top', '--model', '--image-size', '--which'}
    assert {'--model.remat', '--model.no-remat', '--optim.peak', '--grid'} <= flags('ablate')
    assert '--grid' not in flags('train') and '--peer' in flags('benchmark')


def test_every_argument_has_a_text():
    modules = [importlib.import_module(script) for script in COMMANDS if script not in EXPERIMENTS]
    mains = []
    for module in modules:
        mains += [*module.SUBJECTS.values()] if hasattr(module, 'SUBJECTS') else [module.main]
    assert len(mains) > 15
    for main in mains:
        for name in inspect.signature(main).parameters:
            text = f'\n    {name}: '
            assert text in arguments.documented(main), f'{main.__module__}: {name}'


def test_every_flag_that_a_text_names_exists():
    known, named = every_flag(), 0
    for path, text, line in STRINGS + PAGES:
        for flag in FLAG.findall(text):
            assert flag in known, f'{path}:{line}: {flag}'
            named += 1
    assert named > 50


def test_every_command_that_a_text_names_exists_with_its_flags():
    named = 0
    for path, text, line in STRINGS + PAGES:
        for part in re.split(r'\n|`', text):
            for found in re.finditer(r'python scripts/([a-z]\w*)\.py ?([^`\n;()]*)', part):
                script, rest = found.groups()
                assert script in COMMANDS, f'{path}:{line}: {script}'
                first = rest.split(' ')[0]
                if script in EXPERIMENTS and re.fullmatch('[a-z]\\w*', first):
                    assert first in experiment.known(), f'{path}:{line}: {first}'
                assert {*FLAG.findall(rest)} <= flags(script), f'{path}:{line}: {rest}'
                named += 1
        if 'scripts/' in text:
            for script in re.findall(r'scripts/([a-z]\w*)\.py', text):
                assert script in COMMANDS, f'{path}:{line}: {script}'
        for script in re.findall(r'vitjax ([a-z]+) ', text) if path.suffix == '.md' else ():
            assert script in COMMANDS, f'{path}:{line}: {script}'
    assert named > 5


def test_every_extra_that_a_text_names_exists():
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project'][
        'optional-dependencies'
    ]
    named = 0
    for path, text, line in STRINGS:
        for what in re.findall(r'pip install ([^`\n,;()]*)', text):
            found = re.match(r"-e '\.\[(\w+)\]'", what)
            assert found, f'{path}:{line}: the package is on no index: pip install {what}'
            assert found[1] in extras or found[1] == 'X', f'{path}:{line}: {what}'
            named += 1
    assert named > 3


@pytest.mark.parametrize(
    ('typed', 'meant'),
    [
        ('--lr', '--optim.peak'), ('--optim.lr', '--optim.peak'),
        ('--learning-rate', '--optim.peak'), ('--learning_rate', '--optim.peak'),
        ('--wd', '--optim.decay'), ('--weight-decay', '--optim.decay'),
        ('--optim.weight_decay', '--optim.decay'), ('--bs', '--batch-size'),
        ('--batch', '--batch-size'), ('--optim.batch-size', '--batch-size'),
        ('--gpus', '--parallel'), ('--dataset', '--data.name'), ('--data-dir', '--data.dir'),
        ('--depth', '--model.depth'), ('--model.dept', '--model.depth'),
        ('--dept', '--model.depth'), ('--patch-size', '--model.patch-size'),
        ('--patch_size', '--model.patch-size'), ('--model.patchsize', '--model.patch-size'),
        ('--augment.mixpu', '--augment.mixup'), ('--mixup', '--augment.mixup'),
        ('--epoch', '--epochs'), ('--num-epochs', '--epochs'), ('--optimizer', '--optim.name'),
        ('--label-smoothing', '--augment.smoothing'), ('--output-dir', '--out'),
        ('--heads', '--model.num-heads'), ('--droppath', '--model.drop-path'),
    ],
)  # fmt: skip
def test_a_flag_that_does_not_exist_suggests_the_one_that_is_meant(typed, meant):
    known = flags('train')
    assert typed not in known and meant in known
    assert command.close_flags([typed], sorted(known))[0] == meant


@pytest.mark.parametrize('axis', ['model.patch-size=2,4', 'model.patch_size=2,4', '--seed=1'])
def test_a_field_is_typed_with_dashes_or_underscores(axis):
    from ablate import parsed

    path, _ = parsed(experiment.Experiment(models.ViT()), axis)
    assert path in fields.paths(experiment.Experiment(models.ViT()))


def test_where_to_find_help_can_be_typed(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['scripts/train.py', 'digits', '--zzz'])
    train = importlib.import_module('train')
    with pytest.raises(SystemExit):
        train.main()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == 'python scripts/train.py digits --help says more.'
    monkeypatch.setattr(sys, 'argv', line.split()[1:4])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as end:
        train.main()
    assert end.value.code == 0 and '--optim.peak' in shown.getvalue()
