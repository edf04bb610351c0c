import csv
import dataclasses
import math
import shutil
import sys

import jax
import numpy as np
import pytest
from tiny_ablation import GRID, TINY

from vitjax import ablation, loop, runs
from vitjax.ablation import launch
from vitjax.experiment.optim import Optim
from vitjax.training import layout


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def losses(run):
    return [r['loss'] for r in runs.records.read_metrics(run)]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('ablation')
    return out, ablation.run(ablation.cells(TINY, GRID), 2, out, quiet=True)


@pytest.mark.slow
def test_every_cell_is_trained_and_stands_in_the_table(finished):
    out, rows = finished
    assert [row['status'] for row in rows] == ['finished', 'failed', 'finished']
    assert rows[1]['reason'].startswith('patch_size must divide the image')
    written = table(out / 'results.csv')
    assert [row['model.patch_size'] for row in written] == ['2', '3', '4']
    seeds = table(out / 'seeds.csv')
    assert [(row['model.patch_size'], row['seed']) for row in seeds] == [
        ('2', '0'), ('2', '1'), ('4', '0'), ('4', '1'),
    ]  # fmt: skip
    for name in ablation.ACCURACIES:
        mine = [float(row[name]) for row in seeds[:2]]
        assert float(written[0][name]) == pytest.approx(ablation.interval(mine)[0])
        # Two seeds are too few for an interval of accuracies: empty cells, and no "nan".
        assert [written[0][f'{name}{end}'] for end in ('_low', '_high')] == ['', '']
    assert float(written[2]['train_flops']) == ablation.cost(
        ablation.cells(TINY, GRID)[2].experiment
    )['train_flops']  # fmt: skip
    rate = float(written[0]['images_per_second'])
    assert rate * float(written[0]['seconds']) == pytest.approx(2 * 6 * 64)
    names = {path.name for path in (out / 'figures').iterdir()}
    assert names == {'accuracy_model.patch_size.png', 'accuracy_flops.png'}


@pytest.mark.slow
def test_a_seed_is_a_run_like_any_other(finished, tmp_path):
    out, rows = finished
    run = out / 'cells' / 'model.patch_size-2' / 'seed_1'
    experiment = runs.load(run).experiment
    assert experiment.seed == 1 and experiment.model == TINY.model.clone(patch_size=2)
    alone = loop.train(
        dataclasses.replace(TINY, model=experiment.model, seed=1), tmp_path / 'run', quiet=True
    )
    np.testing.assert_allclose(losses(run), losses(tmp_path / 'run'), rtol=1e-4)
    assert alone['accuracy'] == runs.records.read_metrics(run)[-1]['accuracy']


@pytest.mark.slow
def test_finished_runs_are_found_by_cell_and_seed(finished, tmp_path):
    out, _ = finished
    found = ablation.finished(out)
    assert {cell: [*own] for cell, own in found.items()} == {
        'model.patch_size-2': [0, 1], 'model.patch_size-4': [0, 1]
    }  # fmt: skip
    assert found['model.patch_size-4'][1] == out / 'cells' / 'model.patch_size-4' / 'seed_1'
    with pytest.raises(ValueError, match='has finished runs in cells/CELL/seed_K: .* has none'):
        ablation.finished(tmp_path)


@pytest.mark.slow
def test_folders_of_an_earlier_version_are_found(finished, tmp_path):
    out, rows = finished
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    for folder in (tmp_path / 'cells').iterdir():
        folder.rename(folder.with_name(folder.name.replace('-', '=')))
    again = ablation.run(
        ablation.cells(TINY, {'model.patch_size': (2, 4)}), 2, tmp_path, quiet=True
    )
    assert str(again) == str([rows[0], rows[2]])  # of two seeds there is no interval: NaN
    assert not [*(tmp_path / 'cells').glob('*-*')]


@pytest.mark.slow
def test_finished_cells_are_not_run_again_and_failed_ones_are(finished, monkeypatch):
    out, rows = finished
    tried = []

    def failing(experiment, *args, **options):
        tried.append(experiment.model.patch_size)
        raise ValueError('once more')

    monkeypatch.setattr(loop, 'train_seeds', failing)
    again = ablation.run(ablation.cells(TINY, GRID), 2, out, quiet=True, formats=('pdf',))
    assert (out / 'figures' / 'accuracy_flops.pdf').exists()
    assert tried == [3] and again[1]['reason'] == 'once more'
    np.testing.assert_equal([again[0], again[2]], [rows[0], rows[2]])  # NaN is NaN


