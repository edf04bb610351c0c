"""Help of a command: first the flags that most need, each with an example, or all of them."""

import contextlib
import dataclasses
import io
import itertools
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tyro

from vitjax.base import fields, shell
from vitjax.base.flags import registry

WIDE = 129  # columns; from 130 on tyro sets groups of flags beside each other
MOST = 28  # columns of flags and their values
ENVIRONMENT = (
    '--import MODULE imports a module, or a file, whose models, losses or optimizers are named '
    'MODULE:NAME.\n'
    'environment: VITJAX_TRACEBACK=1 shows where an error was raised. VITJAX_HUGE_PAGES=0 leaves '
    'GLIBC_TUNABLES alone; commands otherwise restart Python once with it set for pages of 2 MiB.'
)
ALIASES = {'lr': 'optim.peak', 'wd': 'optim.decay', 'bs': 'batch_size'}

# Settings in the short help of a command that takes an experiment, each with a value.
EXPERIMENT = {
    '--data.name': 'folder:PHOTOS', '--epochs': '20', '--steps': '1000', '--batch-size': '256',
    '--optim.peak': '1e-3', '--optim.decay': '0.05', '--optim.name': 'muon', '--model.depth': '6',
    '--model.width': '192', '--model.patch-size': '4', '--model.drop-path': '0.1',
    '--model.dtype': 'bf16', '--augment.size': '64', '--augment.mixup': '0.8', '--seed': '1',
    '--weights': 'runs/d4', '--parallel': 'fsdp',
    '--out': 'runs/d6', '--grid': 'model.depth=2,4', '--job': 'timeout_min=60', '--seeds': '5',
    '--target': 'v5e h100:8', '--images': '45000',
}  # fmt: skip
OTHERS = {
    '--out': 'PATH', '--data': 'tfds:cifar10', '--images': 'PHOTO ...', '--split': 'validation',
    '--keep': "'blocks|embed'", '--at': 'blocks/mlp/hidden', '--layers': '6 12', '--query': '8 8',
    '--metrics': 'cka rbf', '--target': 'airplane', '--channels': '0 7', '--weights': 'runs/d6',
}  # fmt: skip
# Flags that the short help leaves out; the first are facts that files beside weights mostly state.
RARE = {
    '--num-heads', '--rope', '--mlp', '--pool', '--mean', '--deviation', '--crop',
    '--interpolation', '--grid', '--model',
    '--square', '--unchecked', '--bandwidth', '--jitter', '--blur', '--discard', '--aside',
    '--outliers', '--onward', '--noise', '--memory', '--format', '--k', '--samples',
    '--train-examples', '--layers',
}  # fmt: skip


class Row(NamedTuple):
    """Argument in a command's help.

    Attributes:
        part: part of an experiment that it sets, such as `model`; empty for others.
        names: its flags, or the name of a positional argument.
        values: notation of its values; empty for a switch.
        text: its description.
        default: its default, as typed; empty if it has none.
    """

    part: str
    names: tuple[str, ...]
    values: str
    text: str
    default: str


class Page(NamedTuple):
    """Help of a command as tyro lists it: arguments, and the descriptions of their parts."""

    usage: str
    about: str
    rows: list[Row]
    parts: dict[str, str]


@contextlib.contextmanager
def columns(count: int) -> Iterator[None]:
    """Sets the width of the terminal that tyro writes for."""
    before = os.environ.get('COLUMNS')
    os.environ['COLUMNS'] = str(count)
    try:
        yield
    finally:
        del os.environ['COLUMNS']
        os.environ |= {} if before is None else {'COLUMNS': before}


