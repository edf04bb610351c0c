import io
import os
import subprocess
import sys
from typing import Literal

import command
import jax
import pytest
from helpers import SCRIPTS


def compiled(tmp_path, module, **environment):
    """Files in the user's cache after a process that imports a command and compiles a function."""
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


def test_choices_take_dashes_for_underscores_and_short_names_of_types():
    def main(
        attention: Literal['fused', 'multi_query'] = 'fused',
        dtype: Literal['float32', 'bfloat16'] | None = None,
    ) -> tuple[str, str | None]:  # fmt: skip
        """Returns its arguments."""
        return attention, dtype

    def parsed(*given):
        return command.parse(command.checked(main), args=given, prog='summary.py')()  # type: ignore

    assert parsed() == ('fused', None)
    assert parsed('--attention', 'multi-query', '--dtype', 'bf16') == ('multi_query', 'bfloat16')
    with pytest.raises(ValueError, match="--dtype must be 'float32' or 'bfloat16': 'fp16'"):
        parsed('--dtype', 'fp16')


def test_an_alias_is_the_flag_that_it_stands_for():
    def main(*, batch_size: int = 1) -> int:
        """Returns its argument."""
        return batch_size

    for given in (['--bs', '3'], ['--bs=3'], ['--batch-size', '2', '--bs', '3']):
        assert command.parse(command.checked(main), args=given, prog='summary.py')() == 3


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


def guarded(error):
    """The exit code of a command that ends with an error."""

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        command.guard(main)
    return end.value.code


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'utf-8'])
def test_names_that_a_terminal_does_not_know_are_printed_all_the_same(monkeypatch, encoding):
    out = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(out, encoding))
    text = 'é × 漢 \udcff'
    with pytest.raises(SystemExit) as end:
        command.guard(lambda: print(text))
    assert end.value.code == 0
    assert out.getvalue() == f'{text}\n'.encode(encoding, 'backslashreplace')


def test_a_platform_that_is_not_there_is_said(monkeypatch, capsys):
    def missing():
        raise RuntimeError("Unable to initialize backend 'cuda': none\nand a stack of C++")

    monkeypatch.setattr(jax, 'devices', missing)
    monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
    assert guarded(AssertionError()) == 1  # as jax ends where a plug-in is not installed
    assert capsys.readouterr().err.splitlines() == [
        "error: jax must find a device of JAX_PLATFORMS='cuda': "
        "Unable to initialize backend 'cuda': none.",
        'JAX_PLATFORMS=cpu before the command runs it on the CPU.',
    ]


def test_a_bug_keeps_its_traceback():
    with pytest.raises(AssertionError):
        command.guard(lambda: (_ for _ in ()).throw(AssertionError()))


def test_an_error_of_hundreds_of_lines_is_cut(capsys):
    assert guarded(ValueError('\n'.join(map(str, range(223))))) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == 'error: 0' and len(said) == 7
    assert said[-1] == '... 217 lines more: VITJAX_TRACEBACK=1 shows them.'


def test_an_error_without_words_has_its_name(capsys):
    assert guarded(ValueError()) == 1 and capsys.readouterr().err == 'error: ValueError\n'


def test_a_pipe_that_is_not_the_output_is_an_error(capsys):
    assert guarded(BrokenPipeError(32, 'Broken pipe')) == 1
    assert capsys.readouterr().err == 'error: [Errno 32] Broken pipe\n'


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('5', 5), ('-5', -5), ('0', 0), ('1_000', '1_000'), ('--5', '--5'), ('²', '²'), ('٣', '٣'),
        ('1.5', '1.5'), ('5-', '5-'), ('9' * 5000, '9' * 5000), ('a=b', 'a=b'),
    ],
)  # fmt: skip
def test_settings_are_whole_numbers_or_text(text, value):
    assert command.settings([f'slurm-partition={text}']) == {'slurm_partition': value}


@pytest.mark.parametrize('pairs', [['a'], ['=5'], ['--=5'], ['a='], ['5=5'], ['a b=5'], ['a= ']])
def test_what_is_no_setting(pairs):
    with pytest.raises(ValueError, match='a setting is NAME=VALUE'):
        command.settings(pairs)


def test_the_last_of_several_counts_but_a_list_is_given_once(capsys):
    def main(*, depth: int = 1, widths: tuple[int, ...] = ()) -> int:
        """Does nothing."""
        return depth

    def parsed(*args):
        return command.parse(command.checked(main), args=args, prog='summary.py')()

    assert parsed('--depth', '2', '--depth', '3') == 3
    for twice in (('--widths', '1', '--widths', '2'), ('--widths', '1', '--widths=2')):
        with pytest.raises(SystemExit):
            parsed(*twice)
        assert capsys.readouterr().err.startswith('error: --widths is given twice')


def test_what_to_type_next_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my project').symlink_to(SCRIPTS.parent)
    monkeypatch.setattr(sys, 'argv', ['my project/scripts/train.py', 'digits'])
    found = command.program('runs/a b', script='evaluate')
    assert found == "python 'my project/scripts/evaluate.py' 'runs/a b'"
    monkeypatch.setattr(sys, 'argv', ['vitjax train', 'digits'])
    assert command.program('runs/a b', script='evaluate') == "vitjax evaluate 'runs/a b'"
    assert command.program('digits') == 'vitjax train digits'