@pytest.mark.slow
def test_another_configuration_in_a_cell_s_folder_is_refused_before_anything_runs(finished):
    out, _ = finished
    before = (out / 'results.csv').read_bytes()
    changed = dataclasses.replace(TINY, optim=Optim(peak=1e-3))
    with pytest.raises(ValueError, match='optim.peak: 0.003 -> 0.001'):
        ablation.run(ablation.cells(changed, {'model.patch_size': (1, 2)}), 2, out, quiet=True)
    assert (out / 'results.csv').read_bytes() == before
    assert not (out / 'cells' / 'model.patch_size-1').exists()


@pytest.mark.slow
def test_a_cell_that_diverges_is_noted_and_the_rest_goes_on(tmp_path):
    wild = dataclasses.replace(TINY, optim=Optim(name='sgd', peak=1e-3, warmup=0.0, clip=0.0))
    rows = ablation.run(ablation.cells(wild, {'optim.peak': (1e20, 1e-3)}), 1, tmp_path, quiet=True)
    assert [row['status'] for row in rows] == ['failed', 'finished']
    assert 'must stay finite' in rows[0]['reason']
    assert 'Traceback' in (tmp_path / 'cells' / 'optim.peak-1e+20' / 'failure.txt').read_text()
    assert math.isnan(rows[1]['test_accuracy_low'])  # one seed has no interval


def test_seeds_that_do_not_fit_together_train_one_after_the_other(tmp_path, monkeypatch):
    groups = []

    def small(experiment, runs, **options):
        groups.append(list(runs))
        if len(runs) > 1 or experiment.model.depth == 2:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 byte')

    monkeypatch.setattr(loop, 'train_seeds', small)
    runs = {seed: tmp_path / 'cell' / f'seed_{seed}' for seed in (0, 1)}
    ablation.train_cell(TINY, runs)
    assert groups == [[0, 1], [0], [1]] and not (tmp_path / 'cell' / 'failure.txt').exists()
    ablation.train_cell(dataclasses.replace(TINY, model=TINY.model.clone(depth=2)), runs)
    assert 'RESOURCE_EXHAUSTED' in (tmp_path / 'cell' / 'failure.txt').read_text().splitlines()[0]


@pytest.mark.slow
def test_cells_share_the_devices(finished, tmp_path):
    """Eight simulated devices take three cells at the same time, each as it is alone."""
    assert len(jax.devices()) == 8
    out, rows = finished
    used = set()
    make = layout.layout

    def noted(way, devices, **options):
        used.update(devices)
        return make(way, devices, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, 'layout', noted)
        again = ablation.run(ablation.cells(TINY, GRID), 2, tmp_path, quiet=True)
    assert len(used) == 3
    for a, b in zip(rows, again, strict=True):
        assert a.get('test_accuracy') == b.get('test_accuracy') and a['reason'] == b['reason']


@pytest.mark.slow
def test_cells_run_as_jobs_of_submitit(finished, tmp_path):
    out, rows = finished
    made = ablation.cells(TINY, {'model.patch_size': (3, 4)})
    again = ablation.run(made, 2, tmp_path, launcher='processes', quiet=True)
    assert [row['status'] for row in again] == ['failed', 'finished']
    assert again[0]['reason'] == rows[1]['reason']
    assert again[1]['test_accuracy'] == rows[2]['test_accuracy']
    assert any((tmp_path / 'jobs').iterdir())


def test_a_job_that_is_stopped_early_is_submitted_again_as_it_was():
    pytest.importorskip('submitit')
    job = ablation.Job()
    again = job.checkpoint('{}', {0: 'run'})
    assert isinstance(again.function, ablation.Job) and again.args == ('{}', {0: 'run'})


def test_a_job_that_dies_without_a_word_is_a_failure(tmp_path):
    class Dead:
        def exception(self):
            return RuntimeError('killed by signal 9')

    launch.note_lost(Dead(), {0: tmp_path / 'cell' / 'seed_0'})
    assert 'killed by signal 9' in (tmp_path / 'cell' / 'failure.txt').read_text()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'seeds': 0}, 'seeds must be a whole number, from 1 to 1,024: 0'),
        ({'launcher': 'pbs'}, 'launcher must be'),
        ({'launcher': 'processes', 'settings': {'nonsense': 1}}, 'submitit refuses'),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        ablation.run(ablation.cells(TINY, GRID), options.pop('seeds', 1), tmp_path, **options)


def test_a_launcher_without_submitit_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ValueError, match=r'pip install -e .\.\[cluster\]'):
        ablation.run(ablation.cells(TINY, GRID), 1, tmp_path, launcher='slurm', quiet=True)
