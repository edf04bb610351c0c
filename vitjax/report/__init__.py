"""Report of one or several runs, as a single page of HTML."""

import datetime
import importlib.metadata
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from vitjax.base import files, shell
from vitjax.base.labels import label
from vitjax.report import classes, examples, page, sections
from vitjax.report.groups import Group, grouped
from vitjax.report.page import Html, tag
from vitjax.report.predictions import Predictions, changes, predictions_of
from vitjax.report.run import Run, collect
from vitjax.training.resolve import load_data
from vitjax.views import NotApplicable

__all__ = ['attempt', 'write']

Path = str | pathlib.Path
Note = Callable[[str, int, int], object]  # next part, finished parts, all parts


def write(
    paths: Sequence[Path], out: Path | None = None, *, details: int = 4, attention: bool = True,
    report: Note = lambda *_: None,
) -> pathlib.Path:  # fmt: skip
    """Writes a report: results, curves, configuration, classes, mistakes, attention, environment.

    Runs that are equal but for their seed are one group. A part that is missing or damaged is a
    line of the page.

    Args:
        paths: run directories, or an ablation's folder.
        out: file to write; by default `report.html` in the folder that is given, in the working
            directory for several.
        details: number of groups whose predictions are shown in detail, those with the best
            validation accuracy. Each is represented by its best run.
        attention: show attention, which needs the model; all else is read from records.
        report: called before each part with its name, the finished parts and all parts.

    Returns:
        The file.

    Raises:
        ValueError: if no run among the paths can be read.
    """
    paths = [pathlib.Path(path) for path in paths]
    load_data.cache_clear()  # the data may have changed since this process read them
    missing: list[str] = []
    groups = grouped(collect(paths, missing))
    chosen = _chosen(groups, details)
    done, parts = itertools.count(), 5 + len(chosen) * (3 + attention)

    def part(name: str, make: Callable[..., Any], *args: Any) -> Any:
        report(name, next(done), parts)
        try:
            return make(*args)
        except (ValueError, OSError, MemoryError, RuntimeError, NotApplicable) as error:
            missing.append(f'{name}: {files.first_line(error)}')

    body = [
        part('results', sections.results, groups),
        part('learning curves', sections.curves, groups),
        part('configuration', sections.configuration, groups),
        part('cost and speed', sections.cost, groups),
    ]
    predicted: list[tuple[Run, Predictions]] = []
    for group in chosen:
        run, shown = group.best(), []
        of = f' of {run.name}' if len(groups) + len(group.runs) > 2 else ''
        found = part(f'predictions{of}', predictions_of, run)
        if found is not None:
            predicted.append((run, found))
            missing += changes(run, found.split)
            shown = [
                _about(group, found),
                part(f'classes{of}', classes.section, found),
                part(f'mistakes{of}', examples.mistakes, run, found),
                part(f'attention{of}', examples.attention, run, found) if attention else None,
            ]
        title = 'Predictions' if len(groups) == 1 else f'Predictions: {group.name}'
        body.append(page.section(title, *shown))
    if len(chosen) < len(groups):
        missing.append(
            f'predictions in detail: only of {len(chosen)} of {len(groups)} groups, those with the '
            'best validation accuracy; --details shows more'
        )
    body.append(part('environment and commit', sections.environment, groups))
    if out is None:
        out = (paths[0] if len(paths) == 1 else pathlib.Path()) / 'report.html'
    out = pathlib.Path(out)
    if jax.process_index() == 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        for run, found in predicted:
            if (text := classes.table(found)) is not None:
                several = f'_{run.name.replace("/", "_")}' if len(chosen) > 1 else ''
                table = out.with_name(f'{out.stem}_classes{several}.csv')
                files.replace(table, _encodable(text))
                missing.append(f'classes of {run.name}: the page has the worst, {table.name} all')
        title = label(paths[0]) if len(paths) == 1 else f'{sum(len(g.runs) for g in groups)} runs'
        files.replace(out, _encodable(page.page(title, *_head(title, missing), *body)))
    return out


def attempt(path: Path) -> str:
    """Calls `write` at the end of a run; any failure is a line, never an error.

    The first of several processes writes, without attention: no process can load a model alone.

    Returns:
        A line to print: where the report is, or why there is none; empty in other processes.
    """
    if jax.process_index() > 0:
        return ''
    try:
        return f'report: {write([path], attention=jax.process_count() == 1)}\n'
    except Exception as error:  # the run is finished and saved, which is what counts
        again = f'{shell.command("report", str(path))} tries again'
        return f'there is no report: {files.first_line(error)}; {again}\n'


def _chosen(groups: Sequence[Group], count: int) -> list[Group]:
    """Groups with the best validation accuracy, in their own order."""
    best = sorted(groups, key=lambda g: -(g.best().best() or {'accuracy': -1})['accuracy'])
    names = [group.name for group in best[:count]]
    return [group for group in groups if group.name in names]


def _about(group: Group, found: Predictions) -> Html:
    run, count = group.best(), len(found.labels)
    best, several = run.best(), len(group.runs) > 1
    said = f'{count:,} {found.split} images, the checkpoint with the best validation accuracy'
    said += f' (epoch {best["epoch"]:.4g})' if best else ''
    said += f', of {run.name}, the best of {len(group.runs)} runs on validation images' * several
    return tag('p', f'{said}.', kind='lead')


def _head(title: str, missing: Sequence[str]) -> list[Html]:
    now = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M')
    made = f'Made {now} UTC with vitjax {importlib.metadata.version("vitjax")}.'
    lines = [tag('li', line) for line in dict.fromkeys(missing)]
    box = tag('div', tag('b', 'Not in this report'), tag('ul', *lines), kind='missing')
    return [tag('h1', title), tag('p', made), *([box] if lines else [])]


def _encodable(text: str) -> str:
    """Text with backslashes in place of the bytes of file names that are not UTF-8."""
    return text.encode('utf-8', 'backslashreplace').decode()
