"""Requests to stop: SIGTERM, Ctrl-C, or the end of the terminal (SIGHUP)."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class Stop(Exception):
    """Error of a run that was asked to stop, raised once its checkpoint is written."""

    signal: int
    step: int

    def __str__(self) -> str:
        return f'stopped at step {self.step}; the same command resumes'

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signal


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGTERM, Ctrl-C and SIGHUP instead of ending the process.

    A second SIGTERM or Ctrl-C ends it. Further SIGHUPs do not: a shell sends one to its jobs as its
    terminal closes, and the kernel another as the shell ends. Ignored signals stay ignored: `nohup`
    and shells start commands that ignore SIGHUP.
    """
    caught: list[int] = []
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def note(number: int, frame: Any) -> None:
        if number != signal.SIGHUP:
            signal.signal(number, before[signal.Signals(number)])
        elif number in caught:
            return
        else:  # the terminal is gone
            for terminal in terminals:  # else a line raises before the checkpoint is saved
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)
        caught.append(number)

    try:
        heard = [n for n in wanted if signal.getsignal(n) is not signal.SIG_IGN]
        before = {n: signal.signal(n, note) for n in heard}
    except ValueError:  # not the main thread, which alone gets signals
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
