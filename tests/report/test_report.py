import collections
import csv
import dataclasses
import json
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest
import sklearn.metrics
from helpers import TINY, random_params
from PIL import Image
from report_parsed import Parsed
from tiny_models import CONVNET, MULTI

from vitjax import report, runs
from vitjax.analysis.effects import student, student_share
from vitjax.base import fields, files
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.report.groups import grouped
from vitjax.report.predictions import images, predictions_of
from vitjax.report.run import collect
from vitjax.report.seeds import curves


def parsed(paths, **options):
    path = report.write(paths, **options)
    text = path.read_text()
    page = Parsed(text)
    assert all(link.startswith('data:image/') for link in page.links)
    assert not re.search(r'(?:https?:)?//\w', re.sub(r'"data:[^"]*"', '', text))
    assert 'script' not in page.tags
    return page


def missing(page):
    """Text of the box that lists what is not in the page."""
    before, box, after = page.said.partition('Not in this report')
    return after[: after.index('Results')] if box else ''


def change(run, **values):
    """Replaces values in all lines of a run's metrics."""
    lines = [{**r, **values} for r in runs.records.read_metrics(run)]
    files.replace(run / 'metrics.jsonl', ''.join(map(files.line, lines)))


def seeds_of(run, folder, accuracies):
    """Copies of a run under other seeds and accuracies."""
    for seed, accuracy in accuracies.items():
        other = shutil.copytree(run, folder / f'seed_{seed}')
        experiment = dataclasses.replace(runs.read_experiment(run), seed=seed)
        runs.write_experiment(other, experiment)
        change(other, accuracy=accuracy)


@pytest.mark.slow
def test_the_page_has_the_numbers_of_the_run(run):
    page = parsed([run])
    assert (run / 'report.html').exists() and not missing(page)
    (tested,) = (r for r in runs.records.read_metrics(run) if r['split'] == 'test')
    held = max(r['accuracy'] for r in runs.records.read_metrics(run) if r['split'] == 'validation')
    row = page.rows[run.name]  # its name, and those of classes, have what HTML would read
    table = next(t for t in page.table if t[0] == run.name)
    assert table[2:6] == [
        f'{tested["accuracy"]:.2%}', f'{tested["top5"]:.2%}', f'{tested["loss"]:.4f}',
        f'{held:.2%}',
    ]  # fmt: skip
    parameters = sum(x.size for x in jax.tree.leaves(runs.load(run).params))
    assert row[0] == f'{parameters:,}'  # of cost, the last table with the run's name
    kept, names = runs.records.read_predictions(run), runs.read_experiment(run).classes
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
    (start,) = runs.records.read_notes(run, runs.records.ENVIRONMENT)
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
    page = parsed([tmp_path], details=1, attention=False)
    assert (tmp_path / 'report.html').exists()
    names = [run.name for run in collect([tmp_path], [])]
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
    lines = runs.records.read_metrics(tmp_path / '2')
    lines = [r for r in lines if r['epoch'] < 3]  # stopped early
    files.replace(tmp_path / '2' / 'metrics.jsonl', ''.join(map(files.line, lines)))
    (group,) = grouped(collect([tmp_path / str(seed) for seed in losses], []))
    curve = curves(group)['validation', 'loss']
    np.testing.assert_array_equal(curve.epochs, [1, 2, 3])
    whole, stopped = (student(np.array([*losses.values()][:n])) for n in (3, 2))
    np.testing.assert_allclose([curve.mean[0], curve.low[0], curve.high[0]], whole)
    np.testing.assert_allclose([curve.mean[-1], curve.low[-1], curve.high[-1]], stopped)


@pytest.mark.slow
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
def test_missing_parts_are_a_line(run, harm, said, kept):
    harm(run)
    page = parsed([run])
    assert kept in page.said
    assert said in missing(page) and bool(said) == bool(missing(page))


def test_an_unfinished_run_is_judged_by_validation_images(run):
    lines = [r for r in runs.records.read_metrics(run) if r['split'] != 'test']
    files.replace(run / 'metrics.jsonl', ''.join(map(files.line, lines)))
    page = parsed([run], attention=False)
    assert 'is not finished' in missing(page)
    assert 'Confusion matrix, validation images' in page.said and 'test images,' not in page.said


