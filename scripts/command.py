"""What every command shares: arguments by tyro, and errors in a line or two."""

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import math
import os
import pathlib
import platform
import re
import sys
import traceback
import typing
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from vitjax import fields


def _with_huge_pages() -> None:
    """Starts the command again with huge pages for what malloc maps, on Linux.

    XLA's CPU backend maps its memory anew at each step, and the kernel clears it page by page: on
    two cores a step of `vit_cifar100` takes 0.87 of the time with pages of 2 MiB, one of a small
    PatchConvNet 0.65. Only an environment that is there from the start says so to glibc.
    """
    tunables = os.environ.get('GLIBC_TUNABLES', '')
    script, here = pathlib.Path(sys.argv[0]), pathlib.Path(__file__)
    started = script.resolve().parent == here.resolve().parent  # and not imported by another
    if started and platform.libc_ver()[0] == 'glibc' and 'glibc.malloc.hugetlb' not in tunables:
        own = 'glibc.malloc.hugetlb=1'
        os.environ['GLIBC_TUNABLES'] = f'{tunables}:{own}' if tunables else own
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


_with_huge_pages()


def _kind_of_cpu() -> str:
    """A name for the instructions that this machine has."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        has = next(line for line in lines if line.startswith(('flags', 'Features')))
    except (OSError, StopIteration):
        has = platform.processor()
    return f'{platform.machine()}-{zlib.crc32(has.encode()):08x}'


# What was compiled once is read back by the next command. Programs for a CPU hold its instructions,
# so that a home shared by different machines has a folder for each kind.
_cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_cache / 'vitjax' / 'jax' / _kind_of_cpu()))


def run(main: Callable[..., int | None]) -> None:
    """Calls `main` with the arguments that tyro parses for its signature, guarded, and exits."""
    guard(lambda: parse(checked(main))())


def checked(main: Callable[..., int | None]) -> Callable[..., Callable[[], int | None]]:
    """What returns the call of `main`, and refuses what is not as its signature declares."""

    @functools.wraps(main)
    def call(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        kinds = typing.get_type_hints(main, include_extras=True)
        for name, value in inspect.signature(main).bind(*args, **kwargs).arguments.items():
            positional = _POSITIONAL in getattr(kinds[name], '__metadata__', ())
            fields.check(value, kinds[name], name if positional else _flag(name))
        return functools.partial(main, *args, **kwargs)

    # tyro keeps the line breaks inside an argument's description, and then breaks lines itself.
    call.__doc__ = re.sub(r'\n {12,}', ' ', main.__doc__ or '')
    vars(call)['__signature__'] = inspect.signature(main)
    del vars(call)['__wrapped__']  # where it would look first
    return call


_, _POSITIONAL = typing.get_args(tyro.conf.Positional[str])


def _flag(name: str) -> str:
    return f'--{name.replace("_", "-")}'


def of_experiment(kind: Any, folder: str, *, usage: str, does: str) -> tuple[Any, Any]:
    """What a command line asks for that starts with an experiment's name, and that one's module.

    Args:
        kind: dataclass of `experiment`, `out` and what else there are flags for.
        folder: where `out` is by default, under the experiment's name.
        usage: what follows the name, in a line.
        does: what `--help` says before what the experiment is.
    """
    from vitjax import experiment as experiments

    arguments, program = sys.argv[1:], pathlib.Path(sys.argv[0]).name
    if not arguments or arguments[0].startswith('-'):
        print(
            f'usage: {program} EXPERIMENT {usage}\n\nexperiments: {", ".join(experiments.known())}'
        )
        print(f'{program} EXPERIMENT --help lists everything that can be set.')
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
    prog = f'{program} {arguments[0]}'
    asked = parse(kind, default=default, args=arguments[1:], prog=prog, description=what)
    for field, declared in fields.declared(kind).items():
        path = '' if field == 'experiment' else _flag(field)  # whose flags have no prefix
        fields.check(getattr(asked, field), declared, path)
    return asked, module


def parse(kind: Any, *, cli: Callable[..., Any] = tyro.cli, **options: Any) -> Any:
    """What tyro parses; what is wrong with the arguments is said in a line or two."""
    said, columns = io.StringIO(), os.environ.get('COLUMNS')
    if not {'-h', '--help'} & {*options.get('args', sys.argv)}:
        os.environ['COLUMNS'] = '10000'  # so that no word of an error is broken
    try:
        with contextlib.redirect_stderr(said):
            return cli(kind, **options)
    except SystemExit as end:
        if end.code == 2:
            print(f'error: {_without_box(said.getvalue())}', file=sys.stderr)
        raise
    finally:
        os.environ.pop('COLUMNS', None)
        os.environ |= {'COLUMNS': columns} if columns else {}


def _without_box(text: str) -> str:
    """What tyro draws in a box: the error in a line, and in another where to find what there is.

    Rules part it: the error, flags that are alike (indented by 4, their help by 8), how to get
    help. Text of another form stays as it is.
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

    def flags(rows: list[str]) -> list[str]:
        return [row.split()[0] for row in rows if re.match(r' {5}\S', row)]

    found = ' '.join(row.strip() for row in parts[0] if row.strip())
    more = [f'close: {", ".join(dict.fromkeys(flags(part)))}' for part in parts[1:] if flags(part)]
    more += [
        'there are ' + row.split(':', 1)[1].strip()
        for part in parts[1:] for row in part if 'Available' in row
    ]  # fmt: skip
    if choice := re.search(r"invalid choice '(.*)' for argument '(.*)'.*one of \((.*?),?\)", found):
        value, flag, known = choice.groups()
        names = known.replace("'", '').split(', ')
        if 'None' in names:  # which leaving it out gives; tyro has the others in any order
            names = sorted({*names} - {'None'})
        found = f'{flag} must be one of {", ".join(names)}: {value!r}'
    elif unknown := re.search(r'Unrecognized options: (.*)', found):
        tokens = unknown[1].split(', ')
        named = [token for token in tokens if token.startswith('-')]
        what = f'there is no {", ".join(named)}' if named else f'{", ".join(tokens)} is too much'
        found = '; '.join([what, *more])
    elif lacks := re.search(r"Missing value for argument '(.*)'. Expected (\d+)", found):
        found = f'{lacks[1]} must have values: {lacks[2]}, it has fewer'
    elif found.startswith('Missing from'):
        found = f'these must be given: {", ".join(flags(parts[0]))}'
    helps = re.findall(r'\S*\.py.* --help', '\n'.join(rows))
    return f'{found.rstrip(".")}.' + (f'\n{helps[-1]} says more.' if helps else '')


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings NAME=VALUE of a job, whole numbers as such.

    Raises:
        ValueError: for what is none.
    """
    values = map(pair, pairs)
    return {k: int(v) if v.lstrip('-').isdigit() else v for k, v in values}


def pair(text: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE.

    Raises:
        ValueError: for what is none.
    """
    key, equals, value = text.partition('=')
    if not (key and equals and value):
        raise ValueError(f'a setting is NAME=VALUE, a grid FIELD=VALUE,VALUE: {text!r} is not.')
    return key.lstrip('-'), value


