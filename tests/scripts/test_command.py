import os
import subprocess
import sys
from typing import Literal

import command
import pytest
from helpers import SCRIPTS


def compiled(tmp_path, module, **environment):
    """What a process that imports a command and compiles something leaves in the user's cache."""
    code = f'import {module}, jax; jax.jit(lambda x: x * 2)(1.0)'
    environment |= {
        'JAX_ENABLE_COMPILATION_CACHE': 'true',
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'XDG_CACHE_HOME': str(tmp_path),
        'PYTHONPATH': os.pathsep.join(map(str, (SCRIPTS, SCRIPTS.parent))),
    }
    around = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
    subprocess.run([sys.executable, '-c', code], check=True, env={**around, **environment})
    return [path for path in tmp_path.rglob('*') if path.is_file()]


def test_what_was_compiled_is_kept_in_the_user_s_cache_folder(tmp_path):
    assert compiled(tmp_path, 'train')
    assert {path.name for path in tmp_path.iterdir()} == {'vitjax'}


def test_a_folder_of_the_user_s_own_is_left_to_them(tmp_path):
    own = tmp_path / 'own'
    assert compiled(tmp_path, 'train', JAX_COMPILATION_CACHE_DIR=str(own))
    assert {path.name for path in tmp_path.iterdir()} == {'own'}


def test_benchmarks_read_no_programs_from_disk(tmp_path):
    assert compiled(tmp_path, 'benchmark') == []


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ('--pool clas', '--pool must be one of class, mean, flatten: '),
        ('--tokens clas', '--tokens must be one of all, class: '),
        ('--dept 3', 'there is no --dept; close: --depth'),
        ('--depth', '--depth expects 1 value.'),
        ('extra', 'unexpected argument: extra.'),
        ('', 'missing required arguments: --depth.'),
    ],
)
def test_what_is_wrong_with_arguments_is_a_line_and_where_to_find_help(arguments, said, capsys):
    def main(
        *, depth: int, pool: Literal['class', 'mean', 'flatten'] = 'class',
        tokens: Literal['class', 'all'] | None = None,
    ) -> None:  # fmt: skip
        """Does nothing.

        Args:
            depth: of a model.
            pool: of a model.
            tokens: of a capture.
        """

    given = arguments.split() + ['--depth', '3'] * (arguments not in ('', '--depth'))
    with pytest.raises(SystemExit) as end:
        command.parse(command.checked(main), args=given, prog='summary.py')
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f'error: {said}') and end.value.code == 2
    assert second == 'summary.py --help says more.'


def test_help_is_whole(capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(command.checked(lambda: None), args=['--help'], prog='summary.py')
    assert end.value.code == 0 and 'usage: summary.py' in capsys.readouterr().out


def test_what_a_command_says_of_itself_is_not_swallowed(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['summary.py'])

    def main() -> int:
        print('a warning', file=sys.stderr)
        return 3

    with pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code == 3 and capsys.readouterr().err == 'a warning\n'
