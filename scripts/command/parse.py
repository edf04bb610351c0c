"""Command lines read by tyro; mistakes in them reported in a line or two."""

import contextlib
import io
import itertools
import os
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tyro

from vitjax.base import fields
from vitjax.base.flags import registry

ENVIRONMENT = (
    '--import MODULE imports a module, or a file, whose models, losses or optimizers are named\n'
    'MODULE:NAME.\n'
    'environment: VITJAX_TRACEBACK=1 shows where an error was raised. VITJAX_HUGE_PAGES=0 leaves\n'
    'GLIBC_TUNABLES alone; commands otherwise restart Python once with it set for pages of 2 MiB.'
)
IMPORTED: list[str] = []  # --import MODULE ..., which the next commands of a run need too
WIDE = 10_000  # columns, at which tyro breaks no word of an error


def import_named() -> None:
    """Takes every `--import MODULE` from the command line, and imports it.

    Raises:
        ValueError: if a module cannot be imported, or is missing.
    """
    while at := next((i for i, each in enumerate(sys.argv) if each.split('=')[0] == '--import'), 0):
        flag, equals, name = sys.argv[at].partition('=')
        name = name if equals else ''.join(sys.argv[at + 1 : at + 2])
        if not name or name.startswith('-'):
            raise ValueError(f'{flag} expects a module, or the path of its file.')
        del sys.argv[at : at + (1 if equals else 2)]
        IMPORTED.extend(['--import', name])
        from vitjax.experiment import registry

        registry.require(name)


def program(*arguments: str, script: str | None = None) -> str:
    """Returns the shell command for this script, or another, with those arguments not flags.

    It can be typed in the folder in which this command was.
    """
    file = sys.argv[0] if script is None else os.path.join(os.path.dirname(sys.argv[0]), script)
    named = [each for each in arguments if each[:1] != '-']
    return shlex.join(['python', file, *named, *IMPORTED])