def described(model: Any, size: int) -> str:
    """A model, its parameters and input, and what it runs on, in a few words."""
    import jax

    from vitjax.models.trunk import parameter_shapes

    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(model, size)))
    devices = jax.local_devices()
    where = f'on {len(devices)} x {devices[0].device_kind}'
    return f'{type(model).__name__}: {count:,} parameters, input {size}x{size} pixels, {where}'


def guard(call: Callable[[], int | None]) -> None:
    """Calls a function and exits with its code.

    What a user can cause (ValueError, OSError, too little memory) ends in a line or two and exit
    code 1; other exceptions are bugs and keep their traceback. VITJAX_TRACEBACK=1 shows every
    traceback. One of several processes that fails leaves at once, for the others to see it; a code
    that is returned is the same in all of them, and they leave together.
    """
    stdout: Any = sys.stdout
    stdout.reconfigure(line_buffering=True)  # into a file or a pipe too, whoever prints
    code, failed = 1, True
    try:
        code, failed = call() or 0, False
    except SystemExit as error:
        code = error.code
    except BrokenPipeError:  # whoever reads what is printed has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        code = 130
    except Exception as error:
        text = _said(error)
        if os.environ.get('VITJAX_TRACEBACK') or text is None:
            if not _several():
                raise
            traceback.print_exc()
        else:
            print(f'error: {text}', file=sys.stderr)
        alike = _several() and sys.modules['vitjax.processes'].Disagreement
        failed = not (alike and isinstance(error, alike))  # which all of them raise
    if code and failed and _several():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code if isinstance(code, int) else 1)  # jax would wait for the others
    sys.exit(code)


def _said(error: Exception) -> str | None:
    """What to say of an error, in a line or two; None of a bug."""
    if isinstance(error, ValueError | OSError):
        return str(error)
    if isinstance(error, MemoryError) or str(error).startswith('RESOURCE_EXHAUSTED'):
        return f'there is too little memory: {str(error)[:200].strip()}'
    if _several() and sys.modules['vitjax.processes'].lost(error):
        first = str(error).splitlines()[0][:200]
        return (
            f'another process of this run is gone ({first}).\n'
            'The same command goes on from the last checkpoint, on any number of processes.'
        )
    return None


def _several() -> bool:
    """Whether this process is one of several that train as one."""
    processes = sys.modules.get('vitjax.processes')
    return processes is not None and processes.joined
