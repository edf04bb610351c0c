import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax import runs
from vitjax.base import files
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, to_json
from vitjax.experiment.optim import Optim
from vitjax.models import ViT
from vitjax.runs import checkpoint

MODEL = ViT(patch_size=4, width=8, depth=2, num_heads=2, num_classes=3)
EXPERIMENT = Experiment(MODEL, preprocessing=Preprocessing(size=8), classes=('a', 'b', 'c'))


@pytest.fixture(scope='module')
def params():
    return MODEL.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_a_written_run_loads(tmp_path, params):
    runs.write(tmp_path / 'deep' / 'run', EXPERIMENT, params)
    for which in ('best', 'latest'):
        experiment, loaded, _ = runs.load(tmp_path / 'deep' / 'run', which=which)
        assert to_json(experiment) == to_json(EXPERIMENT) and equal(loaded, params)
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['run']  # no draft is left


def test_a_write_that_fails_leaves_nothing(tmp_path, params):
    wrong = dataclasses.replace(EXPERIMENT, seed=np.zeros(2))  # no JSON value
    with pytest.raises(TypeError):
        runs.write(tmp_path / 'run', wrong, params)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, params):
    (tmp_path / 'mine').write_text('precious')
    with pytest.raises(ValueError, match='must be new or empty'):
        runs.write(tmp_path, EXPERIMENT, params)
    assert (tmp_path / 'mine').read_text() == 'precious'


@pytest.mark.parametrize('name', ['notes.draft', f'mine{files.DRAFT}'])
@pytest.mark.parametrize('folder', [False, True])
def test_drafts_of_others_are_not_removed(tmp_path, params, name, folder):
    out = tmp_path / 'run'
    mine = out / name / 'mine' if folder else out / name
    mine.parent.mkdir(parents=True)
    mine.write_text('precious')
    with pytest.raises(ValueError, match='must be new or empty'):
        runs.write(out, EXPERIMENT, params)
    assert mine.read_text() == 'precious' and [p.name for p in tmp_path.iterdir()] == ['run']


def test_a_run_with_a_draft_of_an_earlier_version_loads(tmp_path, params):
    runs.write(tmp_path / 'run', EXPERIMENT, params)
    (tmp_path / 'run' / 'experiment.json.draft').write_text('{"mod')
    runs.require_same(EXPERIMENT, tmp_path / 'run')
    assert to_json(runs.load(tmp_path / 'run').experiment) == to_json(EXPERIMENT)
    assert (tmp_path / 'run' / 'experiment.json.draft').exists()


def test_the_latest_and_the_best_are_kept(tmp_path, params):
    runs.write_experiment(tmp_path, EXPERIMENT)
    accuracies = [0.1, 0.7, 0.3, 0.2]
    for steps in (range(2), range(2, 4)):  # a new process in between must know the best so far
        with checkpoint.writing(tmp_path) as manager:
            for step in steps:
                tree = jax.tree.map(lambda x, s=step: x + s, params)
                metrics = {'accuracy': accuracies[step]}
                checkpoint.save(manager, step, {'params': tree}, {'epoch': step}, metrics)
    with checkpoint.writing(tmp_path) as manager:
        checkpoint.save(manager, 9, {'params': params}, {'epoch': 9})  # saved by a signal
    assert checkpoint.steps(tmp_path) == [1, 9]
    assert equal(runs.load(tmp_path).params, jax.tree.map(lambda x: x + 1, params))
    assert equal(runs.load(tmp_path, which='latest').params, params)


def test_nothing_is_deleted_while_a_save_goes_on(tmp_path, params, monkeypatch):
    empty, going = checkpoint._empty, []
    with checkpoint.writing(tmp_path) as manager:

        def noted(directory):
            going.append(manager.is_saving_in_progress())
            empty(directory)

        monkeypatch.setattr(checkpoint, '_empty', noted)
        for step in range(1, 9):
            checkpoint.save(manager, step, {'params': params}, {}, {'accuracy': 1 / step})
    assert len(going) == 9 and not any(going)
    assert checkpoint.steps(tmp_path) == [1, 8]


def test_the_average_is_loaded_if_there_is_one(tmp_path, params):
    experiment = dataclasses.replace(EXPERIMENT, optim=Optim(ema=0.9))
    runs.write_experiment(tmp_path, experiment)
    average = jax.tree.map(lambda x: x + 1, params)
    with checkpoint.writing(tmp_path) as manager:
        checkpoint.save(manager, 1, {'params': params, 'ema': average}, {})
    assert equal(runs.load(tmp_path).params, average)


