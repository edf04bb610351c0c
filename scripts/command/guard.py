"""Errors of a command in a line or two, and its exit code."""

import os
import sys
import traceback
import typing
from collections.abc import Callable

from command import startup
from command.parse import import_named

LINES = 6  # of a message; another program's can be hundreds


def guard(call: Callable[[], int | None]) -> None:
    """Calls a function and exits with its code.

    Errors that a user can cause (ValueError, OSError, too little memory, a missing platform) end
    in a line or two and exit code 1; other exceptions are bugs and keep their traceback.
    VITJAX_TRACEBACK=1 shows every traceback.

    A distributed process that fails exits at once, so that the others notice. If all processes
    return the same code, they leave together.
    """
    for stream in (sys.stdout, sys.stderr):
        # Whole lines also into a file or a pipe; `é` escaped if a terminal knows only ASCII.
        typing.cast(typing.Any, stream).reconfigure(line_buffering=True, errors='backslashreplace')
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
        # Errors of files have a filename; only writing again identifies an error of the output.
        lost = _unwritable('\n') if isinstance(error, OSError) and not error.filename else None
        text = None if lost else _said(error)
        if text and not os.environ.get('VITJAX_TRACEBACK'):
            startup.say(f'error: {text}')
        elif not lost:
            if not _distributed():
                raise
            traceback.print_exc()
        alike = _distributed() and sys.modules['vitjax.base.processes'].Disagreement
        failed = not (alike and isinstance(error, alike))  # every process raises that one
    if lost := lost or _unwritable():
        startup.redirect(sys.stdout)
        if not isinstance(lost, BrokenPipeError):  # `head` has read enough
            startup.say(f'error: standard output must take what is printed: {lost.strerror}.')
        code = code or 1
    if code and failed and _distributed():
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)  # jax would wait for the others
    sys.exit(code)


def _unwritable(text: str = '') -> OSError | None:
    """Returns the error of writing a text, and what is buffered, to standard output."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _said(error: Exception) -> str | None:
    """Returns the message of an error in a few lines; None for a bug."""
    if isinstance(error, ValueError | OSError):
        # Python's own words begin with a number: `[Errno 2] No such file or directory: 'x'`.
        said = str(error)
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            said = f'{os.fsdecode(error.filename)}: {error.strerror}.'
        lines = said.splitlines() or [type(error).__name__]
        more = [f'... {len(lines) - LINES} lines more: VITJAX_TRACEBACK=1 shows them.']
        return '\n'.join(lines if len(lines) <= LINES + 1 else lines[:LINES] + more)
    if isinstance(error, MemoryError) or str(error).startswith('RESOURCE_EXHAUSTED'):
        return f'there is too little memory: {str(error)[:200].strip()}'
    if not _distributed():
        return _platform()
    if not sys.modules['vitjax.base.processes'].lost(error):
        return None
    return (
        f'another process of this run is gone ({str(error).splitlines()[0][:200]}).\n'
        'The same command resumes from the last checkpoint, on any number of processes.'
    )


def _platform() -> str | None:
    """Returns a message if jax finds no device; None if it finds one."""
    jax = sys.modules.get('jax')
    try:
        if jax is not None:
            jax.devices()
        return None
    except Exception as error:
        asked = os.environ.get('JAX_PLATFORMS', '')
        said = str(error).splitlines()[0][:300] if str(error) else 'its plug-in is not installed'
        return (
            f'jax must find a device of JAX_PLATFORMS={asked!r}: {said}.\n'
            'JAX_PLATFORMS=cpu before the command runs it on the CPU.'
        )


def _distributed() -> bool:
    """Returns True if this process is one of several that train together."""
    processes = sys.modules.get('vitjax.base.processes')
    return processes is not None and processes.joined
