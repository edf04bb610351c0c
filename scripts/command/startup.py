"""Process of a command, prepared before anything large is imported.

`command` imports this first. Nothing here runs in a process that only imports a command.

On Linux a command restarts Python once, with pages of 2 MiB (`huge_pages`), which
`VITJAX_HUGE_PAGES=0` in the environment turns off.
"""

import contextlib
import os
import platform
import signal
import sys
from types import FrameType
from typing import Any, NoReturn


def is_command() -> bool:
    """Returns True if this process was started to run a file of `scripts/`."""
    started = getattr(sys.modules['__main__'], '__file__', None) or ''
    spawned = '--multiprocessing-fork' in sys.orig_argv  # a child has its parent's `__main__`
    scripts = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    folder = os.path.dirname(os.path.realpath(started))
    return os.path.isfile(started) and not spawned and folder == scripts


def open_streams() -> None:
    """Opens closed standard streams on the null device.

    The next file opened would get the number of a closed stream, and what XLA prints to that number
    would go into the file.
    """
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, 'w' if number else 'r', closefd=False))


def require_folder() -> None:
    """Ends the process with a line if its working directory was deleted."""
    try:
        os.getcwd()
    except OSError as error:
        say(f'error: the working directory must exist: {error.strerror}.')
        sys.exit(1)


def huge_pages() -> None:
    """Restarts the command with huge pages for memory that malloc maps, on Linux with glibc.

    XLA's CPU backend maps its memory anew at each step, and the kernel clears it page by page. With
    pages of 2 MiB, on two cores, a step of `vit_cifar100` takes 0.87 of the time and one of a small
    PatchConvNet 0.65. glibc reads the setting only from the environment that a process starts with.

    Nothing is restarted if `VITJAX_HUGE_PAGES` is 0, if `GLIBC_TUNABLES` sets
    `glibc.malloc.hugetlb`, or if Python runs anything but the command's file.
    """
    tunables = os.environ.get('GLIBC_TUNABLES', '')
    if os.environ.get('VITJAX_HUGE_PAGES', '') not in ('', '1') or 'malloc.hugetlb' in tunables:
        return
    given, arguments = sys.orig_argv[1:], sys.argv[1:]
    before = given[: len(given) - len(arguments)]
    # `python OPTIONS scripts/train.py`, or `python OPTIONS BIN/vitjax train`.
    options = before[:-1] if before[-1:] == sys.argv[:1] else before[:-2]
    direct = [*before, *arguments] == given and all(
        option.startswith('-') and option not in ('-', '-c', '-m') for option in options
    )  # `python -m pdb scripts/train.py` is the debugger's process
    if not (direct and sys.executable and platform.libc_ver()[0] == 'glibc'):
        return
    own = 'glibc.malloc.hugetlb=1'
    # A process with more rights than its user loses GLIBC_TUNABLES: the 0 keeps it from a loop.
    more = {'GLIBC_TUNABLES': f'{tunables}:{own}' if tunables else own, 'VITJAX_HUGE_PAGES': '0'}
    # Ctrl-C waits until the new process has its handler, rather than end Python's own start.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    with contextlib.suppress(OSError):  # without huge pages it is only slower
        os.execve(sys.executable, [sys.executable, *given], {**os.environ, **more})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def say(text: str) -> None:
    """Prints a line to standard error, if it can be written."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        redirect(sys.stderr)


def redirect(stream: Any) -> None:
    """Sends the rest of a stream that cannot be written to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Handles Ctrl-C: raises KeyboardInterrupt, or ends the process in the middle of an import.

    An import has nothing to save, and runs callbacks that swallow exceptions.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith('<frozen importlib'):
            os.write(2, b'stopped\n')
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def unhandled(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Ends the process after an exception outside of `command.guard`; Ctrl-C is no bug."""
    if issubclass(kind, KeyboardInterrupt):
        say('stopped')
        sys.exit(130)
    sys.__excepthook__(kind, error, trace)


if is_command():
    open_streams()
    sys.excepthook = unhandled
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is to be ignored
        signal.signal(signal.SIGINT, interrupted)
        if hasattr(signal, 'pthread_sigmask'):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # `huge_pages` blocked it
    require_folder()
    huge_pages()