@pytest.mark.slow
def test_optimizer_state_and_position_come_back(tmp_path, params):
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    _, state = tx.update(params, tx.init(params), params)
    with checkpoint.writing(tmp_path) as manager:
        checkpoint.save(
            manager, 7, {'params': params, 'opt_state': state}, {'epoch': 2, 'index': 5}
        )
    found = checkpoint.restore(tmp_path, 7, {'params': params, 'opt_state': state})
    assert equal(found['opt_state'], state) and found['position'] == {'epoch': 2, 'index': 5}
    assert jax.tree.structure(found['opt_state']) == jax.tree.structure(state)


def test_misfits_are_named_with_both_shapes(tmp_path, params):
    runs.write(tmp_path / 'run', EXPERIMENT, params)
    path = tmp_path / 'run' / 'experiment.json'
    values = json.loads(path.read_text())
    del values['digest']  # as who changes it is told to
    values['model'] |= {'num_classes': 5, 'registers': 1, 'qkv_bias': False}
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError) as error:
        runs.load(tmp_path / 'run')
    text = str(error.value)
    assert '- embed/registers float32[1, 8]' in text
    assert '+ blocks/attention/qkv/bias float32[2, 24]' in text
    assert 'head/output/kernel: is float32[8, 3], must be float32[8, 5]' in text


def test_runs_without_checkpoints(tmp_path):
    with pytest.raises(ValueError, match='has an experiment.json'):
        runs.load(tmp_path)
    runs.write_experiment(tmp_path, EXPERIMENT)
    with pytest.raises(ValueError, match='no checkpoint yet'):
        runs.load(tmp_path)
    with pytest.raises(ValueError, match="'best' or 'latest': 'newest'"):
        runs.load(tmp_path, which='newest')


def test_a_full_disk_is_noticed_before_the_first_byte(tmp_path, params, monkeypatch):
    with checkpoint.writing(tmp_path) as manager:
        checkpoint.save(manager, 1, {'params': params}, {})
        manager.wait_until_finished()
        monkeypatch.setattr(checkpoint.shutil, 'disk_usage', lambda path: SimpleNamespace(free=99))
        with pytest.raises(ValueError, match=r'needs 0.0 MiB, the disk of .* has 0.0 free'):
            checkpoint.save(manager, 2, {'params': params}, {})
        assert manager.all_steps() == [1]


@pytest.mark.parametrize('which', ['best', 'latest'])
@pytest.mark.parametrize('moment', ['damage', 'restore'])
def test_checkpoints_that_a_run_replaces_while_they_are_read(
    tmp_path, params, monkeypatch, capsys, which, moment
):
    """They were listed, and are gone when they are read: what has come instead is read."""
    runs.write_experiment(tmp_path, EXPERIMENT)
    call, came = getattr(checkpoint, moment), []

    def save(step, accuracy):
        with checkpoint.writing(tmp_path) as manager:
            tree = jax.tree.map(lambda x: x + step, params)
            checkpoint.save(manager, step, {'params': tree}, {}, {'accuracy': accuracy})

    def late(*args, **options):
        if not came:
            came.append(1)
            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, moment, call)
                save(2, 0.2)
                save(3, 0.9)
        return call(*args, **options)

    save(1, 0.1)
    monkeypatch.setattr(checkpoint, moment, late)
    found = runs.load(tmp_path, which=which).params
    assert equal(found, jax.tree.map(lambda x: x + 3, params)) and came
    assert capsys.readouterr().err == '' and checkpoint.steps(tmp_path) == [3]


def test_a_checkpoint_that_is_damaged_is_not_read_for_ever(tmp_path, params, monkeypatch):
    runs.write(tmp_path / 'run', EXPERIMENT, params)
    monkeypatch.setattr(checkpoint, 'damage', lambda *args, **options: 'it is damaged')
    with pytest.raises(ValueError, match='it is damaged'):
        runs.load(tmp_path / 'run')


def test_the_position_is_of_the_newest_checkpoint_that_is_whole(tmp_path, params):
    assert checkpoint.position(tmp_path) == {}
    with checkpoint.writing(tmp_path, keep_latest=2) as manager:
        for step in (1, 2):
            checkpoint.save(manager, step, {'params': params}, {'epoch': step})
    assert checkpoint.position(tmp_path) == {'epoch': 2}
    (tmp_path / 'checkpoints' / '2' / 'position' / 'metadata').write_text('{"epoch": 7}')
    assert checkpoint.position(tmp_path) == {'epoch': 1}
