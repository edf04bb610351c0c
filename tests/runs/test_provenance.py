"""Data and weights that change between the sessions of a run."""

import dataclasses
import os
import pathlib
import shutil
from typing import Any

import evaluate
import jax
import numpy as np
import pytest
from helpers import TINY, assert_equal, random_like
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_vit import tiny

from vitjax import ablation, loop, report, runs
from vitjax.data.kinds import load
from vitjax.data.source import Data, Source
from vitjax.experiment.distill import Distill
from vitjax.experiment.optim import Optim
from vitjax.models.base import parameter_shapes
from vitjax.runs import checkpoint, provenance
from vitjax.training import trainer


def images(folder, classes='abc', count=12, seed=0):
    """Folders of small images, as many of each class."""
    rng = np.random.default_rng(seed)
    for i, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(50 * i, 50 * i + 100, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f'{k:02}.png')
    return folder


def experiment_on(folder, **more):
    model = TINY.model.clone(num_classes=3)
    data = Source(f'folder:{folder}', validation=0.2)
    return dataclasses.replace(TINY, model=model, data=data, batch_size=8, epochs=3, **more)


def stopped(experiment, out):
    """A run that was killed before its last checkpoint."""
    save, saved = checkpoint.save, []

    def killed(*args, **options):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(args[1])
        save(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, 'save', killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(experiment, out, quiet=True)
    return out


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    """Images, a run on them that was stopped, and one that was not."""
    folder = tmp_path_factory.mktemp('begun')
    experiment = experiment_on(images(folder / 'images'))
    loop.train(experiment, folder / 'whole', quiet=True)
    return folder, stopped(experiment, folder / 'run')


@pytest.fixture
def copy(begun, tmp_path):
    """A copy of them: the images, the run's directory, and the experiment of both."""
    shutil.copytree(begun[0], tmp_path, dirs_exist_ok=True)
    experiment = experiment_on(tmp_path / 'images')
    for run in (tmp_path / 'run', tmp_path / 'whole'):  # as if they had been trained on the copy
        known = runs.read_experiment(run)
        runs.write_experiment(run, dataclasses.replace(known, data=experiment.data))
    return tmp_path / 'images', tmp_path / 'run', experiment


def rename_class(folder):
    (folder / 'c').rename(folder / 'd')


def rename_class_to_the_front(folder):
    (folder / 'c').rename(folder / '_c')


def add(folder):
    Image.new('RGB', (8, 8)).save(folder / 'a' / 'zz.png')


def remove(folder):
    (folder / 'b' / '03.png').unlink()


def rename(folder):
    (folder / 'a' / '03.png').rename(folder / 'a' / 'x.png')


def repaint(folder):
    Image.new('RGB', (8, 8), 'white').save(folder / 'a' / '03.png')


def add_class(folder):
    shutil.copytree(folder / 'c', folder / 'd')


def swap(folder):
    (folder / 'a').rename(folder / 'x')
    (folder / 'b').rename(folder / 'a')
    (folder / 'x').rename(folder / 'b')


def move(folder):
    (folder / 'a' / '03.png').rename(folder / 'b' / '99.png')


CHANGES = {
    rename_class: 'class names c -> d',
    rename_class_to_the_front: 'class names c -> _c',
    add: r'\d+ -> \d+ training images', remove: r'\d+ -> \d+ (training|validation|test) images',
    rename: 'the training images', repaint: 'the (training|validation|test) images',
    add_class: 'class names none -> d',
    swap: 'the (training|validation|test) images', move: 'the labels of the',
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('change', CHANGES, ids=lambda change: change.__name__)
def test_changed_data_are_refused_with_what_differs(copy, change):
    folder, run, experiment = copy
    change(folder)
    before = contents(run)
    with pytest.raises(ValueError, match=f'was trained on other data.*{CHANGES[change]}') as error:
        loop.train(experiment, run, quiet=True)
    assert 'another --out' in str(error.value) and len(str(error.value).splitlines()) == 2
    assert contents(run) == before


@pytest.mark.slow
def test_touched_and_moved_data_resume_to_the_same_bits(begun, copy):
    folder, run, _ = copy
    for path in folder.rglob('*'):
        os.utime(path, (1, 1))
    folder.rename(folder.with_name('elsewhere'))
    experiment = experiment_on(folder.with_name('elsewhere'))
    loop.train(experiment, run, quiet=True)
    found, wanted = (runs.load(r, which='latest').params for r in (run, begun[0] / 'whole'))
    assert_equal(*(jax.tree.map(np.asarray, params) for params in (found, wanted)))
    assert runs.read_experiment(run).data == experiment.data


@pytest.mark.slow
def test_another_folder_is_another_experiment(copy, tmp_path):
    _, run, experiment = copy
    other = experiment_on(images(tmp_path / 'others', seed=1))
    with pytest.raises(ValueError, match='was trained on other data'):
        loop.train(other, run, quiet=True)
    more = dataclasses.replace(experiment.data, validation=0.3)
    with pytest.raises(
        ValueError, match=r'another configuration(.|\n)*data.validation: 0.2 -> 0.3'
    ):
        loop.train(dataclasses.replace(experiment, data=more), run, quiet=True)


@pytest.mark.slow
def test_a_finished_run_says_that_its_data_changed(begun, copy, tmp_path, capsys):
    folder, _, experiment = copy
    whole = tmp_path / 'whole'
    loop.train(experiment, whole)
    assert 'changed' not in capsys.readouterr().out
    rename_class(folder)
    loop.train(experiment, whole)
    said = capsys.readouterr().out
    assert f'the data of {whole} changed' in said and 'c -> d' in said and 'is finished' in said
    other = experiment_on(images(tmp_path / 'others', seed=1))
    with pytest.raises(ValueError, match='changed since it was trained.*choose another --out'):
        loop.train(other, whole, quiet=True)
    shutil.rmtree(folder)
    loop.train(experiment, whole)
    assert 'cannot be compared' in capsys.readouterr().out


@pytest.mark.slow
def test_evaluation_and_report_say_that_data_changed(copy, tmp_path, capsys):
    folder, _, _ = copy
    whole = tmp_path / 'whole'
    evaluate.main(str(whole))
    said = capsys.readouterr().out
    assert 'changed' not in said and 'test (held out of its training images)' in said
    assert 'changed' not in report.write([whole], attention=False).read_text()
    add(folder)
    evaluate.main(str(whole))
    assert f'the data of {whole} changed since it was trained' in capsys.readouterr().out
    assert 'changed since it was trained' in report.write([whole], attention=False).read_text()


@pytest.mark.slow
def test_evaluation_and_report_say_that_training_images_changed(copy, tmp_path, capsys):
    folder, _, experiment = copy
    whole, known = tmp_path / 'whole', load(experiment.data, 'test').images
    for path in sorted(folder.rglob('*.png')):
        if not (known == np.asarray(Image.open(path))).all((1, 2, 3)).any():
            Image.new('RGB', (8, 8), 'white').save(path)
            break
    assert np.array_equal(load(experiment.data, 'test').images, known)
    evaluate.main(str(whole))
    assert 'the data of' in (said := capsys.readouterr().out) and 'test images' not in said
    assert 'changed since it was trained' in report.write([whole], attention=False).read_text()


@pytest.mark.slow
def test_evaluation_on_other_data_does_not_say_that_they_changed(copy, tmp_path, capsys):
    other = images(tmp_path / 'others', seed=1)
    evaluate.main(str(tmp_path / 'whole'), data=f'folder:{other}')
    said = capsys.readouterr().out
    assert 'changed' not in said and f'folder:{other} has other test images than' in said


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:No artists with labels')
def test_finished_cells_of_an_ablation_say_it_too(copy, tmp_path, capsys):
    folder, _, experiment = copy
    cells = ablation.cells(experiment, {'optim.peak': (3e-3,)})
    seed = tmp_path / 'out' / 'cells' / cells[0].folder / 'seed_0'
    shutil.copytree(tmp_path / 'whole', seed)
    ablation.run(cells, 1, tmp_path / 'out')
    said = capsys.readouterr().out
    assert '1 cells are finished' in said and 'changed' not in said
    remove(folder)
    ablation.run(cells, 1, tmp_path / 'out')
    assert f'the data of {seed} changed since it was trained' in capsys.readouterr().out


@pytest.mark.slow
def test_seeds_that_train_together_are_refused_together(copy, tmp_path):
    folder, _, experiment = copy
    outs = {seed: tmp_path / f'seed_{seed}' for seed in (0, 1)}
    (tmp_path / 'run').rename(outs[0])
    repaint(folder)
    with pytest.raises(ValueError, match='seed_0 was trained on other data'):
        loop.train_seeds(experiment, outs, quiet=True)


@pytest.mark.slow
def test_checkpoints_of_an_earlier_version_resume_with_a_line(copy, monkeypatch, capsys):
    folder, run, experiment = copy
    monkeypatch.setattr(checkpoint, 'position', lambda run: {'epoch': 0})
    add(folder)
    loop.train(experiment, run)
    said = capsys.readouterr().out
    assert f'{run} does not record its data (an earlier version wrote it): not checked' in said
    assert 'resumed from step' in said


@pytest.mark.slow
@pytest.mark.parametrize('what', ['weights', 'teacher'])
def test_weights_that_were_replaced_are_refused(copy, tmp_path, what):
    _, run, experiment = copy
    first = tmp_path / 'first'

    def write(seed):
        shutil.rmtree(first, ignore_errors=True)
        params = random_like(parameter_shapes(experiment.model, 8), seed=seed)
        runs.write(first, dataclasses.replace(experiment, optim=Optim()), params)

    write(0)
    more: Any = {'weights': str(first)} if what == 'weights' else {'distill': Distill(str(first))}
    experiment = dataclasses.replace(experiment, **more)
    known = provenance.recorded(run)
    assert known and what not in known
    begun_with = {**known, what: provenance.of_weights(first)}
    write(1)
    found = provenance.of_run(trainer.make(experiment).experiment, loop.load_data)
    assert {name: found[name] == begun_with[name] for name in found} == {'data': True, what: False}
    said = {'weights': 'the initial weights', 'teacher': "the teacher's weights"}[what]
    assert provenance.differences(begun_with, found) == [said]


def test_the_digest_of_a_weights_file_is_of_its_tensors(tmp_path):
    weights = tiny()
    save_file(weights, tmp_path / 'a.safetensors')
    np.savez(tmp_path / 'b.npz', allow_pickle=False, **weights)
    same = provenance.of_weights(tmp_path / 'a.safetensors')
    assert provenance.of_weights(tmp_path / 'b.npz') == same
    changed = load_file(tmp_path / 'a.safetensors')
    name = next(iter(changed))
    changed[name] = changed[name] + 1
    save_file(changed, tmp_path / 'c.safetensors')
    assert provenance.of_weights(tmp_path / 'c.safetensors') != same


def test_differences_are_named_once_and_only_if_known():
    data = Data(np.zeros((4, 2, 2, 3), np.uint8), np.arange(4) % 2, ('a', 'b'), digest='x')
    old = {'data': {split: provenance.of_data(data) for split in ('train', 'test')}}
    assert provenance.differences(old, old) == []
    other = dataclasses.replace(data, classes=('b', 'a'))
    new = {'data': {split: provenance.of_data(other) for split in ('train', 'test')}}
    found = provenance.differences(old, new, (data.classes, other.classes))
    assert found == ['class names in another order']
    unknown = {'data': {'test': provenance.of_data(dataclasses.replace(data, digest=''))}}
    assert provenance.differences(old, unknown) == []
    assert provenance.remark(pathlib.Path('weights.npz'), {}) == ''
