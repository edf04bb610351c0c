"""Report runs, or an ablation, as one page of HTML: scripts/report.py RUN [RUN ...]."""

from typing import Annotated

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Range, Whole


def main(
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar='RUN...'), Range(1)], *,
    out: str | None = None, details: Whole = 4, attention: bool = True,
) -> None:  # fmt: skip
    """Write a report of runs: one self-contained page of HTML, which also prints well.

    The page has results, learning curves, differences between the runs, cost and speed, the
    confusion matrix, scores of each class, the worst mistakes, attention on examples, environment
    and commit. Runs that differ in their seed alone are shown together, with intervals. Missing or
    damaged files are named on the page.

    Args:
        runs: run directories, or an ablation's folder. (required)
        out: file to write; by default report.html, in the run's folder or, for several runs, in
            the current one.
        details: number of groups of runs, by best validation accuracy, with confusion, mistakes and
            attention.
        attention: show the models' attention.
    """
    from vitjax import report
    from vitjax.base.console import Console

    say = Console().say

    def note(done: int, parts: int = 0, /, *, now: str = '') -> None:
        say(f'[{done + 1}/{parts}] {now}')

    path = report.write(runs, out, details=details, attention=attention, report=note)
    print(f'written: {path}')


if __name__ == '__main__':
    command.run(main)
