import dataclasses
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest
import sklearn.metrics
from helpers import TINY, random_params
from report_parsed import Parsed
from tiny_models import CONVNET, MULTI

from vitjax import files, report, runs
from vitjax.analysis.effects import student, student_share
from vitjax.data.preprocess import Preprocessing
from vitjax.report import found


def parsed(paths, **options):
    path = report.write(paths, **options)
    text = path.read_text()
    page = Parsed(text)
    assert all(link.startswith('data:image/') for link in page.links)
    assert not re.search(r'(?:https?:)?//\w', re.sub(r'"data:[^"]*"', '', text))
    assert 'script' not in page.tags
    return page


def missing(page):
    """What the page says is not in it."""
    before, box, after = page.said.partition('Not in this report')
    return after[: after.index('Results')] if box else ''


def change(run, **values):
    """Changes the lines of a run's metrics."""
    lines = [{**r, **values} for r in runs.read_metrics(run)]
    files.replace(run / 'metrics.jsonl', ''.join(map(files.line, lines)))


def seeds_of(run, folder, accuracies):
    """Copies of a run that say to be of other seeds and accuracies."""
    for seed, accuracy in accuracies.items():
        other = shutil.copytree(run, folder / f'seed_{seed}')
        experiment = dataclasses.replace(runs.read_experiment(run), seed=seed)
        runs.write_experiment(other, experiment)
        change(other, accuracy=accuracy)


def test_the_page_says_what_the_run_says(run):
    page = parsed([run])
    assert (run / 'report.html').exists() and not missing(page)
    (tested,) = (r for r in runs.read_metrics(run) if r['split'] == 'test')
    held = max(r['accuracy'] for r in runs.read_metrics(run) if r['split'] == 'validation')
    row = page.rows[run.name]  # its name, and those of classes, have what HTML would read
    table = next(t for t in page.table if t[0] == run.name)
    assert table[2:6] == [
        f'{tested["accuracy"]:.2%}', f'{tested["top5"]:.2%}', f'{tested["loss"]:.4f}',
        f'{held:.2%}',
    ]  # fmt: skip
    parameters = sum(x.size for x in jax.tree.leaves(runs.load(run).params))
    assert row[0] == f'{parameters:,}'  # of cost, the last table with the run's name
    kept, names = runs.read_predictions(run), runs.read_experiment(run).classes
    zero: Any = 0
    scores = sklearn.metrics.classification_report(
        kept['labels'], kept['predicted'], target_names=names, output_dict=True, zero_division=zero
    )
    assert isinstance(scores, dict)
    for name in names:
        own = scores[name]
        wanted = [f'{own[k]:.3f}' for k in ('precision', 'recall', 'f1-score')]
        assert [name, *wanted, f'{own["support"]:.0f}'] in page.table
    wrong = kept['predicted'] != kept['labels']
    worst = np.argsort(-np.where(wrong, kept['probability'], 0), kind='stable')[0]
    shown = f'{names[kept["predicted"][worst]]} {kept["probability"][worst]:.1%}'
    assert f'{shown}true: {names[kept["labels"][worst]]}' in page.said
    assert f'{wrong.sum()} of {len(wrong)} are wrong' in page.said
    (start,) = runs.read_notes(run, runs.ENVIRONMENT)
    assert page.rows['jax'] == [jax.__version__] and page.rows['commit'] == [start['commit']]
    assert page.tags.count('figcaption') >= 18 and page.tags.count('img') >= 18 + 4


def test_runs_that_differ_in_their_seed_are_one_group(run, tmp_path):
    cell, other = tmp_path / 'cells' / 'depth', tmp_path / 'cells' / 'rate'
    accuracies = {0: 0.5, 1: 0.75, 2: 0.9}
    seeds_of(run, cell, accuracies)
    seeds_of(run, other, {0: 0.25})
    experiment = runs.read_experiment(other / 'seed_0')
    optim = dataclasses.replace(experiment.optim, peak=0.25)
    runs.write_experiment(other / 'seed_0', dataclasses.replace(experiment, optim=optim))
    (other / 'failure.txt').write_text('of <another> reason\n\nTraceback')
    shutil.rmtree(run)
    page = parsed([tmp_path], details=1, look=False)
    assert (tmp_path / 'report.html').exists()
    names = [run.name for run in found.find([tmp_path], [])]
    assert len(names) == 4 and all(page.rows[name] for name in names)
    first = next(row for row in page.table if row[0] == 'peak learning rate 0.003')
    mean, low, high = student_share(np.array([*accuracies.values()]))
    assert first[1] == '3' and first[2] == f'{mean:.2%}{low:.2%} to {high:.2%}, 3 seeds'
    assert page.rows['peak learning rate 0.25'] and page.table.count(['', 'optim.peak']) == 1
    assert 'cell rate failed: of <another> reason' in missing(page)
    assert 'of 1 of 2 groups' in missing(page)
    assert page.tags.count('h2') - 1 == len({'results', 'curves', 'configuration', 'cost', 'env'})


