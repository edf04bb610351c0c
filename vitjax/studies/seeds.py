"""One study of several seeds of a model, joined: means and intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from vitjax.analysis import effects
from vitjax.figures import interventions as figures
from vitjax.studies.common import SHARES, Samples, Study

Row = Mapping[str, Any]

SIGNED = ('answer', 'loss')  # measures that are 0 if nothing happens


def across(found: Mapping[int, Study], given: Samples, *, cell: str) -> Study:
    """The same study of several seeds, made on the same images, as one study.

    Rows are joined by layer, region, lesion or strength. Heads of different seeds have no identity
    in common, so they are joined by their rank within their layer, the largest effect on the
    prediction first, which noise makes larger. Every measure is a mean over seeds with the interval
    that `interval_of` names. `answer_clear` and `loss_clear` count the seeds whose interval over
    images excludes 0; with one image there is no interval, and they are NaN. Arrays are `MEASURE`
    [rows, seeds].

    Args:
        found: studies by seed.
        given: the images.
        cell: name of what the seeds share, for the title.

    Raises:
        ValueError: if the studies have different rows, or their model has one layer.
    """
    studies = [*found.values()]
    name = studies[0].name
    tables = [_by_rank(study.rows) if name == 'heads' else study.rows for study in studies]
    measures = [key.removesuffix('_low') for key in tables[0][0] if key.endswith('_low')]
    every = dict.fromkeys(key for row in tables[0] for key in row)
    own = [key for key in every if key not in _columns(measures)]
    identities = [[tuple(row.get(key) for key in own) for row in table] for table in tables]
    if any(each != identities[0] for each in identities):
        raise ValueError(f'{name} of different models cannot be joined over seeds: {cell}.')
    arrays = {m: np.array([[row[m] for row in t] for t in tables], float).T for m in measures}
    rows = [{key: row[key] for key in own if key in row} for row in tables[0]]
    for measure, values in arrays.items():
        interval = effects.student_share if measure in SHARES else effects.student
        for i, (mean, low, high) in enumerate(zip(*interval(values), strict=True)):
            rows[i] |= {measure: mean, f'{measure}_low': low, f'{measure}_high': high}
            if measure in SIGNED:
                ends = [(t[i][f'{measure}_low'], t[i][f'{measure}_high']) for t in tables]
                known = np.isfinite(ends).all()
                clear = sum(low * high > 0 for low, high in ends)
                rows[i][f'{measure}_clear'] = clear if known else float('nan')
    lines = curves(name, rows, arrays, measures)
    if not lines:
        raise ValueError(f'{name} over seeds compares two layers or more: {cell} has one.')
    said_interval = interval_of(measures[:1], len(studies))
    shaded = '' if said_interval.startswith('no ') else 'shaded: '
    title = f'{cell}: {len(studies)} seeds and their mean; {shaded}{said_interval}; '
    title += f'{len(given.inputs)} images ({given.source})'
    title += '; heads by rank within their layer' * (name == 'heads')
    measure, share = studies[0].measure, measures[0] in SHARES
    interval = effects.student_share if share else effects.student
    drawn = {k: (x, values, *interval(values)) for k, (x, values) in lines.items()}
    figure = figures.over_seeds(drawn, measure=measure, title=title, share=share)
    policy = f'{studies[0].policy}; seeds: {", ".join(map(str, found))}'
    if name == 'heads':
        policy += '; heads of seeds joined by their rank within the layer'
    lowest = name == 'lesion'  # where the measure is what is left
    said = tuple(
        f'{cell}, {agreement(title, *line, lowest=lowest)}'
        for title, line in lines.items()
        if 'removed' not in title
    )
    extra = {'seeds': np.array([*found])}
    interval = interval_of(measures, len(studies))
    return Study(name, {**arrays, **extra}, rows, figure, policy, interval, said, measure)


def interval_of(measures: Sequence[str], seeds: int) -> str:
    """Name of the 95% intervals of these measures over seeds, or why there is none."""
    if seeds < 2:
        return 'no interval, one seed'
    student, shares = "Student's over seeds, 95%", [name for name in measures if name in SHARES]
    if not shares:
        return student
    own = f'{student}, on the logit scale' if seeds > 2 else 'no interval, three seeds are needed'
    if len(shares) == len(measures):
        return own
    return f'{student}; of {", ".join(shares)} {own}'


def _columns(measures: Sequence[str]) -> set[str]:
    return {f'{measure}{end}' for measure in measures for end in ('', '_low', '_high')}


def _by_rank(rows: Sequence[Row]) -> list[Row]:
    """Rows of heads with `rank` in place of `head`: 1 has the largest effect in its layer."""
    layers: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        layers.setdefault((row['stack'], row['kind'], row['layer']), []).append(row)
    out = []
    for own in layers.values():
        ordered = sorted(own, key=lambda row: -row['answer'])
        for rank, row in enumerate(ordered, 1):
            rest = {key: value for key, value in row.items() if key != 'head'}
            head = {key: rest.pop(key) for key in ('stack', 'kind', 'layer')}
            out.append({**head, 'rank': rank, **rest})
    return out


def curves(
    name: str, rows: Sequence[Row], arrays: Mapping[str, np.ndarray], measures: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What of a study's rows is drawn over layers: by title, places [n] and values [n, seeds]."""
    main = measures[0]
    values, out = arrays[main], {}

    def curve(title: str, chosen: Sequence[int], over: str, reduce: Any) -> None:
        places = np.array([*dict.fromkeys(rows[i][over] for i in chosen)])
        own = [[i for i in chosen if rows[i][over] == place] for place in places]
        if len(places):
            out[title] = places, np.array([reduce(values[each], axis=0) for each in own])

    def select(**wanted: Any) -> list[int]:
        return [i for i, row in enumerate(rows) if wanted.items() <= row.items()]

    if name == 'heads':
        for stack in dict.fromkeys(row['stack'] for row in rows):
            for kind in ('zero', 'mean'):
                own = select(stack=stack, kind=kind)
                curve(f'{stack}, {kind}: sum over heads', own, 'layer', np.sum)
                curve(f'{stack}, {kind}: largest head', own, 'layer', np.max)
    elif name == 'lesion':
        for kind in ('skipped', 'swapped', 'repeated'):
            curve(f'layer {kind}', select(kind=kind), 'layer', np.mean)
        curve('layers removed at random', select(kind='random'), 'removed', np.mean)
    elif name == 'patch':
        every = range(len(rows))
        curve('mean over places', every, 'layer', np.mean)
        curve('largest place', every, 'layer', np.max)
    else:
        key = 'region' if name == 'knockout' else 'strength'
        shown = [*dict.fromkeys(row[key] for row in rows)]
        for value in shown[-3:]:
            curve(f'{key} {value}', select(**{key: value}), 'layer', np.mean)
    return out


def agreement(title: str, places: np.ndarray, values: np.ndarray, *, lowest: bool = False) -> str:
    """How alike seeds rank layers: Kendall's W of values [layers, seeds], and the extreme ones."""
    count, seeds = values.shape
    said = f'{title}: '
    if seeds > 1 and count > 2 and np.ptp(values, 0).all():
        ranks = scipy.stats.rankdata(values, axis=0)
        spread = ((ranks.sum(1) - ranks.sum(1).mean()) ** 2).sum()
        tied = [np.unique(own, return_counts=True)[1] for own in values.T]
        ties = sum((own**3 - own).sum() for own in tied)
        most = seeds**2 * (count**3 - count) - seeds * ties
        said += f"Kendall's W over seeds {12 * spread / most:.2f}; "
    top = places[values.argmin(0) if lowest else values.argmax(0)]
    most = max(dict.fromkeys(top), key=lambda place: (top == place).sum())
    which = 'lowest' if lowest else 'largest'
    return f'{said}{which} at layer {most} in {(top == most).sum()} of {seeds} seeds'
