"""Report runs, or an ablation, as one page of HTML: scripts/report.py RUN [RUN ...]."""

from typing import Annotated

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Range, Whole


def main(
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar='RUN'), Range(1)], *,
    out: str | None = None, details: Whole = 4, attention: bool = True,
) -> None:  # fmt: skip
    """Write a report of runs: one page of HTML that holds everything it shows, and prints well.

    Results, learning curves, what differs between the runs, cost and speed, the confusion matrix,
    scores of each class, the worst mistakes, attention on examples, environment and commit. Runs
    that are equal but for their seed are shown together, with intervals. What is missing or damaged
    is a line of the page.

    Args:
        runs: run directories, or an ablation's folder.
        out: the file; by default report.html in the folder given, in this one for several.
        details: groups of runs of which confusion, mistakes and attention are shown: those with the
            best validation accuracy.
        attention: show where the models look.
    """
    from vitjax import report
    from vitjax.base.console import Console

    say = Console().say
    path = report.write(
        runs, out, details=details, attention=attention,
        report=lambda what, done, parts: say(f'[{done + 1}/{parts}] {what}'),
    )  # fmt: skip
    print(f'written: {path}')


if __name__ == '__main__':
    command.run(main)
