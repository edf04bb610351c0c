"""Arguments of every command, read by tyro, and errors in a line or two."""

import startup  # first: from here on Ctrl-C in an import ends in a line

# isort: split
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import logging
import math
import os
import pathlib
import platform
import re
import shlex
import shutil
import sys
import traceback
import typing
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tyro

from vitjax.base import fields


def _cache() -> str | None:
    """Returns the user's folder for what jax compiled; None if the user has no home.

    Programs for a CPU hold its instructions, so that a home shared by different machines has a
    folder for each kind.
    """
    folder = os.environ.get('XDG_CACHE_HOME', '')
    if not os.path.isabs(folder):  # as the XDG specification has it
        folder = os.path.expanduser('~/.cache')
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        has = next(line for line in lines if line.startswith(('flags', 'Features')))
    except (OSError, StopIteration):
        has = platform.processor()
    kind = f'{platform.machine()}-{zlib.crc32(has.encode()):08x}'
    return os.path.join(folder, 'vitjax', 'jax', kind) if os.path.isabs(folder) else None


if 'JAX_COMPILATION_CACHE_DIR' not in os.environ and (_folder := _cache()):
    os.environ['JAX_COMPILATION_CACHE_DIR'] = _folder  # the next command reads what this compiles
    # In a home that is read-only or full, commands are only slower.
    warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation', UserWarning)
logging.getLogger('matplotlib').addFilter(
    lambda record: not re.match('mkdir -p failed|Matplotlib created a temp', record.getMessage())
)


def run(main: Callable[..., int | None]) -> None:
    """Calls `main` with the arguments that tyro parses for its signature, guarded, and exits."""
    guard(lambda: parse(checked(main))())


