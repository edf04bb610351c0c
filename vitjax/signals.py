"""Being asked to stop, by SIGTERM or Ctrl-C."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class Stop(Exception):
    """A run that was asked to stop, after its checkpoint was written."""

    signal: int
    step: int

    def __str__(self) -> str:
        return f'stopped at step {self.step}; the same command resumes'

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGTERM and Ctrl-C instead of ending the process; a second one ends it."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    try:
        before = {n: signal.signal(n, note) for n in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, which alone gets signals
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
