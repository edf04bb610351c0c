"""Help that fits a screen, and all of it."""

import contextlib
import importlib
import io
import sys

import command
import pytest
from helpers import SCRIPTS

COMMANDS = sorted(path.stem for path in SCRIPTS.glob('*.py'))


def shown(monkeypatch, name, *arguments):
    """The help of a command, as a user with 100 columns reads it."""
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setattr(sys, 'argv', [f'vitjax {name}', *arguments])
    module = importlib.import_module(name)
    kind = module.SUBJECTS if hasattr(module, 'SUBJECTS') else module.main
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        if name in ('train', 'ablate', 'plan'):
            module.main()
        elif name == 'benchmark':
            checked = {subject: command.checked(main) for subject, main in kind.items()}
            command.parse(checked, cli=module.tyro.extras.subcommand_cli_from_dict)
        else:
            about = {'description': module.description()} if hasattr(module, 'description') else {}
            command.parse(command.checked(kind), **about)
    assert end.value.code == 0
    return out.getvalue()


def test_the_help_of_an_experiment_has_examples_and_aliases(monkeypatch):
    text = shown(monkeypatch, 'train', 'digits', '--help')
    assert text.startswith('usage: vitjax train digits [FLAG VALUE ...]\n')
    assert '\n  --optim.peak, --lr 1e-3     learning rate after warm-up [0.002]\n' in text
    assert 'give this or --steps [60]' in text  # a flag, where the field says `steps`
    assert '--model.qkv-bias' not in text and '--help-all' in text
    whole = shown(monkeypatch, 'train', 'digits', '--help-all')
    assert '--model.[no-]qkv-bias' in whole and 'environment: VITJAX_TRACEBACK' in whole


@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_help_fits_a_screen_and_names_nothing_of_python(monkeypatch, name):
    first = ['digits'] if name in ('train', 'ablate', 'plan') else []
    text = shown(monkeypatch, name, *first, '--help')
    lines = text.rstrip().splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert not [sign for sign in '`╭│' if sign in text]
    whole = shown(monkeypatch, name, *first, '--help-all')
    assert len(whole) >= len(text.split('\n--help-all')[0]) and '`' not in whole
