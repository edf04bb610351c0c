"""A report of one run or of several, as one page of HTML that holds everything it shows."""

import datetime
import importlib.metadata
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from vitjax.base import files
from vitjax.base.labels import label
from vitjax.report import answered, found, page, sections
from vitjax.report.answers import answers, changed
from vitjax.report.found import Group
from vitjax.report.page import Html, tag
from vitjax.training.resolve import load_data
from vitjax.views import NotApplicable

__all__ = ['attempt', 'write']

Path = str | pathlib.Path
Note = Callable[[str, int, int], object]  # takes what is next, parts that are done, and all parts


def write(
    paths: Sequence[Path], out: Path | None = None, *, details: int = 4, look: bool = True,
    report: Note = lambda *_: None,
) -> pathlib.Path:  # fmt: skip
    """Writes a report: results, curves, configuration, classes, mistakes, attention, environment.

    Runs that are equal but for their seed are one group. What cannot be shown, because it is not
    there or damaged, is a line of the page.

    Args:
        paths: run directories, or an ablation's folder.
        out: the file; by default `report.html` in the folder that is given, in the working
            directory for several.
        details: groups of which answers are shown in detail, those with the best validation
            accuracy; of each the run with the best one.
        look: show attention, which needs the model; everything else is read where it is recorded.
        report: is called before each part with its name, how many are made and how many there are.

    Returns:
        The file.

    Raises:
        ValueError: if there is no run among the paths of which anything can be read.
    """
    paths = [pathlib.Path(path) for path in paths]
    load_data.cache_clear()  # data may have changed since this process read them
    missing: list[str] = []
    groups = found.grouped(found.find(paths, missing))
    chosen = _chosen(groups, details)
    title = label(paths[0]) if len(paths) == 1 else f'{sum(len(g.runs) for g in groups)} runs'
    parts = len(chosen) * (2 + look) + 5
    done = iter(range(parts + 1))

    def part(name: str, make: Callable[..., Html], *given: Any) -> Html:
        report(name, next(done), parts)
        try:
            return make(*given)
        except (ValueError, OSError, MemoryError, RuntimeError, NotApplicable) as error:
            missing.append(f'{name}: {files.first_line(error)}')
            return Html()

    body = [
        part('results', sections.results, groups),
        part('learning curves', sections.curves, groups),
        part('configuration', sections.configuration, groups),
        part('cost and speed', sections.cost, groups),
    ]
    answered_of: list[tuple[found.Run, list[Any]]] = []
    for group in chosen:
        run = group.best()
        about = f'of {run.name}' if len(groups) + len(group.runs) > 2 else ''
        given: list[Any] = []
        answered_of.append((run, given))
        classes = part(
            f'classes {about}'.strip(),
            lambda run=run, given=given: answered.classes(given.append(answers(run)) or given[0]),
        )
        shown = [classes]
        if given:
            missing += changed(run, given[0].split)
            shown.append(part(f'mistakes {about}'.strip(), answered.mistakes, run, given[0]))
            if look:
                shown.append(part(f'attention {about}'.strip(), answered.attention, run, given[0]))
        body.append(page.section(_headed(group, groups), *_about(group, given), *shown))
    if len(chosen) < len(groups):
        missing.append(f'answers in detail: of {len(chosen)} of {len(groups)} groups, '
                       'those with the best validation accuracy; --details shows more')  # fmt: skip
    body.append(part('environment and commit', sections.environment, groups))
    out = _place(paths) if out is None else pathlib.Path(out)
    if jax.process_index() == 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        for run, given in answered_of:
            text = answered.table(given[0]) if given else None
            if text is not None:
                several = f'_{run.name.replace("/", "_")}' if len(chosen) > 1 else ''
                every = out.with_name(f'{out.stem}_classes{several}.csv')
                files.replace(every, _encodable(text))
                missing.append(f'classes of {run.name}: the page has the worst, {every.name} all')
        files.replace(out, _encodable(page.page(title, *_head(title, missing), *body)))
    return out


def _encodable(text: str) -> str:
    """Text without the bytes that names of files may have and that are no text."""
    return text.encode('utf-8', 'backslashreplace').decode()


def attempt(path: Path) -> str:
    """`write` at the end of a run: whatever goes wrong with it is a line, never an error.

    Of several processes the first makes it, without attention: no process can load a model alone.

    Returns:
        A line to print: where the report is, or why there is none; nothing in other processes.
    """
    if jax.process_index() > 0:
        return ''
    try:
        return f'report: {write([path], look=jax.process_count() == 1)}\n'
    except Exception as error:  # the run is finished and saved, which is what counts
        again = f'python scripts/report.py {path} tries again'
        return f'there is no report: {files.first_line(error)}; {again}\n'


def _chosen(groups: Sequence[Group], count: int) -> list[Group]:
    """Those with the best validation accuracy, in their own order."""
    best = sorted(groups, key=lambda g: -(g.best().best() or {'accuracy': -1})['accuracy'])
    kept = [group.name for group in best[:count]]
    return [group for group in groups if group.name in kept]


def _headed(group: Group, groups: Sequence[Group]) -> str:
    return 'Answers' if len(groups) == 1 else f'Answers: {group.name}'


def _about(group: Group, given: list[Any]) -> list[Html]:
    if not given:
        return []
    run, count = group.best(), len(given[0].labels)
    best, several = run.best(), len(group.runs) > 1
    said = f'{count:,} {given[0].split} images, the checkpoint with the best validation accuracy'
    said += f' (epoch {best["epoch"]:.4g})' if best else ''
    said += f', of {run.name}, the best of {len(group.runs)} runs on validation images' * several
    return [tag('p', f'{said}.', kind='lead')]


def _head(title: str, missing: Sequence[str]) -> list[Html]:
    now = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M')
    made = f'Made {now} UTC with vitjax {importlib.metadata.version("vitjax")}.'
    lines = [tag('li', line) for line in dict.fromkeys(missing)]
    box = tag('div', tag('b', 'Not in this report'), tag('ul', *lines), kind='missing')
    return [tag('h1', title), tag('p', made), *([box] if lines else [])]


def _place(paths: Sequence[pathlib.Path]) -> pathlib.Path:
    return (paths[0] if len(paths) == 1 else pathlib.Path()) / 'report.html'
