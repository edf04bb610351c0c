"""Code that commands share: arguments read by tyro, errors in a line or two, compiled programs.

`parse` reads command lines, `guard` ends the process, `arguments` are those that several commands
have, with their texts of `--help`, `tables` print, and `startup` prepares the process before
anything large is imported.
"""

from command import startup  # first: from here on Ctrl-C in an import ends in a line

# isort: split
import contextlib
import dataclasses
import functools
import inspect
import logging
import math
import os
import pathlib
import platform
import re
import sys
import typing
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tyro.conf import Positional

from command import arguments
from command.guard import guard
from command.help import ALIASES, flag, flags
from command.parse import IMPORTED, close_flags, parse, program
from vitjax.base import fields
from vitjax.base.flags import flagged

__all__ = [
    'ALIASES', 'as_flags', 'checked', 'close_flags', 'described', 'dotted', 'flag', 'flags',
    'guard', 'of_experiment', 'pair', 'parse', 'program', 'run', 'settings', 'startup',
]  # fmt: skip


def _cache() -> str | None:
    """Returns the user's folder for programs that jax compiled; None if the user has no home.

    Programs for a CPU depend on its instruction set. A home that different machines share has a
    folder for each.
    """
    folder = os.environ.get('XDG_CACHE_HOME', '')
    if not os.path.isabs(folder):  # to be ignored, by the XDG specification
        folder = os.path.expanduser('~/.cache')
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        has = next(line for line in lines if line.startswith(('flags', 'Features')))
    except (OSError, StopIteration):
        has = platform.processor()
    kind = f'{platform.machine()}-{zlib.crc32(has.encode()):08x}'
    return os.path.join(folder, 'vitjax', 'jax', kind) if os.path.isabs(folder) else None


if 'JAX_COMPILATION_CACHE_DIR' not in os.environ and (_folder := _cache()):
    os.environ['JAX_COMPILATION_CACHE_DIR'] = _folder
    # If the home is read-only or full, commands are only slower.
    warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation', UserWarning)
logging.getLogger('matplotlib').addFilter(
    lambda record: not re.match('mkdir -p failed|Matplotlib created a temp', record.getMessage())
)


def run(main: Callable[..., int | None]) -> None:
    """Calls `main` with the arguments that tyro parses for its signature, guarded, and exits."""
    guard(lambda: parse(checked(main))())


_, _POSITIONAL = typing.get_args(Positional[str])


def checked(main: Callable[..., int | None]) -> Callable[..., Callable[[], int | None]]:
    """Returns a function that checks arguments against `main`'s signature and binds them to it."""

    @functools.wraps(main)
    def call(*args: Any, **kwargs: Any) -> Callable[[], int | None]:
        kinds = typing.get_type_hints(main, include_extras=True)
        for name, value in inspect.signature(main).bind(*args, **kwargs).arguments.items():
            marks = getattr(kinds[name], '__metadata__', ())
            if _is_positional(kinds[name]):
                shown = next((m.metavar for m in marks if getattr(m, 'metavar', None)), name)
                if value == ():
                    raise ValueError(f'missing required arguments: {shown.rstrip(".")}.')
                _check(value, kinds[name], shown.strip('.[]'))
                continue
            unnamed = any(getattr(mark, 'name', None) == '' for mark in marks)  # a group of flags
            with as_flags():
                _check(value, kinds[name], '' if unnamed else name)
        flags = {name: name for name, kind in kinds.items() if not _is_positional(kind)}
        if 'data' in flags:  # the name of an experiment's data
            flags['data.name'] = 'data'
        return as_flags(flags)(functools.partial(main, *args, **kwargs))

    call.__doc__ = arguments.documented(main)
    vars(call)['__signature__'] = inspect.signature(main)
    hints = typing.get_type_hints(main, include_extras=True)
    call.__annotations__ = {name: flagged(kind) for name, kind in hints.items()}
    del vars(call)['__wrapped__']  # tyro would look there first
    return call


def _is_positional(kind: Any) -> bool:
    """Returns True for the type of an argument without a flag."""
    return _POSITIONAL in getattr(kind, '__metadata__', ())


def dotted(experiment: Any) -> dict[str, str]:
    """Returns the fields of an experiment and of its parts, dotted, each as its flag's name."""
    found = {}
    for each in dataclasses.fields(experiment):
        value = getattr(experiment, each.name)
        inner = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        names = [each.name, *(f'{each.name}.{part.name}' for part in inner)]
        found |= dict(zip(names, names, strict=True))
        if each.name == 'model':  # which knows its own fields alone
            found = {part.name: f'model.{part.name}' for part in inner} | found
    return found


