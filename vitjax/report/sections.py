"""Sections of a report that need no model: results, curves, configuration, cost, environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.base import fields
from vitjax.base.console import duration
from vitjax.data.source import Source
from vitjax.experiment import Experiment, preprocessing
from vitjax.figures import report as figures
from vitjax.figures.ablation import words
from vitjax.models.base import count_parameters, parameter_shapes
from vitjax.plan import flops
from vitjax.report import page, seeds
from vitjax.report.groups import Group, compare, settings, text
from vitjax.report.page import Html, tag
from vitjax.report.run import Run

SPLITS = (
    'The checkpoint is the one with the best validation accuracy. Test images are evaluated once, '
    'after training, with that checkpoint. Every number names its split.'
)


def results(groups: Sequence[Group]) -> Html:
    """Accuracy and loss of each run, and their means over groups of several runs."""
    each = _each([run for group in groups for run in group.runs])
    if all(len(group.runs) == 1 for group in groups):
        return page.section('Results', tag('p', SPLITS, kind='lead'), each)
    rows = []
    for group in groups:
        tested = [run.last('test') or {} for run in group.runs]
        validated = [(run.best() or {}).get('accuracy') for run in group.runs]
        rows.append(
            (
                group.name, len(group.runs), _percent([r.get('accuracy') for r in tested]),
                _percent([*map(_top5, group.runs)]),
                _interval(seeds.estimate([r.get('loss') for r in tested]), '.4f'),
                _percent(validated),
            )
        )  # fmt: skip
    said = 'Means over runs that differ in their seed alone, and their 95% intervals. '
    return page.section(
        'Results', tag('p', said, SPLITS, kind='lead'),
        page.table(('', 'runs', *_SCORES), rows), page.folded('each run', each),
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
                _number(tested.get('accuracy'), '.2%'), _number(_top5(run), '.2%'),
                _number(tested.get('loss'), '.4f'), _number(best.get('accuracy'), '.2%'),
                _number(best.get('epoch'), '.4g'), _number(last.get('epoch'), '.4g'),
                duration(last.get('seconds', np.nan)),
                str(run.starts[0].get('started', '-'))[:16] if run.starts else '-',
            )
        )  # fmt: skip
    return page.table(head, rows)


def _top5(run: Run) -> float | None:
    """Top-5 accuracy on test images; None with five classes or fewer, where it is 1."""
    few = run.experiment is not None and len(run.experiment.classes) <= 5
    return None if few else (run.last('test') or {}).get('top5')


def curves(groups: Sequence[Group]) -> Html:
    """Learning curves of all runs, in one figure."""
    lines = {group.name: own for group in groups if (own := seeds.curves(group))}
    if not lines:
        raise ValueError('no line of training or validation')
    wide, narrow = (figures.svg(figures.curves(lines, columns=count)) for count in (3, 1))
    drawn = page.picture(wide, 'svg+xml', 'learning curves', narrow=narrow)
    several = any(len(group.runs) > 1 for group in groups)
    over = ' Lines are means over seeds, bands their 95% intervals.' if several else ''
    said = 'Training (dotted, x; with dropout, on augmented images) and validation (solid, dots).'
    return page.section('Learning curves', page.figure(drawn, said + over, kind='full'))


def configuration(groups: Sequence[Group]) -> Html:
    """Settings that differ between groups, or from the defaults of one group; the rest folded."""
    experiments = {group.name: group.experiment for group in groups if group.experiment}
    if not experiments:
        raise ValueError('no experiment.json can be read')
    known = {name: settings(experiment) for name, experiment in experiments.items()}
    shared, differing = compare(known)
    if len(known) == 1:
        (experiment,) = experiments.values()
        usual = settings(Experiment(model=type(experiment.model)(), data=Source()))
        own = {
            path: value for path, value in shared.items()
            if value != usual.get(path) and not path.startswith(('preprocessing', 'classes'))
        }  # fmt: skip
        rest = {path: value for path, value in shared.items() if path not in own}
        lead, table = 'Settings other than the defaults:', _settings(own, 12)
        summary = f'{len(rest)} more settings: defaults, and values that follow from the data'
    else:
        lead, table = 'Settings that differ:', _differing(known, differing)
        rest, summary = shared, f'{len(shared)} shared settings'
    folded = page.folded(summary, _settings(rest, 24)) if rest else None
    return page.section('Configuration', tag('p', lead, kind='lead'), table, folded)


def _settings(values: Mapping[str, Any], most: int) -> Html:
    rows = [(path, _setting(value)) for path, value in sorted(values.items())]
    return page.columns(('', ''), rows, most=most, text=True)


def _differing(known: Mapping[str, Any], differing: Mapping[str, Mapping[str, Any]]) -> Html:
    """Groups in rows and settings in columns, or the reverse if there are many settings.

    `-` is a setting that another kind of model has.
    """
    if len(differing) <= 6:
        return page.table(('', *differing), _by_name(known, differing))
    rows = [
        (path, *(_setting(own.get(name, '-')) for name in known))
        for path, own in sorted(differing.items())
    ]
    return page.table(('', *known), rows)


def _by_name(known: Mapping[str, Any], differing: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    return [(name, *(_setting(own.get(name, '-')) for own in differing.values())) for name in known]


def cost(groups: Sequence[Group]) -> Html:
    """Parameters, operations and speed of each group."""
    head = ('', 'parameters', 'FLOPs per image', 'FLOPs of training a run', 'images/s',
            'training time of a run', 'devices')  # fmt: skip
    rows = []
    for group in groups:
        seconds = [run.records[-1].get('seconds') if run.records else None for run in group.runs]
        speed = seeds.estimate([*map(_median_speed, group.runs)])
        took = seeds.estimate(seconds)
        devices = dict.fromkeys(str(s.get('devices')) for run in group.runs for s in run.starts)
        rows.append(
            (
                group.name, *_arithmetic(group), _number(speed and speed.mean, ',.0f'),
                duration(took.mean if took else np.nan), ', '.join(devices) or '-',
            )
        )  # fmt: skip
    said = (
        'A multiply-add of a product is two FLOPs; those per image are of the forward pass. '
        'Training counts forward and backward passes of all steps; it is left out with frozen '
        'parts or a teacher. Images/s is the median over the lines of training metrics, and counts '
        'all seeds that train together.'
    )
    return page.section('Cost and speed', page.table(head, rows), tag('p', said))


def _arithmetic(group: Group) -> tuple[str, str, str]:
    """Parameters, operations per image, operations of training one run."""
    experiment = group.experiment
    if experiment is None:
        return '-', '-', '-'
    size, model = preprocessing(experiment).size, experiment.model
    parameters = count_parameters(parameter_shapes(model, size))
    steps = max((run.records[-1]['step'] for run in group.runs if run.records), default=0)
    each = flops.model_flops(model, size, backward=True) * experiment.batch_size
    # Frozen parts have no backward pass, and a teacher's forward pass is not counted.
    known = experiment.optim.train == '.*' and experiment.distill.teacher is None
    trained = scaled(steps * each) if steps and known else '-'
    return f'{parameters:,}', scaled(flops.model_flops(model, size)), trained


def _median_speed(run: Run) -> float | None:
    speeds = [r['images_per_second'] for r in run.records if 'images_per_second' in r]
    return float(np.median(speeds)) if speeds else None


def environment(groups: Sequence[Group]) -> Html:
    """Commit, versions and hardware: shared and differing values, and changes on resumption."""
    started = {run.name: run.starts for group in groups for run in group.runs if run.starts}
    if not started:
        return Html()
    known = {name: fields.leaves(_lasting(starts[0])) for name, starts in started.items()}
    shared, differing = compare(known)
    rows = [(_words(path), _setting(value)) for path, value in shared.items()]
    tables = [page.table(('', ''), rows, text=True)] if rows else []
    if differing:
        head = ('', *map(_words, differing))
        tables.append(page.table(head, _by_name(known, differing), text=True))
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
    """Environment of a start without its step and time."""
    return {name: value for name, value in start.items() if name not in ('step', 'started')}


_WORDS = {
    'changed': 'uncommitted changes', 'cpu': 'CPU', 'cores': 'CPU cores', 'memory': 'memory (GB)'
}  # fmt: skip


def _words(path: str) -> str:
    return _WORDS.get(path, words(path))


# ---- Values as text ----------------------------------------------------------------------------


def _setting(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f'{text(value[:3])} ... {len(value)} in all'
    return text(value)


def _number(value: float | None, form: str) -> str:
    return '-' if value is None else f'{value:{form}}'


def _percent(values: Sequence[float | None]) -> Html | str:
    return _interval(seeds.estimate(values, share=True), '.2%')


def _interval(value: seeds.Estimate | None, form: str) -> Html | str:
    if value is None or np.isnan(value.low):
        return _number(value and value.mean, form)
    interval = f'{value.low:{form}} to {value.high:{form}}, {value.runs} seeds'
    return page.join(f'{value.mean:{form}}', tag('small', interval))


def scaled(count: int) -> str:
    """A count with three digits and a unit: 1.26 G."""
    for unit, name in ((1e18, 'E'), (1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if count >= unit:
            return f'{count / unit:.3g} {name}'
    return str(count)
