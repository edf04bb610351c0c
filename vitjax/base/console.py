"""Console output of commands: lines, and progress as a bar or as lines."""

import contextlib
import html
import math
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

import rich.console
import rich.progress
import rich.table
import rich.text

EVERY = 60.0  # seconds between lines of progress without a terminal
SETTLED = 2.0  # seconds of work after which an estimate is worth printing
OFTEN = 0.2  # seconds between updates of a notebook's bar, each of which is a message


class Progress(Protocol):
    """A report of progress, as everything that takes long calls it."""

    def __call__(self, done: int, total: int = 0, /, *, now: str = '') -> object:
        """Takes how many are done, of how many if that was unknown before, and what comes next."""


def silent(done: int, total: int = 0, /, *, now: str = '') -> None:
    """Shows no progress."""


class Console:
    """Printer of lines and progress: a bar on a terminal and in a notebook, lines elsewhere.

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
        text = text.encode(coding, 'backslashreplace').decode(coding)
        # In a notebook each line of rich would be an output of its own.
        put = print if self._rich.is_jupyter else self._rich.print
        put(text)
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
        elif self._rich.is_jupyter:
            with _notebook_bar(what, total, done, now) as update:
                yield update
        else:
            yield self._in_lines(what, total)

    def _in_lines(self, what: str, total: int) -> Progress:
        """Prints an estimate once there is one, then a line whenever none came for a while."""
        pace, estimated = _Pace(what, total), False

        def update(done: int, _: int = 0, /, *, now: str = '') -> None:
            nonlocal estimated
            line = pace.line(done, now)
            first = not estimated and pace.took >= SETTLED and pace.left >= 5 * SETTLED
            if done < total and (first or time.monotonic() - self._last >= EVERY):
                estimated = estimated or not math.isnan(pace.left)
                self._print(line)

        return update


class _Pace:
    """Pace of work from its first call on: seconds taken, and an estimate of those left."""

    def __init__(self, what: str, total: int):
        self.what, self.total = what, total
        self.took, self.left = 0.0, math.nan
        self._start: tuple[float, int] | None = None  # when the first call came, and what was done
        self._last = 0

    def line(self, done: int, now: str) -> str:
        """A line on the work; the next call is compared with this one."""
        clock = time.monotonic()
        if self._start is None or done < self._last:  # the same work over other things starts anew
            self._start = clock, done
        self._last, self.took, steps = done, clock - self._start[0], done - self._start[1]
        self.left = (self.total - done) * self.took / steps if steps else math.nan
        about = f', about {duration(self.left)} left' if steps else ''
        return f'{self.what} {done:,}/{self.total:,}{about}' + (f'; {now}' if now else '')


@contextlib.contextmanager
def _notebook_bar(what: str, total: int, done: int, now: str) -> Iterator[Progress]:
    """Shows a bar in a notebook, which goes at the end; rich's own needs ipywidgets."""
    from IPython.display import HTML, display

    pace, shown = _Pace(what, total), time.monotonic()
    bar = f'<progress max="{total}" value="{{}}"></progress> {{}}'
    first = f'{what} {done:,}/{total:,}' + (f'; {now}' if now else '')
    handle: Any = display(HTML(bar.format(done, html.escape(first))), display_id=True)

    def update(done: int, _: int = 0, /, *, now: str = '') -> None:
        nonlocal shown
        line = html.escape(pace.line(done, now))
        if time.monotonic() - shown >= OFTEN:
            shown = time.monotonic()
            handle.update(HTML(bar.format(done, line)))

    try:
        yield update
    finally:
        handle.update(HTML(''))


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