def page(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> Page:
    """Reads a command's arguments from the help that tyro writes for it."""
    shown = io.StringIO()
    args = []  # positional arguments do not matter, a subcommand does
    if cli is not tyro.cli:
        args = [each for each in options.get('args', ()) if each[:1] != '-'][:1]
    with columns(WIDE), contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        cli(kind, **options | {'args': [*args, '--help'], 'registry': registry()})
    head, *groups = re.split(r'^ (\S.*?) *\n *-{9,} *$', shown.getvalue(), flags=re.MULTILINE)
    usage, _, about = head.strip().partition('\n\n')
    rows: list[Row] = []
    parts = {}
    for group, body in zip(groups[::2], groups[1::2], strict=True):
        part = re.sub('positional arguments|subcommands|options', '', group).strip()
        described, _, listed = body.rpartition('-' * 9)
        parts[part] = described.strip(' -\n')
        for line in filter(str.strip, listed.splitlines()):
            if line.startswith(' ' * 6) and rows:  # the description, broken into lines
                rows[-1] = rows[-1]._replace(text=f'{rows[-1].text} {line.strip()}'.strip())
                continue
            names, *rest = re.split(' {2,}', line.strip(), maxsplit=1)
            found = re.match(r'((?:-[\w.-]+(?:, )?)+) ?(.*)', names)
            flags, values = found.groups() if found else (names, '')
            rows.append(Row(part, tuple(flags.split(', ')), values, ''.join(rest), ''))
    rows = [_with_default(row) for row in rows if row.names[0] not in ('-h', '(required)')]
    return Page(usage, about, rows, parts)


def _with_default(row: Row) -> Row:
    """Returns a row whose default, which tyro appends to the description, is apart."""
    text, _, default = row.text.rpartition('(default: ')
    apart = text and default.endswith(')')
    return row._replace(text=text.strip(), default=default[:-1]) if apart else row


def flags(kind: Any, **options: Any) -> dict[str, str]:
    """Returns a command's flags with their values' notation."""
    rows = page(kind, **options).rows
    found = {name: row.values for row in rows for name in row.names if name[:2] == '--'}
    return {'--help': '', '--help-all': '', **found}


def flag(field: str) -> str:
    """Returns a dotted field as its flag: `optim.peak` as `--optim.peak`."""
    return f'--{field.replace("_", "-")}'


def text(kind: Any, everything: bool, **options: Any) -> str:
    """Returns the help of a command: of the flags that most need, or of everything."""
    read = page(kind, **options)
    rows, known = read.rows, {name for row in read.rows for name in row.names}
    examples: Mapping[str, str] = {}
    if not everything:
        examples = EXPERIMENT if dataclasses.is_dataclass(kind) else OTHERS
        rows = _common(kind, rows)
    width = min(100, max(60, shutil.get_terminal_size().columns))
    shown = [re.sub(r'\[-h\]( \[[A-Z ]*OPTIONS\])?', '[FLAG VALUE ...]', read.usage)]
    for paragraph in read.about.split('\n\n'):
        lines = re.split(r'\n(?=- )', paragraph)
        shown.append('\n'.join(_filled(_words(line, known), width) for line in lines))
    for part, of_part in itertools.groupby(rows, lambda row: row.part):
        lines = [_line(row, known, examples, everything, width) for row in of_part]
        if part:
            about = _words(f'{part}: {read.parts[part]}', known, part)
            lines.insert(0, _filled(about, width))
        shown.append('\n'.join(lines))
    if everything:
        shown += [_filled(line, width) for line in ENVIRONMENT.splitlines()]
    elif len(rows) < len(read.rows):
        shown.append(f'--help-all explains all {len(read.rows)} arguments.')
    return '\n\n'.join(filter(None, shown))


def _common(kind: Any, rows: Sequence[Row]) -> list[Row]:
    """Returns the arguments of the short help: a command's own, and some of its experiment's."""
    if not dataclasses.is_dataclass(kind):
        return [row for row in rows if row.names[0] not in RARE]
    by_name = {row.names[0]: row._replace(part='') for row in rows}
    first = dict.fromkeys([*map(flag, fields.declared(kind)), *EXPERIMENT])
    first.pop('--format', None)  # of figures
    return [by_name[name] for name in first if name in by_name]


def _line(
    row: Row, known: Collection[str], examples: Mapping[str, str], everything: bool, width: int
) -> str:
    """Returns an argument in a line, or in several that are indented alike."""
    name, *other = row.names
    said = _words(row.text, known, row.names[0][2:].rpartition('.')[0])
    if not everything:
        said = _short(said, 2 * (width - MOST) - 10)
    default = {'True': 'on', 'False': '', 'None': '', "''": ''}.get(row.default, row.default)
    said += f' [{default}]' if default else ''
    if other:  # a switch
        head = other[0].replace('no-', '[no-]', 1) if row.default == 'True' else name
    else:
        short = [f'--{alias}' for alias, field in ALIASES.items() if flag(field) == name]
        values = examples.get(name) or _values(row, everything)
        head = f'{", ".join([name, *short])} {values}'.rstrip()
    lines = _filled(said, width - MOST - 2).split('\n')
    if len(head) > MOST - 2:
        lines = [f'  {head}', *(f'{"":{MOST + 2}}{line}' for line in lines)]
    else:
        lines = [f'  {head:<{MOST}}{lines[0]}', *(f'{"":{MOST + 2}}{each}' for each in lines[1:])]
    return '\n'.join(lines)


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_on_hyphens=False)  # flags and hf-hub stay whole


def _short(text: str, most: int) -> str:
    """Returns the first sentence without what is in brackets, and of a long one its beginning."""
    first = re.split(r'(?<=\w)\. (?=[A-Z])', re.sub(r' \([^()]*\)(?!$)', '', text))[0]
    first = re.sub(r'(?<!\.)\.$', '', first)
    clauses = first.split('; ')
    fitting = [i for i in range(1, len(clauses)) if len('; '.join(clauses[:i])) <= most]
    if len(first) <= most or len(clauses) == 1:
        return first
    return '; '.join([*clauses[: max(fitting, default=1)], '...'])


def _values(row: Row, everything: bool) -> str:
    """Returns the notation of a flag's values, without what its description says."""
    kind = re.sub(r'\{None\}\||None,', '', row.values).replace('STR', 'TEXT')
    kind = re.sub(r'\[(.*?) \[\1 \.\.\.\]\]', r'\1 ...', kind)
    kind = re.sub(r'^\{(.* .*)\}$', r'\1', kind)  # several values
    limits = r'[\[(]\d+,\d{7,}\]' if everything else r'(?<=[TX])[\[(>][^ }]*'
    kind = re.sub(limits, '', kind)
    if found := re.fullmatch(r'\{(.*)\}(.*)', kind):
        names, more = found[1].split(','), found[2]
        if len(found[1]) > 16 and all(re.search(rf'\b{name}\b', row.text) for name in names):
            return f'NAME{more}'
        return '|'.join(names) + more
    return kind


def _words(text: str, known: Collection[str], part: str = '') -> str:
    """Returns a description as a user types: flags, not fields, and commands, not files."""

    def typed(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        flags = [flag(f'{part}.{name}'), flag(name)]
        return next((each for each in flags if each in known), name)

    def command(found: re.Match[str]) -> str:
        is_one = (shell.folder('scripts') / f'{found[1]}.py').is_file()
        return shell.command(found[1]) if is_one else found[0]

    text = re.sub(r'`([^`]*)`|\b([a-z]+_[a-z_]+)\b', typed, ' '.join(text.split()))
    return re.sub(r'\b(?:scripts/)?(\w+)\.py\b', command, text)