def checked(main: Callable[..., int | None]) -> Callable[..., Callable[[], int | None]]:
    """Returns a function that checks arguments against `main`'s signature and binds them to it."""

    @functools.wraps(main)
    def call(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        kinds = typing.get_type_hints(main, include_extras=True)
        for name, value in inspect.signature(main).bind(*args, **kwargs).arguments.items():
            marks = getattr(kinds[name], '__metadata__', ())
            shown = next((mark.metavar for mark in marks if getattr(mark, 'metavar', None)), name)
            if _POSITIONAL in marks and value == ():
                raise ValueError(f'missing required arguments: {shown}.')
            path = '' if any(getattr(mark, 'name', None) == '' for mark in marks) else name
            with contextlib.nullcontext() if _POSITIONAL in marks else as_flags():
                _check(value, kinds[name], path)  # a group without a name has flags without one
        return functools.partial(main, *args, **kwargs)

    # tyro keeps the line breaks inside an argument's description, and then breaks lines itself.
    call.__doc__ = re.sub(r'\n {12,}', ' ', main.__doc__ or '')
    vars(call)['__signature__'] = inspect.signature(main)
    del vars(call)['__wrapped__']  # where it would look first
    return call


_, _POSITIONAL = typing.get_args(tyro.conf.Positional[str])


def flag(field: str) -> str:
    """Returns a dotted field as its flag: `optim.peak` as `--optim.peak`."""
    return f'--{field.replace("_", "-")}'


def of_experiment(kind: Any, folder: str, *, usage: str, does: str) -> tuple[Any, Any]:
    """Returns the arguments of a command line that names an experiment, and that one's module.

    Args:
        kind: dataclass of `experiment`, `out` and the command's other flags.
        folder: parent of the default `out`, which has the experiment's name.
        usage: flags shown after the name, in a line.
        does: text of `--help` before the experiment's own.

    Raises:
        ValueError: for an unknown experiment, and for a value that a field does not take.
    """
    from vitjax import experiment as experiments

    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith('-'):
        known = [*experiments.known()]
        print(f'usage: {program("EXPERIMENT")} {usage}\n\nexperiments: {", ".join(known)}')
        example = 'digits' if 'digits' in known else 'EXPERIMENT'
        print(f'{program(example)} --help lists everything that can be set.')
        sys.exit(0 if arguments and arguments[0] in ('-h', '--help') else 2)
    module, name = experiments.find(arguments[0]), pathlib.Path(arguments[0]).stem
    experiment, given = module.experiment, {argument.split('=')[0] for argument in arguments}
    if len({'--steps', '--epochs'} & given) == 1:  # instead of the experiment's own length
        experiment = dataclasses.replace(experiment, epochs=None, steps=None)
    named = {name.replace('_', '-') for name in given}
    if '--data.name' in named and '--model.num-classes' not in named:  # other classes
        model = experiments.unsized(experiment.model)
        experiment = dataclasses.replace(experiment, model=model)
    default = kind(experiment, f'{folder}/{name}')
    what = does + (module.__doc__ or name).split('\n\n')[0]
    options: Any = {'prog': program(arguments[0]), 'description': what}
    asked = parse(kind, default=default, args=arguments[1:], **options)
    with as_flags():
        for field, declared in fields.declared(kind).items():
            # An experiment's flags have no prefix.
            _check(getattr(asked, field), declared, '' if field == 'experiment' else field)
    for name in experiments.imports(asked.experiment):
        IMPORTED.extend([] if name in IMPORTED else ['--import', name])
    return asked, module


def _check(value: Any, declared: Any, name: str) -> None:
    """Checks an argument, as `fields.check`; an empty `out` is no folder, but would be this one."""
    if name == 'out' and value == '':
        raise ValueError("out must name a folder: ''.")
    if name == 'out' and isinstance(value, str) and value.startswith('~'):
        # A shell expands a known home after a space and not after `--out=`.
        raise ValueError(f'out must not start with ~, which the shell left as it is: {value!r}.')
    fields.check(value, declared, name)


@contextlib.contextmanager
def as_flags() -> Iterator[None]:
    """Lets an error that starts with a dotted field start with its flag."""
    try:
        yield
    except ValueError as error:
        field, _, rest = str(error).partition(' ')
        named = re.fullmatch(r'[a-z_]\w*(\.\w+)*', field) and rest.startswith('must ')
        raise (ValueError(f'{flag(field)} {rest}') if named else error) from None


def program(*arguments: str, script: str | None = None) -> str:
    """Returns how to call this command, or another script, with arguments that are no flags.

    It can be typed where this command was.
    """
    file = sys.argv[0] if script is None else os.path.join(os.path.dirname(sys.argv[0]), script)
    named = [each for each in arguments if each[:1] != '-']
    return shlex.join(['python', file, *named, *IMPORTED])


def parse(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> Any:
    """Returns what tyro parses; prints what is wrong with the arguments in a line or two."""
    said, args = io.StringIO(), [*options.get('args', sys.argv[1:])]
    options = {'prog': program(), **options}
    if {'-h', '--help'} & {*args}:
        try:
            with _columns(max(60, shutil.get_terminal_size().columns)):  # tyro hangs at 1
                return cli(kind, **options)
        finally:
            print(ENVIRONMENT)
    # The last of several counts, as everywhere; but a list that loses its first values misleads.
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
            unknown = misread and [
                each.split('=')[0] for each in args if _named(each) and _named(each) not in known
            ]
            print(f'error: {_without_box(said.getvalue(), unknown or [], known)}', file=sys.stderr)
        raise


ENVIRONMENT = (
    '--import MODULE imports a module, or a file, whose models, losses or optimizers are named\n'
    'MODULE:NAME.\n'
    'environment: VITJAX_TRACEBACK=1 shows where an error came from; VITJAX_HUGE_PAGES=0 leaves\n'
    'GLIBC_TUNABLES alone, which commands set for pages of 2 MiB, starting Python once more.'
)


def _named(argument: str) -> str:
    """Returns the flag that an argument names or negates; '' for a value."""
    name = argument.split('=')[0].replace('_', '-')
    return re.sub(r'^(--(?:.*\.)?)no-', r'\1', name) if re.match('--[a-z]', name) else ''


WIDE = 10_000  # columns, at which tyro breaks no word of an error


@contextlib.contextmanager
def _columns(count: int) -> Iterator[None]:
    """Sets the width of the terminal that tyro writes for."""
    before = os.environ.get('COLUMNS')
    os.environ['COLUMNS'] = str(count)
    try:
        yield
    finally:
        os.environ.pop('COLUMNS', None)
        os.environ |= {} if before is None else {'COLUMNS': before}


def flags(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> dict[str, str]:
    """Returns a command's flags with the values that they take, as its `--help` lists them."""
    shown = io.StringIO()
    args = []  # positional arguments do not matter, a subcommand does
    if cli is not tyro.cli:
        args = [each for each in options.get('args', sys.argv[1:2]) if not each.startswith('-')][:1]
    with _columns(WIDE), contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        cli(kind, **options | {'args': [*args, '--help']})
    # In a box or, in ASCII, indented; descriptions name flags after one space.
    rows = re.findall(
        r'(?:│ |  )((?:--[a-z][\w.-]*(?:, )?)+)([^│\n]*?)(?=  |│|\n)', shown.getvalue()
    )
    found = {name: values.strip() for names, values in rows for name in names.split(', ')}
    return {'--help': '', **found}


def _without_box(text: str, unknown: Sequence[str], known: Iterable[str]) -> str:
    """Returns the error that tyro draws in a box as a line, and in another where to find help.

    Rules part the box: the error, flags that are alike (indented by 4, their help by 8), how to get
    help. Text of another form stays as it is.

    Args:
        text: what tyro printed.
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
    found = ' '.join(row.strip() for row in parts[0] if row.strip())
    if unknown:
        found, close = f'there is no {", ".join(unknown)}', close_flags(unknown, known)
        found += f'; close: {", ".join(close)}' if close else ''
    elif choice := re.search(
        r"invalid choice '(.*)' for argument '(.*)'.*one of \((.*?),?\)", found
    ):
        value, name, allowed = choice.groups()
        names = allowed.replace("'", '').split(', ')
        if 'None' in names:  # which leaving it out gives; tyro has the others in any order
            names = sorted({*names} - {'None'})
        found = f'{name} must be one of {", ".join(names)}: {value!r}'
    elif surplus := re.search(r'Unrecognized options: (.*)', found):
        found = f'unexpected argument: {surplus[1]}'
        found += ''.join(
            f'; there are {row.split(":", 1)[1].strip()}'
            for part in parts[1:] for row in part if 'Available' in row
        )  # fmt: skip
    elif lacks := re.search(r"Missing value for argument '(.*)'. Expected (\d+)", found):
        name, count = lacks.groups()
        found = f'{name} expects {count} value{"" if count == "1" else "s"}'
        if not name.startswith('-'):
            found = f'missing required arguments: {name.upper()}'
    elif misfit := re.search(r'Error parsing (\S+): no type matching (.*) could .*\[(.*)]', found):
        name, kinds, given = misfit.groups()
        fitting = [kind for kind in re.findall('{(.*?)}', kinds) if kind != 'None']
        found = f'{name} expects {" or ".join(fitting)}: {given}'
    elif choices := re.search('Expected one of {(.*)}', found):
        found = f'missing required arguments: one of {choices[1]}'
    elif found.startswith('Missing from'):
        required = [row.split()[0] for row in parts[0] if re.match(r' {5}\S', row)]
        found = f'missing required arguments: {", ".join(required)}'
    helps = re.findall(r'(?:python )?\S*\.py.* --help', '\n'.join(rows))
    return f'{found.rstrip(".")}.' + (f'\n{helps[-1]} says more.' if helps else '')


def close_flags(named: Iterable[str], known: Iterable[str]) -> list[str]:
    """Returns the known flags that are close to unknown ones."""
    by_field = {name[2:].replace('-', '_'): name for name in known if '.no-' not in name}
    asked = [_named(name)[2:].replace('-', '_') for name in named]
    return [*dict.fromkeys(by_field[f] for name in asked for f in fields.close(name, [*by_field]))]


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Returns settings NAME=VALUE of a job by name, whole numbers as such.

    >>> settings(['timeout-min=60', 'slurm_partition=gpu'])
    {'timeout_min': 60, 'slurm_partition': 'gpu'}

    Raises:
        ValueError: for what is not NAME=VALUE, and for a name that is given twice.
    """
    found: dict[str, Any] = {}
    for name, value in map(pair, pairs):
        if name in found:
            raise ValueError(f'{name} is given twice: {found[name]} and {value}.')
        # Longer ones are no counts, and Python refuses to read those of 4,300 digits.
        found[name] = int(value) if re.fullmatch('-?[0-9]{1,18}', value) else value
    return found


def pair(text: str) -> tuple[str, str]:
    """Returns the two sides of NAME=VALUE, the name as a field: dashes become underscores.

    Raises:
        ValueError: for what is not NAME=VALUE.
    """
    name, _, value = text.partition('=')
    name = name.removeprefix('--').replace('-', '_')
    if not re.fullmatch(r'[^\W\d]\w*(\.\w+)*', name) or not value.strip():
        raise ValueError(f'a setting is NAME=VALUE, a grid FIELD=VALUE,VALUE: {text!r} is not.')
    return name, value


def described(model: Any, size: int) -> str:
    """Returns a model, its parameters, its input and its devices in a few words."""
    import jax

    from vitjax.models.base import parameter_shapes

    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(model, size)))
    devices = jax.local_devices()
    where = f'on {len(devices)} x {devices[0].device_kind}'
    return f'{type(model).__name__}: {count:,} parameters, input {size}x{size} pixels, {where}'


def guard(call: Callable[[], int | None]) -> None:
    """Calls a function and exits with its code.

    Errors that a user can cause (ValueError, OSError, too little memory, a missing platform) end
    in a line or two and exit code 1; other exceptions are bugs and keep their traceback.
    VITJAX_TRACEBACK=1 shows every traceback. One of several processes that fails leaves at once,
    for the others to see it; a code that is returned is the same in all of them, and they leave
    together.
    """
    for stream in (sys.stdout, sys.stderr):
        # Lines into a file or a pipe too, whoever prints; `é` where a terminal knows only ASCII.
        typing.cast(Any, stream).reconfigure(line_buffering=True, errors='backslashreplace')
    code, failed, lost = 1, True, None
    try:
        import_named()
        code, failed = call() or 0, False
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        startup.say('stopped')
        code = 130
    except Exception as error:
        # Errors of files have their name; only trying tells an error of what was printed.
        lost = _unwritable('\n') if isinstance(error, OSError) and not error.filename else None
        text = None if lost else _said(error)
        if text and not os.environ.get('VITJAX_TRACEBACK'):
            startup.say(f'error: {text}')
        elif not lost:
            if not _several():
                raise
            traceback.print_exc()
        alike = _several() and sys.modules['vitjax.base.processes'].Disagreement
        failed = not (alike and isinstance(error, alike))  # which all of them raise
    if lost := lost or _unwritable():
        startup.redirect(sys.stdout)
        if not isinstance(lost, BrokenPipeError):  # `head` has seen enough
            startup.say(f'error: standard output must take what is printed: {lost.strerror}.')
        code = code or 1
    if code and failed and _several():
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)  # jax would wait for the others
    sys.exit(code)