def predicted_classes(run, classes, *, images=6000, outputs=None):
    """Writes random predictions into a run, whose model gets as many outputs."""
    rng, outputs = np.random.default_rng(0), outputs or classes
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    predicted = np.where(rng.uniform(size=images) < 0.5, labels, rng.integers(0, classes, images))
    values = {'labels': labels, 'predicted': predicted, 'probability': rng.uniform(size=images)}
    runs.records.write_predictions(run, {name: each.tolist() for name, each in values.items()})
    experiment = runs.read_experiment(run)
    names = tuple(f'class number {i}' for i in range(outputs))
    model = experiment.model.clone(num_classes=outputs)
    runs.write_experiment(run, dataclasses.replace(experiment, model=model, classes=names))
    records = [r for r in runs.records.read_metrics(run)]
    for record in records:
        if record['split'] == 'test':
            record['accuracy'] = float((labels == predicted).mean())
    files.replace(run / 'metrics.jsonl', ''.join(map(files.line, records)))
    return labels, predicted, names


@pytest.mark.slow
@pytest.mark.parametrize('classes', [1000, 4000])
def test_a_page_of_many_classes_is_small_and_a_table_has_all(run, classes):
    """A page of a thousand classes once took 538 MB."""
    labels, predicted, names = predicted_classes(run, classes)
    page = parsed([run], attention=False)
    assert (run / 'report.html').stat().st_size < 400_000
    assert page.tags.count('tr') < 250
    with (run / 'report_classes.csv').open(newline='') as file:
        rows = [*csv.DictReader(file)]
    assert [row['class'] for row in rows] == [*names]
    score: Any = sklearn.metrics.precision_recall_fscore_support
    wanted = score(labels, predicted, zero_division=0)
    for name, each in zip(('precision', 'recall', 'f1', 'images'), wanted, strict=True):
        np.testing.assert_allclose([float(row[name]) for row in rows], each, atol=1e-6)
    mean = next(row for row in page.table if row[0] == f'mean of {classes:,} classes')
    assert mean[1:4] == [f'{np.mean(each):.3f}' for each in wanted[:3]]
    worst = np.argsort(wanted[2], kind='stable')[0]
    row = [names[worst], *(f'{each[worst]:.3f}' for each in wanted[:3]), f'{wanted[3][worst]}']
    assert row in page.table
    pairs = collections.Counter(zip(labels[labels != predicted], predicted[labels != predicted],
                                    strict=True))  # fmt: skip
    assert [str(pairs.most_common(1)[0][1])] == [
        row[2] for row in page.table if len(row) == 4 and row[2].isdecimal()
    ][:1]
    assert 'report_classes.csv all' in missing(page)


def test_means_leave_out_outputs_without_images(run):
    """Over 100 outputs, 10 of them with images, a mean was once 0.020 instead of 0.199."""
    labels, predicted, _ = predicted_classes(run, 10, outputs=100)
    page = parsed([run], attention=False)
    zero: Any = 0
    wanted = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, average='macro', zero_division=zero
    )
    mean = page.rows['mean of 10 classes']
    assert mean[:3] == [f'{value:.3f}' for value in wanted[:3]] and mean[3] == '6000'
    assert '90 outputs without an image or a prediction are left out' in page.said
    assert 'class number 57' not in page.said


@pytest.mark.slow
@pytest.mark.parametrize('outputs', [1, 2, 9])
def test_more_classes_than_outputs_are_a_line(tmp_path, outputs):
    model = TINY.model.clone(num_classes=outputs)
    optim = dataclasses.replace(TINY.optim, ema=0.0)
    experiment = dataclasses.replace(
        TINY, model=model, optim=optim, preprocessing=Preprocessing(8, crop=1.0),
        classes=tuple('0123456789'),
    )  # fmt: skip
    params = random_params(model, np.zeros((1, 8, 8, 3), np.float32))
    runs.write(tmp_path / 'run', experiment, params)
    page = parsed([tmp_path / 'run'])
    assert f'must be 0 to {outputs - 1}, outputs of the model: 0 to 9' in missing(page)


IMPOSSIBLE = [
    ('step', 10**400), ('step', -1), ('step', 2.5), ('step', True), ('epoch', float('nan')),
    ('epoch', float('inf')), ('epoch', -3), ('seconds', 10**400), ('seconds', -1.0),
    ('accuracy', 10**400), ('accuracy', 7.0), ('accuracy', -1), ('accuracy', float('nan')),
    ('loss', 10**400), ('top5', 'x'), ('top5', [1] * 10_000), ('top5', 10**400),
    ('images_per_second', None), ('images_per_second', {'a': 1}), ('step', 'x'), ('split', []),
    ('epoch', [0] * 10_000), ('loss', None),
]  # fmt: skip


@pytest.mark.slow
def test_impossible_metrics_are_left_out(run):
    path = run / 'metrics.jsonl'
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for name, value in IMPOSSIBLE:
        wrong = {key: inner for key, inner in lines[0].items() if key != files.CHECK}
        wrong[name] = value  # without a check, as a hand writes it
        path.write_text(''.join(json.dumps(line) + '\n' for line in [wrong, *lines[1:]]))
        (held,) = collect([run], noted := [])
        needed = name not in ('top5', 'images_per_second')
        assert len(held.records) == len(lines) - needed, (name, value)
        number = isinstance(value, int | float) or name == 'accuracy'
        assert any('have impossible numbers' in line for line in noted) == (needed and number)
        (group,) = grouped([held])
        assert report.sections.results([group]) and report.sections.curves([group])
        if value == 10**400:
            assert report.sections.cost([group])


