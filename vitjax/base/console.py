"""Console output of commands: lines, and progress as a bar or as lines."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import Protocol

import rich.console
import rich.progress
import rich.table
import rich.text

EVERY = 60.0  # seconds between lines of progress without a terminal
SETTLED = 2.0  # seconds of work after which an estimate is worth printing


class Progress(Protocol):
    """A report of progress, as everything that takes long calls it."""

    def __call__(self, done: int, total: int = 0, /, *, now: str = '') -> object:
        """Takes how many are done, of how many if that was unknown before, and what comes next."""


def silent(done: int, total: int = 0, /, *, now: str = '') -> None:
    """Shows no progress."""


class Console:
    """Printer of lines and progress: a bar on a terminal, lines elsewhere (a file, a pipe).

    Args:
        lines: print lines.
        bars: show progress.
        name: prefix of the name of any work, as in `[2/6] depth-2: training`.
    """

    def __init__(self, *, lines: bool = True, bars: bool = True, name: str = ''):
        self.lines, self.bars, self.name = lines, bars, name
        # Names are printed as they are: neither `[x]` nor `:cd:` means anything.
        self._rich = rich.console.Console(
            highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self._last = time.monotonic()

    def say(self, text: object) -> None:
        """Prints a line, above the bar if there is one."""
        if self.lines:
            self._print(str(text))

    def _print(self, text: str) -> None:
        coding = getattr(sys.stdout, 'encoding', None) or 'utf-8'  # a file's name may not be text
        self._rich.print(text.encode(coding, 'backslashreplace').decode(coding))
        self._last = time.monotonic()

    @contextlib.contextmanager
    def progress(
        self, what: str, total: int, *, done: int = 0, now: str = ''
    ) -> Iterator[Progress]:
        """Shows how far work is; yields what to call with how many of `total` are done.

        Estimates leave out the time before the first call, which is mostly compilation.

        Args:
            what: name of the things counted.
            total: number of them.
            done: number done before.
            now: words shown until the first call.
        """
        what = f'{self.name}: {what}' if self.name else what
        shown = self._rich.is_terminal and not self._rich.is_dumb_terminal
        if not self.bars:
            yield silent
        elif sys.stdout.isatty() and shown:
            whole = rich.table.Column(no_wrap=True)
            columns = (
                _Cut('{task.description}', markup=False, table_column=rich.table.Column()),
                rich.progress.BarColumn(30),
                rich.progress.MofNCompleteColumn(table_column=whole),
                rich.progress.TimeRemainingColumn(table_column=whole),
                _Cut('{task.fields[now]}', markup=False, table_column=rich.table.Column()),
            )
            with rich.progress.Progress(*columns, console=self._rich, transient=True) as bar:
                task = bar.add_task(what, total=total, completed=done, now=now)
                yield lambda done, _=0, /, *, now='': bar.update(task, completed=done, now=now)
        else:
            yield self._in_lines(what, total)

    def _in_lines(self, what: str, total: int) -> Progress:
        """Prints an estimate once there is one, then a line whenever none came for a while."""
        start: tuple[float, int] | None = None  # when the first call came, and what was done then
        last, estimated = 0, False

        def update(done: int, _: int = 0, /, *, now: str = '') -> None:
            nonlocal start, last, estimated
            clock = time.monotonic()
            if start is None or done < last:  # the same work over other things starts anew
                start = clock, done
            last = done
            took, steps = clock - start[0], done - start[1]
            left = (total - done) * took / steps if steps else math.nan
            first = not estimated and took >= SETTLED and left >= 5 * SETTLED
            if done < total and (first or clock - self._last >= EVERY):
                estimated = estimated or steps > 0
                about = f', about {duration(left)} left' if steps else ''
                more = f'; {now}' if now else ''
                self._print(f'{what} {done:,}/{total:,}{about}{more}')

        return update


class _Cut(rich.progress.TextColumn):
    """Text that is cut on a narrow terminal."""

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, 'ellipsis'
        return text


def duration(seconds: float) -> str:
    """A time in its largest fitting unit, two digits or whole: `95 s`, `2.5 min`, `3 h`."""
    if not math.isfinite(seconds):
        return '-'
    units = ((86400, 'days'), (3600, 'h'), (60, 'min'))
    size, name = next((unit for unit in units if seconds >= 2 * unit[0]), (1, 's'))
    value = seconds / size
    return f'{value:.0f} {name}' if value >= 10 else f'{value:.2g} {name}'
