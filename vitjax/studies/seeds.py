"""One study of several seeds of a model, joined: means and intervals over seeds."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from vitjax.analysis import effects
from vitjax.figures import interventions as figures
from vitjax.studies.runner import FRACTIONS, Row, Study, named, tabulate
from vitjax.studies.samples import Samples

SIGNED = ('answer', 'loss')  # measures that are 0 without an effect
Line = tuple[np.ndarray, np.ndarray]  # places [n], values [n, seeds]


def across(found: Mapping[int, Study], samples: Samples, *, cell: str) -> Study:
    """Joins the same study of several seeds, made on the same images, into one study.

    Rows are joined by layer, region, lesion or strength. Heads of different seeds have no identity
    in common: they are joined by their rank within their layer, the largest effect on the
    prediction first, which noise makes larger. Every measure is a mean over seeds with the interval
    that `interval_of` names. `answer_clear` and `loss_clear` count the seeds whose interval over
    images excludes 0; with one image there is no interval, and they are NaN. Arrays are `MEASURE`
    [rows, seeds].

    Args:
        found: studies by seed.
        samples: the images.
        cell: name of what the seeds share, for the title.

    Raises:
        ValueError: if the studies have different rows, or their model has one layer.
    """
    studies = [*found.values()]
    name, of_heads = studies[0].name, studies[0].name == 'heads'
    tables = [_by_rank(study.rows) if of_heads else study.rows for study in studies]
    measures = [key.removesuffix('_low') for key in tables[0][0] if key.endswith('_low')]
    keys, *others = (_keys(table, measures) for table in tables)
    if any(each != keys for each in others):
        raise ValueError(f'{name} of different models cannot be joined over seeds: {cell}.')
    arrays = {measure: _column(tables, measure) for measure in measures}
    rows = tabulate(_summary(tables, arrays), keys)
    main = measures[0]
    lines = dict(curves(name, rows, arrays[main]))
    if not lines:
        raise ValueError(f'{name} over seeds compares two layers or more: {cell} has one.')
    interval = interval_of([main], len(studies))
    shaded = '' if interval.startswith('no ') else 'shaded: '
    title = f'{cell}: {len(studies)} seeds and their mean; {shaded}{interval}'
    policy = f'{studies[0].policy}; seeds: {", ".join(map(str, found))}'
    figure = figures.over_seeds(
        {title: (*line, *_interval(main, line[1])) for title, line in lines.items()},
        measure=studies[0].measure, fraction=main in FRACTIONS,
        title=f'{title}; {samples.described()}' + '; heads by rank within their layer' * of_heads,
    )  # fmt: skip
    said = tuple(
        f'{cell}, {agreement(over, *line, lowest=name == "lesion")}'  # lesion measures what is left
        for over, line in lines.items()
        if 'removed' not in over
    )
    return Study(
        name, {**arrays, 'seeds': np.array([*found])}, rows, figure,
        policy + '; heads of seeds joined by their rank within the layer' * of_heads,
        interval_of(measures, len(studies)), said, studies[0].measure,
    )  # fmt: skip


def _keys(table: Sequence[Row], measures: Sequence[str]) -> list[Row]:
    """Rows of a table without the measures and their intervals."""
    values = {f'{measure}{end}' for measure in measures for end in ('', '_low', '_high')}
    return [{key: value for key, value in row.items() if key not in values} for row in table]


def _column(tables: Sequence[Sequence[Row]], name: str) -> np.ndarray:
    """A column of the tables of all seeds, [rows, seeds]."""
    return np.array([[row[name] for row in table] for table in tables], float).T


def _summary(
    tables: Sequence[Sequence[Row]], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Columns of the joined table from measures [rows, seeds]."""
    out = {}
    for measure, values in arrays.items():
        mean, low, high = _interval(measure, values)
        out |= {measure: mean, f'{measure}_low': low, f'{measure}_high': high}
        if measure in SIGNED:
            product = _column(tables, f'{measure}_low') * _column(tables, f'{measure}_high')
            known = np.isfinite(product).all(1)
            out[f'{measure}_clear'] = np.where(known, (product > 0).sum(1), np.nan)
    return out


