"""What every command shares: arguments by tyro, and errors in a line or two."""

import contextlib
import dataclasses
import functools
import inspect
import os
import pathlib
import platform
import sys
import typing
import zlib
from collections.abc import Callable, Iterator
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
    guard(lambda: tyro.cli(checked(main)))


def checked(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """`main`, which refuses arguments that are not what its signature declares."""

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> int | None:
        kinds = typing.get_type_hints(main, include_extras=True)
        for name, value in inspect.signature(main).bind(*args, **kwargs).arguments.items():
            positional = _POSITIONAL in getattr(kinds[name], '__metadata__', ())
            fields.check(value, kinds[name], name if positional else _flag(name))
        return main(*args, **kwargs)

    return run


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
    default = kind(experiment, f'{folder}/{name}')
    what = does + (module.__doc__ or name).split('\n\n')[0]
    prog = f'{program} {arguments[0]}'
    asked = tyro.cli(kind, default=default, args=arguments[1:], prog=prog, description=what)
    for field, declared in fields.declared(kind).items():
        path = '' if field == 'experiment' else _flag(field)  # whose flags have no prefix
        fields.check(getattr(asked, field), declared, path)
    return asked, module


@contextlib.contextmanager
def progress(what: str, total: int, *, visible: bool = True) -> Iterator[Callable[..., None]]:
    """A bar on a terminal; yields what to call with how many of `total` are done.

    It is not `visible` before the first call where that may never come.
    """
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(what, total=total, visible=visible)
        yield lambda done, *_: bar.update(task, completed=done, visible=True)


def guard(call: Callable[[], int | None]) -> None:
    """Calls a function and exits with its code.

    What a user can cause (ValueError, OSError, too little memory) ends in a line or two and exit
    code 1; other exceptions are bugs and keep their traceback. VITJAX_TRACEBACK=1 shows every
    traceback.
    """
    try:
        sys.exit(call() or 0)
    except BrokenPipeError:  # whoever reads what is printed has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError) as error:
        if os.environ.get('VITJAX_TRACEBACK'):
            raise
        print(f'error: {error}', file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        lacks = isinstance(error, MemoryError) or str(error).startswith('RESOURCE_EXHAUSTED')
        if os.environ.get('VITJAX_TRACEBACK') or not lacks:
            raise
        print(f'error: there is too little memory: {str(error)[:200].strip()}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        sys.exit(130)
