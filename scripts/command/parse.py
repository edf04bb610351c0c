"""Command lines read by tyro; mistakes in them reported in a line or two."""

import contextlib
import io
import itertools
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import tyro

from command import help
from vitjax.base import fields, shell
from vitjax.base.flags import registry

IMPORTED: list[str] = []  # --import MODULE ..., which the next commands of a run need too


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
    name = script or pathlib.PurePath(sys.argv[0]).stem.removeprefix('vitjax ')
    named = [each for each in arguments if each[:1] != '-']
    return shell.command(name, *named, *IMPORTED)


def parse(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> Any:
    """Returns the arguments that tyro parses; reports mistakes in a line or two and exits.

    Args:
        kind: function, dataclass, or commands by name, with the arguments.
        cli: tyro's function for that kind.
        options: further arguments of `cli`.
    """
    args = [*options.get('args', sys.argv[1:])]
    options = {'prog': program(), **options, 'args': args}
    if {'-h', '--help', '--help-all'} & {*args}:
        print(help.text(kind, '--help-all' in args, cli=cli, **options))
        sys.exit(0)
    names = Counter(map(_named, args))
    twice = [name for name, count in names.items() if name and count > 1]
    aliases = [f'--{alias}' for alias in help.ALIASES if f'--{alias}' in names]
    known = help.flags(kind, cli=cli, **options) if twice or aliases else {}
    # The last value counts, as everywhere; but a list that loses its first values misleads.
    for name in twice:
        if '...' in known.get(name, ''):
            print(f'error: {name} is given twice: give it once, with all its values.',
                  file=sys.stderr)  # fmt: skip
            sys.exit(2)
    args = options['args'] = [_unaliased(each, known) for each in args]
    said = io.StringIO()
    try:
        with help.columns(10_000), contextlib.redirect_stderr(said):
            return cli(kind, registry=registry(), **options)
    except SystemExit as end:
        if end.code == 2:
            misread = re.search('Unrecognized|Missing', said.getvalue())
            known = help.flags(kind, cli=cli, **options) if misread else {}
            unknown = [
                each.split('=')[0]
                for each in args if misread and _named(each) and _named(each) not in known
            ]  # fmt: skip
            message = _without_box(said.getvalue(), unknown, known, options['prog'])
            print(f'error: {message}', file=sys.stderr)
        raise


def _named(argument: str) -> str:
    """Returns the flag that an argument names or negates; '' for a value."""
    name = argument.split('=')[0].replace('_', '-')
    return re.sub(r'^(--(?:.*\.)?)no-', r'\1', name) if re.match('--[a-z]', name) else ''


def _unaliased(argument: str, known: Collection[str]) -> str:
    """Returns an argument with the flag that it is an alias of, if the command has that one."""
    name, equals, value = argument.partition('=')
    meant = help.flag(help.ALIASES.get(name.removeprefix('--'), ''))
    return f'{meant}{equals}{value}' if name[:2] == '--' and meant in known else argument


def close_flags(named: Iterable[str], known: Iterable[str]) -> list[str]:
    """Returns the known flags that are close to unknown ones."""
    by_field = {name[2:].replace('-', '_'): name for name in known if '.no-' not in name}
    asked = [_named(name)[2:].replace('-', '_') for name in named]
    return [*dict.fromkeys(by_field[f] for name in asked for f in fields.close(name, [*by_field]))]


def _without_box(text: str, unknown: Sequence[str], known: Iterable[str], prog: str) -> str:
    """Returns the error that tyro draws in a box as a line, and a second line about help.

    Rules divide the box: the error, similar flags (indented by 4, their help by 8), how to get
    help. Text of another form stays unchanged.

    Args:
        text: tyro's output.
        unknown: flags that the command does not have.
        known: flags that it has.
        prog: the command as typed.
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
    helps = re.findall(rf'{re.escape(prog)}.* --help', '\n'.join(rows))
    return f'{found.rstrip(".")}.' + (f'\n{helps[-1]} says more.' if helps else '')


def _reworded(parts: Sequence[Sequence[str]]) -> str:
    """Returns tyro's error in the form of ours: the argument, the rule, the value."""
    found = ' '.join(row.strip() for row in parts[0] if row.strip())
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