def _interval(measure: str, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and interval over the last axis, within 0 and 1 for fractions."""
    return (effects.student_share if measure in FRACTIONS else effects.student)(values)


def interval_of(measures: Sequence[str], seeds: int) -> str:
    """Name of the 95% intervals of these measures over seeds, or the reason for having none."""
    if seeds < 2:
        return 'no interval, one seed'
    usual = "Student's over seeds, 95%"
    few = 'no interval, three seeds are needed'
    return named(measures, usual, f'{usual}, on the logit scale' if seeds > 2 else few)


def _by_rank(rows: Sequence[Row]) -> list[Row]:
    """Rows of heads with `rank` in place of `head`: 1 has the largest effect in its layer."""
    # The rank stands where the head stood.
    renamed = [{'rank' if k == 'head' else k: v for k, v in row.items()} for row in rows]
    out = []
    for _, own in itertools.groupby(renamed, lambda row: (row['stack'], row['kind'], row['layer'])):
        ordered = sorted(own, key=lambda row: -row['answer'])
        out += [{**row, 'rank': rank} for rank, row in enumerate(ordered, 1)]
    return out


def curves(name: str, rows: Sequence[Row], values: np.ndarray) -> Iterator[tuple[str, Line]]:
    """Lines over layers that the figure shows, by title.

    Args:
        name: the study.
        rows: rows of its table.
        values: its main measure, [rows, seeds].
    """

    def line(title: str, reduce: Any, over: str = 'layer', **wanted: Any) -> Iterator[Any]:
        own = [i for i, row in enumerate(rows) if wanted.items() <= row.items()]
        places = [*dict.fromkeys(rows[i][over] for i in own)]
        at = [[i for i in own if rows[i][over] == place] for place in places]
        if places:
            yield title, (np.array(places), np.array([reduce(values[i], axis=0) for i in at]))

    if name == 'heads':
        for stack in dict.fromkeys(row['stack'] for row in rows):
            for kind in ('zero', 'mean'):
                of = {'stack': stack, 'kind': kind}
                yield from line(f'{stack}, {kind}: sum over heads', np.sum, **of)
                yield from line(f'{stack}, {kind}: largest head', np.max, **of)
    elif name == 'lesion':
        for kind in ('skipped', 'swapped', 'repeated'):
            yield from line(f'layer {kind}', np.mean, kind=kind)
        yield from line('layers removed at random', np.mean, 'removed', kind='random')
    elif name == 'patch':
        yield from line('mean over places', np.mean)
        yield from line('largest place', np.max)
    else:
        key = 'region' if name == 'knockout' else 'strength'
        for value in [*dict.fromkeys(row[key] for row in rows)][-3:]:
            yield from line(f'{key} {value}', np.mean, **{key: value})


def agreement(title: str, places: np.ndarray, values: np.ndarray, *, lowest: bool = False) -> str:
    """Agreement of seeds on the order of layers, in words: Kendall's W, and the extreme layers.

    Args:
        title: name of the line.
        places: layers [n].
        values: values [n, seeds].
        lowest: name the layer of the lowest value instead of the largest.
    """
    count, seeds = values.shape
    said = f'{title}: '
    if seeds > 1 and count > 2 and np.ptp(values, 0).all():
        ranks = scipy.stats.rankdata(values, axis=0)
        squares = ((ranks.sum(1) - ranks.sum(1).mean()) ** 2).sum()
        tied = [np.unique(own, return_counts=True)[1] for own in values.T]
        ties = sum((own**3 - own).sum() for own in tied)
        most = seeds**2 * (count**3 - count) - seeds * ties
        said += f"Kendall's W over seeds {12 * squares / most:.2f}; "
    top = places[values.argmin(0) if lowest else values.argmax(0)]
    most = max(dict.fromkeys(top), key=lambda place: (top == place).sum())
    which = 'lowest' if lowest else 'largest'
    return f'{said}{which} at layer {most} in {(top == most).sum()} of {seeds} seeds'
