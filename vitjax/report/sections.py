"""The parts of a report that need no model: results, curves, configuration, cost, environment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax.base import fields
from vitjax.data.source import Source
from vitjax.experiment import Experiment, preprocessing
from vitjax.figures import report as figures
from vitjax.figures.ablation import words
from vitjax.models.base import parameter_shapes
from vitjax.plan import flops
from vitjax.report import found, page
from vitjax.report.found import Estimate, Group, Run
from vitjax.report.page import Html, tag

SPLITS = (
    'Validation images choose the checkpoint, the one with the best validation accuracy; test '
    'images are looked at once, after training, with that checkpoint. Every number says which it '
    'is of.'
)


def results(groups: Sequence[Group]) -> Html:
    """Accuracy and loss of each run; of groups that are more than one run, means over them."""
    each = _each([run for group in groups for run in group.runs])
    if all(len(group.runs) == 1 for group in groups):
        return page.section('Results', tag('p', SPLITS, kind='lead'), each)
    head = ('', 'runs', *_SCORES)
    rows = []
    for group in groups:
        tested = [run.last('test') or {} for run in group.runs]
        held = [(run.best() or {}).get('accuracy') for run in group.runs]
        accuracy, top5 = [r.get('accuracy') for r in tested], [*map(_top5, group.runs)]
        rows.append(
            (
                group.name, len(group.runs), *map(_percent, (accuracy, top5)),
                _number([r.get('loss') for r in tested]), _percent(held),
            )
        )  # fmt: skip
    said = 'Means over runs that differ in their seed alone; below them 95% intervals of the mean. '
    return page.section(
        'Results', tag('p', said, SPLITS, kind='lead'), page.table(head, rows),
        page.folded('every run by itself', each),
    )  # fmt: skip


_SCORES = ('test accuracy', 'test top-5', 'test loss', 'best validation accuracy')


def _each(runs: Sequence[Run]) -> Html:
    head = ('run', 'seed', *_SCORES, 'at epoch', 'epochs', 'training', 'started (UTC)')
    rows = []
    for run in runs:
        best, last = run.best() or {}, run.records[-1] if run.records else {}
        tested = run.last('test') or {}
        rows.append(
            (
                run.name, '-' if run.experiment is None else run.experiment.seed,
                _share(tested.get('accuracy')), _share(_top5(run)),
                _loss(tested.get('loss')), _share(best.get('accuracy')), _short(best.get('epoch')),
                _short(last.get('epoch')), _time(last.get('seconds')),
                str(run.starts[0].get('started', '-'))[:16] if run.starts else '-',
            )
        )  # fmt: skip
    return page.table(head, rows)


def _top5(run: Run) -> float | None:
    """Of the test images; of five classes or fewer it says nothing."""
    few = run.experiment is not None and len(run.experiment.classes) <= 5
    return None if few else (run.last('test') or {}).get('top5')


def curves(groups: Sequence[Group]) -> Html:
    """The learning curves of all runs, in one figure."""
    own = {group.name: found.curves(group) for group in groups}
    own = {name: lines for name, lines in own.items() if lines}
    if not own:
        raise ValueError('there are no lines of training or validation')
    drawn = page.picture(figures.svg(figures.curves(own)), 'svg+xml', 'learning curves')
    several = any(len(group.runs) > 1 for group in groups)
    over = ' Lines are means over seeds, bands their 95% intervals.' if several else ''
    said = 'Training (dotted; with dropout and on augmented images) and validation (solid).'
    return page.section('Learning curves', page.figure(drawn, said + over, kind='full'))


def configuration(groups: Sequence[Group]) -> Html:
    """What differs between groups, for one group what is not by default; the rest is folded."""
    known = {group.name: found.values(group.experiment) for group in groups if group.experiment}
    if not known:
        raise ValueError('no experiment.json can be read')
    shared, differing = found.compare(known)
    if len(known) == 1:
        (experiment,) = (group.experiment for group in groups if group.experiment)
        usual = found.values(Experiment(model=type(experiment.model)(), data=Source()))
        own = {
            path: value for path, value in shared.items()
            if value != usual.get(path) and not path.startswith(('preprocessing', 'classes'))
        }  # fmt: skip
        rest = {path: value for path, value in shared.items() if path not in own}
        told, table = 'What is set:', _settings(own, 12)
        said = f'{len(rest)} settings more: defaults, and what follows from the data'
    else:
        told, table = 'What differs:', _differing(known, differing)
        rest, said = shared, f'{len(shared)} settings that all share'
    folded = page.folded(said, _settings(rest, 24)) if rest else None
    return page.section('Configuration', tag('p', told, kind='lead'), table, folded)


def _settings(values: Mapping[str, Any], most: int) -> Html:
    rows = [(path, _setting(value)) for path, value in sorted(values.items())]
    return page.beside(('', ''), rows, most=most, text=True)


def _differing(known: Mapping[str, Any], differing: Mapping[str, Mapping[str, Any]]) -> Html:
    """Groups in rows, or settings where there are many of them; `-` is of another kind of model."""
    if len(differing) <= 6:
        head = ('', *differing)
        rows = [(name, *(_setting(own.get(name, '-')) for own in differing.values()))
                for name in known]  # fmt: skip
    else:
        head = ('', *known)
        rows = [(path, *(_setting(own.get(name, '-')) for name in known))
                for path, own in sorted(differing.items())]  # fmt: skip
    return page.table(head, rows)


def cost(groups: Sequence[Group]) -> Html:
    """Parameters, operations and speed of each group."""
    head = ('', 'parameters', 'FLOPs an image', 'FLOPs of training one run', 'images/s',
            'training of one run', 'devices')  # fmt: skip
    rows = []
    for group in groups:
        speeds = [_median_speed(run) for run in group.runs]
        seconds = [run.records[-1].get('seconds') if run.records else None for run in group.runs]
        rate, took = map(found.estimate, (speeds, seconds))
        devices = dict.fromkeys(str(s.get('devices')) for run in group.runs for s in run.starts)
        rows.append(
            (
                group.name, *_arithmetic(group),
                '-' if rate is None else f'{rate.mean:,.0f}',
                '-' if took is None else _time(took.mean), ', '.join(devices) or '-',
            )
        )  # fmt: skip
    said = (
        'A FLOP is half a multiply-add of a product, forward; training counts forward and backward '
        'passes of the steps taken, and is left out with frozen parts or a teacher. Images/s is '
        'the median over the lines of training metrics: of seeds that train together, all of them.'
    )
    return page.section('Cost and speed', page.table(head, rows), tag('p', said))


def _arithmetic(group: Group) -> tuple[str, str, str]:
    """Parameters, operations of an image, operations of training a run."""
    experiment = group.experiment
    if experiment is None:
        return '-', '-', '-'
    size, model = preprocessing(experiment).size, experiment.model
    shapes = jax.tree.leaves(parameter_shapes(model, size))
    parameters = sum(int(np.prod(leaf.shape)) for leaf in shapes)
    steps = max((run.records[-1]['step'] for run in group.runs if run.records), default=0)
    each = flops.model_flops(model, size, backward=True) * experiment.batch_size
    # A frozen part has no backward pass, and a teacher has a forward pass, which are not counted.
    known = experiment.optim.train == '.*' and experiment.distill.teacher is None
    trained = scaled(steps * each) if steps and known else '-'
    return f'{parameters:,}', scaled(flops.model_flops(model, size)), trained


def _median_speed(run: Run) -> float | None:
    speeds = [r['images_per_second'] for r in run.records if 'images_per_second' in r]
    return float(np.median(speeds)) if speeds else None


def environment(groups: Sequence[Group]) -> Html:
    """Commit, versions and hardware: what runs share, what differs, and where they resumed."""
    started = {run.name: run.starts for group in groups for run in group.runs if run.starts}
    known = {name: _lasting(starts[0]) for name, starts in started.items()}
    if not known:
        return Html()
    shared, differing = found.compare({n: fields.leaves(own) for n, own in known.items()})
    rows = [(_words(path), _setting(value)) for path, value in shared.items()]
    tables: list[Any] = [page.table(('', ''), rows, text=True)] if rows else []
    if differing:
        head = ('', *map(_words, differing))
        each = [(name, *(_setting(own.get(name, '-')) for own in differing.values()))
                for name in known]  # fmt: skip
        tables.append(page.table(head, each, text=True))
    resumed = []
    for name, (first, *others) in started.items():
        for start in others:
            changed = fields.differences(_lasting(first), _lasting(start))
            said = f' with {"; ".join(changed)}' if changed else ''
            when = str(start.get('started', ''))[:19]
            resumed.append(tag('li', f'{name} resumed at step {start["step"]}, {when}{said}'))
    listed = tag('ul', *resumed) if resumed else None
    return page.section('Environment and commit', *tables, listed)


def _lasting(start: dict[str, Any]) -> dict[str, Any]:
    """A start without what is of that moment."""
    return {name: value for name, value in start.items() if name not in ('step', 'started')}


_WORDS = {
    'changed': 'uncommitted changes', 'cpu': 'CPU', 'cores': 'CPU cores', 'memory': 'memory (GB)'
}  # fmt: skip


def _words(path: str) -> str:
    return _WORDS.get(path, words(path))


# ---- Numbers for people ------------------------------------------------------------------------


def _setting(value: Any) -> str:
    text = found.said(value)
    if isinstance(value, list) and len(value) > 8:
        text = f'{", ".join(map(found.said, value[:3]))} ... {len(value)} in all'
    return text


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.2%}'


def _short(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def _loss(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'


def _percent(values: Sequence[float | None]) -> Any:
    return _with_interval(found.estimate(values, share=True), _share)


def _number(values: Sequence[float | None]) -> Any:
    return _with_interval(found.estimate(values), _loss)


def _with_interval(value: Estimate | None, write: Callable[[float], str]) -> Any:
    if value is None:
        return '-'
    if np.isnan(value.low):
        return write(value.mean)
    interval = f'{write(value.low)} to {write(value.high)}, {value.of} seeds'
    return page.join(write(value.mean), tag('small', interval))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return '-'
    if seconds < 120:
        return f'{seconds:.3g} s'
    return f'{seconds / 60:.3g} min' if seconds < 7200 else f'{seconds / 3600:.3g} h'


def scaled(count: int) -> str:
    """A count with three digits and a unit: 1.26 G."""
    for unit, name in ((1e18, 'E'), (1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if count >= unit:
            return f'{count / unit:.3g} {name}'
    return str(count)