@pytest.mark.slow
@pytest.mark.parametrize('changed', [{}, {'optim.train': 'head.*'}, {'distill.teacher': 'x'}])
def test_training_compute_counts_executed_operations_or_is_left_out(run, changed):
    experiment = runs.read_experiment(run)
    for path, value in changed.items():
        experiment = fields.replace(experiment, path, value)
    runs.write_experiment(run, experiment)
    (group,) = grouped(collect([run], []))
    *_, trained = report.sections._arithmetic(group)
    assert (trained == '-') == bool(changed)


def test_non_numeric_predictions_are_computed_again(run):
    count = len(runs.records.read_predictions(run)['labels'])
    for wrong in ('x', 10**400, None, 0.5):
        values = {name: [wrong] * count for name in ('labels', 'predicted', 'probability')}
        runs.records.write_predictions(run, values)
        (one,) = collect([run], [])
        assert len(predictions_of(one).labels) == count


def test_a_notebook_shows_a_report(run):
    made = report.make([run], details=0)
    assert made._repr_html_().startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    assert not made.tables and not (run / 'report.html').exists()


def test_images_are_decoded_when_they_are_shown(tmp_path):
    """A page of 1,000 classes decoded all test images, to show 26 of them."""
    for name in ('train/a/0.png', 'test/a/0.png', 'train/b/0.png', 'test/b/0.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    source = Source(f'folder:{tmp_path}')
    experiment = dataclasses.replace(TINY, data=source, preprocessing=Preprocessing(8))
    found = images(experiment, 'test').images
    assert not isinstance(found, np.ndarray) and found[np.array([1])].shape == (1, 8, 8, 3)


def test_a_run_given_twice_is_one_run(run, tmp_path):
    (tmp_path / 'link').symlink_to(run)
    runs_of = collect([run, f'{run}/', tmp_path / 'link'], noted := [])
    assert [each.name for each in runs_of] == [run.name] and len(noted) >= 2
    assert 'counted once' in noted[0]


def test_runs_have_the_shortest_distinct_names(run, tmp_path):
    for cell in ('a', 'b'):
        shutil.copytree(run, tmp_path / 'abl' / 'cells' / cell / 'seed_0')
    names = [each.name for each in collect([tmp_path / 'abl'], [])]
    assert names == ['a/seed_0', 'b/seed_0']


def test_an_ablation_whose_cells_all_failed_says_why(tmp_path):
    (tmp_path / 'cells' / 'a').mkdir(parents=True)
    (tmp_path / 'cells' / 'a' / 'failure.txt').write_text('depth must be 1 or more\nTraceback')
    with pytest.raises(ValueError, match=r'has none; cell a failed: depth must be 1 or more\.$'):
        report.write([tmp_path])


def test_paths_without_a_run_are_an_error_of_one_line(tmp_path):
    for path in (tmp_path, tmp_path / 'none', tmp_path / 'a.txt'):
        with pytest.raises(ValueError, match=r'^a run has an experiment.json [^\n]*$'):
            report.write([path])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('model', [MULTI, CONVNET.clone(widths=(4,))])
def test_every_kind_of_model_shows_attention_or_evidence(tmp_path, model):
    model = model.clone(num_classes=10)
    experiment = dataclasses.replace(
        TINY, model=model, preprocessing=Preprocessing(8, crop=1.0),
        optim=dataclasses.replace(TINY.optim, ema=0.0),
    )  # fmt: skip
    params = random_params(model, np.zeros((1, 8, 8, 3), np.float32))
    runs.write(tmp_path / 'run', experiment, params)
    page = parsed([tmp_path / 'run'])
    assert 'Worst mistakes.' in page.said and 'attention: ' not in missing(page)


@pytest.mark.slow
def test_a_failing_report_does_not_harm_its_run(run, monkeypatch):
    assert report.attempt(run) == f'report: {run}/report.html\n'
    links = Parsed((run / 'report.html').read_text()).links
    again = parsed([run], attention=False).links
    assert len(links) == len(again) + 2 and {*again} < {*links}  # the same figures, to the byte

    def fails(*_, **__):
        raise KeyError('a fault of ours')

    monkeypatch.setattr(report, 'write', fails)
    said = report.attempt(run)
    assert said.startswith('there is no report: ') and said.count('\n') == 1
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    assert report.attempt(run) == ''