IMPORTED: list[str] = []  # --import MODULE ..., which the next commands of a run need too


def import_named() -> None:
    """Takes every `--import MODULE` from the command line, and imports it.

    Raises:
        ValueError: for a module that cannot be imported, and without one.
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


def _unwritable(text: str = '') -> OSError | None:
    """Returns the error of standard output if it does not take a text and what came before."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


LINES = 6  # of a message; another program's can be hundreds


def _said(error: Exception) -> str | None:
    """Returns what to print of an error, in a few lines; None of a bug."""
    if isinstance(error, ValueError | OSError):
        lines = str(error).splitlines() or [type(error).__name__]
        more = [f'... {len(lines) - LINES} lines more: VITJAX_TRACEBACK=1 shows them.']
        return '\n'.join(lines if len(lines) <= LINES + 1 else lines[:LINES] + more)
    if isinstance(error, MemoryError) or str(error).startswith('RESOURCE_EXHAUSTED'):
        return f'there is too little memory: {str(error)[:200].strip()}'
    if _several() and sys.modules['vitjax.base.processes'].lost(error):
        first = str(error).splitlines()[0][:200]
        return (
            f'another process of this run is gone ({first}).\n'
            'The same command goes on from the last checkpoint, on any number of processes.'
        )
    return _platform()


def _platform() -> str | None:
    """Returns what to print if jax has no devices; None if it has."""
    jax = sys.modules.get('jax')
    try:
        if jax is not None and not _several():
            jax.devices()
        return None
    except Exception as error:
        asked = os.environ.get('JAX_PLATFORMS', '')
        said = str(error).splitlines()[0][:300] if str(error) else 'its plug-in is not installed'
        return (
            f'jax must find a device of JAX_PLATFORMS={asked!r}: {said}.\n'
            'JAX_PLATFORMS=cpu before the command runs it on the CPU.'
        )


def _several() -> bool:
    """Whether this process is one of several that train as one."""
    processes = sys.modules.get('vitjax.base.processes')
    return processes is not None and processes.joined