def test_curves_are_means_over_seeds_at_each_epoch(run, tmp_path):
    losses = {0: 0.5, 1: 0.75, 2: 1.5}
    for seed, loss in losses.items():
        shutil.copytree(run, tmp_path / f'{seed}')
        change(tmp_path / f'{seed}', loss=loss)
    lines = runs.read_metrics(tmp_path / '2')
    lines = [r for r in lines if r['epoch'] < 3]  # stopped early
    files.replace(tmp_path / '2' / 'metrics.jsonl', ''.join(map(files.line, lines)))
    (group,) = found.grouped(found.find([tmp_path / str(seed) for seed in losses], []))
    curve = found.curves(group)['validation', 'loss']
    np.testing.assert_array_equal(curve.epochs, [1, 2, 3])
    whole, stopped = (student(np.array([*losses.values()][:n])) for n in (3, 2))
    np.testing.assert_allclose([curve.mean[0], curve.low[0], curve.high[0]], whole)
    np.testing.assert_allclose([curve.mean[-1], curve.low[-1], curve.high[-1]], stopped)


@pytest.mark.parametrize(
    ('harm', 'said', 'kept'),
    [
        (lambda run: (run / 'metrics.jsonl').unlink(), 'has no metrics', 'Confusion matrix, val'),
        (lambda run: (run / 'experiment.json').write_text('{'), 'cannot be read', 'Learning'),
        (lambda run: (run / 'environment.jsonl').unlink(), 'neither hardware nor', 'Confusion'),
        (lambda run: shutil.rmtree(run / 'checkpoints'), 'attention: ', 'Worst mistakes, test'),
        (lambda run: (run / 'predictions.json').write_text('[]'), '', 'Confusion matrix, test'),
    ],
)
def test_what_is_missing_is_a_line(run, harm, said, kept):
    harm(run)
    page = parsed([run])
    assert kept in page.said
    assert said in missing(page) and bool(said) == bool(missing(page))


def test_an_unfinished_run_is_judged_by_validation_images(run):
    lines = [r for r in runs.read_metrics(run) if r['split'] != 'test']
    files.replace(run / 'metrics.jsonl', ''.join(map(files.line, lines)))
    page = parsed([run], look=False)
    assert 'is not finished' in missing(page)
    assert 'Confusion matrix, validation images' in page.said and 'test images,' not in page.said


def test_where_nothing_can_be_shown_it_is_an_error_of_a_line(tmp_path):
    for path in (tmp_path, tmp_path / 'none', tmp_path / 'a.txt'):
        with pytest.raises(ValueError, match=r'^a run has an experiment.json [^\n]*$'):
            report.write([path])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('model', [MULTI, CONVNET.clone(widths=(4,))])
def test_every_kind_of_model_shows_where_it_looks(tmp_path, model):
    model = model.clone(num_classes=10)
    experiment = dataclasses.replace(
        TINY, model=model, preprocessing=Preprocessing(8, crop=1.0),
        optim=dataclasses.replace(TINY.optim, ema=0.0),
    )  # fmt: skip
    params = random_params(model, np.zeros((1, 8, 8, 3), np.float32))
    runs.write(tmp_path / 'run', experiment, params)
    page = parsed([tmp_path / 'run'])
    assert 'Its worst mistakes.' in page.said and 'attention: ' not in missing(page)


def test_a_report_that_cannot_be_made_does_no_harm_to_its_run(run, monkeypatch):
    assert report.attempt(run) == f'report: {run}/report.html\n'
    links = Parsed((run / 'report.html').read_text()).links
    again = parsed([run], look=False).links
    assert len(links) == len(again) + 2 and {*again} < {*links}  # the same figures, to the byte

    def fails(*_, **__):
        raise KeyError('a fault of ours')

    monkeypatch.setattr(report, 'write', fails)
    said = report.attempt(run)
    assert said.startswith('there is no report: ') and said.count('\n') == 1
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    assert report.attempt(run) == ''