def of_experiment(kind: Any, folder: str, *, usage: str, does: str) -> tuple[Any, Any]:
    """Returns the arguments of a command line that names an experiment, and its module.

    Args:
        kind: dataclass of `experiment`, `out` and the command's other flags.
        folder: parent of the default `out`, which is named after the experiment.
        usage: flags shown after the name, in a line.
        does: text of `--help` before the experiment's own.

    Raises:
        ValueError: if the experiment is unknown, or a value breaks the rule of its field.
    """
    from vitjax import experiment as experiments

    typed = sys.argv[1:]
    if not typed or typed[0].startswith('-'):
        known = [*experiments.known()]
        example = 'digits' if 'digits' in known else 'EXPERIMENT'
        if typed and typed[0] not in ('-h', '--help', '--help-all'):
            print(f'error: the experiment comes first, as in {program(example)} {typed[0]} ...',
                  file=sys.stderr)  # fmt: skip
            sys.exit(2)
        print(f'usage: {program("EXPERIMENT")} {usage}\n\n{does.removesuffix(": ")} an experiment.')
        print(f'\nexperiments: {", ".join(known)}')
        print(f'{program(example)} --help lists its settings.')
        sys.exit(0 if typed else 2)
    module = experiments.find(typed[0])
    name = pathlib.Path(module.__file__ or '').stem
    experiment = module.experiment
    given = {argument.split('=')[0].replace('_', '-') for argument in typed}
    if len({'--steps', '--epochs'} & given) == 1:  # replaces the experiment's own length
        experiment = dataclasses.replace(experiment, epochs=None, steps=None)
    if '--data.name' in given and '--model.num-classes' not in given:  # other classes
        model = experiments.unsized(experiment.model)
        experiment = dataclasses.replace(experiment, model=model)
    options: Any = {'prog': program(typed[0]), 'args': typed[1:]}
    options['description'] = does + (module.__doc__ or name).split('\n\n')[0]
    asked = parse(kind, default=kind(experiment, f'{folder}/{name}'), **options)
    with as_flags():
        for field, declared in fields.declared(kind).items():
            # An experiment's flags have no prefix.
            _check(getattr(asked, field), declared, '' if field == 'experiment' else field)
    for name in experiments.imports(asked.experiment):
        IMPORTED.extend([] if name in IMPORTED else ['--import', name])
    return asked, module


def _check(value: Any, declared: Any, name: str) -> None:
    """Checks an argument, as `fields.check`, and refuses an `out` that is no name of a folder."""
    if name == 'out' and value == '':  # Path('') is the current folder
        raise ValueError("out must name a folder: ''.")
    if name == 'out' and isinstance(value, str) and value.startswith('~'):
        # A shell expands a known home after a space and not after `--out=`.
        raise ValueError(f'out must not start with ~, which the shell left unexpanded: {value!r}.')
    fields.check(value, declared, name)


@contextlib.contextmanager
def as_flags(names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Lets an error that starts with a dotted field start with its flag.

    Args:
        names: the fields that have a flag, and its name; None takes any field.
    """
    try:
        yield
    except ValueError as error:
        field, _, rest = str(error).partition(' ')
        named = re.fullmatch(r'[a-z_]\w*(\.\w+)*', field) and rest.startswith('must ')
        named = named and (names is None or field in names)
        field = (names or {}).get(field, field)
        raise (ValueError(f'{flag(field)} {rest}') if named else error) from None


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Returns settings NAME=VALUE of a job by name, whole numbers as such.

    >>> settings(['timeout-min=60', 'slurm_partition=gpu'])
    {'timeout_min': 60, 'slurm_partition': 'gpu'}

    Raises:
        ValueError: if a text is not NAME=VALUE, or a name is given twice.
    """
    found: dict[str, Any] = {}
    for name, value in map(pair, pairs):
        if name in found:
            raise ValueError(f'{name} is given twice: {found[name]} and {value}.')
        # Longer numbers are no counts, and Python refuses to read 4,300 digits.
        found[name] = int(value) if re.fullmatch('-?[0-9]{1,18}', value) else value
    return found


def pair(text: str) -> tuple[str, str]:
    """Returns the two sides of NAME=VALUE, the name as a field: dashes become underscores.

    Raises:
        ValueError: if the text is not NAME=VALUE.
    """
    name, _, value = text.partition('=')
    name = name.removeprefix('--').replace('-', '_')
    if not re.fullmatch(r'[^\W\d]\w*(\.\w+)*', name) or not value.strip():
        raise ValueError(f'a setting is NAME=VALUE, a grid FIELD=VALUE,VALUE: {text!r} is not.')
    return name, value


def described(model: Any, size: int) -> str:
    """Returns a line on a model: class, parameters, input, devices."""
    import jax

    from vitjax.models.base import parameter_shapes

    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(model, size)))
    devices = jax.local_devices()
    where = f'on {len(devices)} x {devices[0].device_kind}'
    return f'{type(model).__name__}: {count:,} parameters, input {size}x{size} pixels, {where}'
