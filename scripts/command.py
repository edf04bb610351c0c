"""What every command shares: arguments by tyro, and errors in a line or two."""

import dataclasses
import os
import pathlib
import platform
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import tyro


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
    guard(lambda: tyro.cli(main))


def without_own_length(experiment: Any, arguments: Sequence[str]) -> Any:
    """The experiment without its own length, where a command line gives `--steps` or `--epochs`."""
    given = {argument.split('=')[0] for argument in arguments}
    if len({'--steps', '--epochs'} & given) == 1:
        return dataclasses.replace(experiment, epochs=None, steps=None)
    return experiment


def guard(call: Callable[[], int | None]) -> None:
    """Calls a function and exits with its code.

    What a user can cause (ValueError, OSError) ends in a line or two and exit code 1; other
    exceptions are bugs and keep their traceback. VITJAX_TRACEBACK=1 shows every traceback.
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
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        sys.exit(130)