def parse(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> Any:
    """Returns the arguments that tyro parses; reports mistakes in a line or two and exits.

    Args:
        kind: function, dataclass, or commands by name, with the arguments.
        cli: tyro's function for that kind.
        options: further arguments of `cli`.
    """
    said, args = io.StringIO(), [*options.get('args', sys.argv[1:])]
    options = {'prog': program(), 'registry': registry(), **options}
    if {'-h', '--help'} & {*args}:
        try:
            with _columns(max(60, shutil.get_terminal_size().columns)):  # tyro hangs at 1
                return cli(kind, **options)
        finally:
            print(ENVIRONMENT)
    # The last value counts, as everywhere; but a list that loses its first values misleads.
    twice = [name for name, count in Counter(map(_named, args)).items() if name and count > 1]
    known = flags(kind, cli=cli, **options) if twice else {}
    for name in twice:
        if '...' in known.get(name, ''):
            print(f'error: {name} is given twice: give it once, with all its values.',
                  file=sys.stderr)  # fmt: skip
            sys.exit(2)
    try:
        with _columns(WIDE), contextlib.redirect_stderr(said):
            return cli(kind, **options)
    except SystemExit as end:
        if end.code == 2:
            misread = re.search('Unrecognized|Missing', said.getvalue())
            known = flags(kind, cli=cli, **options) if misread else {}
            unknown = [
                each.split('=')[0]
                for each in args if misread and _named(each) and _named(each) not in known
            ]  # fmt: skip
            print(f'error: {_without_box(said.getvalue(), unknown, known)}', file=sys.stderr)
        raise


def _named(argument: str) -> str:
    """Returns the flag that an argument names or negates; '' for a value."""
    name = argument.split('=')[0].replace('_', '-')
    return re.sub(r'^(--(?:.*\.)?)no-', r'\1', name) if re.match('--[a-z]', name) else ''


@contextlib.contextmanager
def _columns(count: int) -> Iterator[None]:
    """Sets the width of the terminal that tyro writes for."""
    before = os.environ.get('COLUMNS')
    os.environ['COLUMNS'] = str(count)
    try:
        yield
    finally:
        del os.environ['COLUMNS']
        os.environ |= {} if before is None else {'COLUMNS': before}


def flags(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> dict[str, str]:
    """Returns a command's flags with their values' notation, as its `--help` lists them."""
    shown = io.StringIO()
    args = []  # positional arguments do not matter, a subcommand does
    if cli is not tyro.cli:
        args = [each for each in options.get('args', sys.argv[1:2]) if each[:1] != '-'][:1]
    with _columns(WIDE), contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        cli(kind, **options | {'args': [*args, '--help'], 'registry': registry()})
    # In a box or, in ASCII, indented; descriptions name flags after one space.
    rows = re.findall(
        r'(?:│ |  )((?:--[a-z][\w.-]*(?:, )?)+)([^│\n]*?)(?=  |│|\n)', shown.getvalue()
    )
    found = {name: values.strip() for names, values in rows for name in names.split(', ')}
    return {'--help': '', **found}


def close_flags(named: Iterable[str], known: Iterable[str]) -> list[str]:
    """Returns the known flags that are close to unknown ones."""
    by_field = {name[2:].replace('-', '_'): name for name in known if '.no-' not in name}
    asked = [_named(name)[2:].replace('-', '_') for name in named]
    return [*dict.fromkeys(by_field[f] for name in asked for f in fields.close(name, [*by_field]))]


def _without_box(text: str, unknown: Sequence[str], known: Iterable[str]) -> str:
    """Returns the error that tyro draws in a box as a line, and a second line about help.

    Rules divide the box: the error, similar flags (indented by 4, their help by 8), how to get
    help. Text of another form stays unchanged.

    Args:
        text: tyro's output.
        unknown: flags that the command does not have.
        known: flags that it has.
    """
    lines = re.sub(r'\x1b\[[0-9;]*m', '', text).splitlines()
    rows = [line[1:].rstrip(' │') for line in lines if line[:1] not in '╭╰']
    parts = [
        list(part)
        for rule, part in itertools.groupby(rows, lambda row: not row.strip(' ─-')) if not rule
    ]  # fmt: skip
    if lines[:1] and lines[0][:1] != '╭':  # in ASCII the title stands above a rule
        del parts[:1]
    if not parts:
        return text.strip()
    found = _reworded(parts)
    if unknown:
        close = ', '.join(close_flags(unknown, known))
        found = f'there is no {", ".join(unknown)}' + (f'; close: {close}' if close else '')
    helps = re.findall(r'(?:python )?\S*\.py.* --help', '\n'.join(rows))
    return f'{found.rstrip(".")}.' + (f'\n{helps[-1]} says more.' if helps else '')


def _reworded(parts: Sequence[Sequence[str]]) -> str:
    """Returns tyro's error in the form of ours: the argument, the rule, the value."""
    found = ' '.join(row.strip() for row in parts[0] if row.strip())
    if got := re.search(r"invalid choice '(.*)' for argument '(.*)'.*one of \((.*?),?\)", found):
        value, name, allowed = got.groups()
        names = allowed.replace("'", '').split(', ')
        if 'None' in names:  # the default; tyro lists the others in any order
            names = sorted({*names} - {'None'})
        name = name if name.startswith('-') else name.upper()
        return f'{name} must be one of {", ".join(names)}: {value!r}'
    if got := re.search(r'Unrecognized options: (.*)', found):
        there = (row.split(':', 1)[1] for part in parts[1:] for row in part if 'Available' in row)
        return '; there are '.join([f'unexpected argument: {got[1]}', *map(str.strip, there)])
    if got := re.search(r"Missing value for argument '(.*)'. Expected (\d+)", found):
        name, count = got.groups()
        if not name.startswith('-'):
            return f'missing required arguments: {name.upper()}'
        return f'{name} expects {count} value{"" if count == "1" else "s"}'
    if got := re.search(r'Error parsing (\S+): no type matching (.*) could .*\[(.*)]', found):
        name, kinds, value = got.groups()
        fitting = [kind for kind in re.findall('{(.*?)}', kinds) if kind != 'None']
        return f'{name} expects {" or ".join(fitting)}: {value}'
    if got := re.search('Expected one of {(.*)}', found):
        return f'missing required arguments: one of {got[1]}'
    if found.startswith('Missing from'):
        required = [row.split()[0] for row in parts[0] if re.match(r' {5}\S', row)]
        return f'missing required arguments: {", ".join(required)}'
    return found
