import dataclasses
import json

import jax
import numpy as np
import pytest

from vitjax import runs
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, from_json, to_json
from vitjax.experiment.optim import Optim
from vitjax.models import ViT
from vitjax.runs import checkpoint, records

MODEL = ViT(patch_size=4, width=8, depth=2, num_heads=2, num_classes=3)
EXPERIMENT = Experiment(MODEL, preprocessing=Preprocessing(size=8), classes=('a', 'b', 'c'))


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    params = MODEL.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    out = tmp_path_factory.mktemp('runs') / 'run'
    runs.write(out, EXPERIMENT, params)
    return out


def test_a_run_opens_as_it_was_written(written):
    loaded = runs.load(written)
    assert to_json(loaded.experiment) == to_json(EXPERIMENT) and loaded.changes == ()


def test_a_run_opens_at_other_sizes_and_says_what_changed(written):
    told = []
    loaded = runs.load(written, image_size=16, num_classes=5, report=told.append)
    assert loaded.experiment.model == MODEL.clone(num_classes=5)
    prepared = loaded.experiment.preprocessing
    assert prepared.size == loaded.experiment.augment.size == 16
    assert loaded.experiment.classes == ()
    assert [change.what for change in loaded.changes] == ['positions', 'head']
    assert list(loaded.changes) == told
    table = loaded.params['embed']['position']['table']
    assert table.shape == (1 + 16, 8) and loaded.params['head']['output']['kernel'].shape == (8, 5)


def test_a_run_has_no_other_model(written):
    with pytest.raises(ValueError, match='a run directory knows its model'):
        runs.load(written, model='vit_tiny_patch16')


@pytest.mark.parametrize('channels', [1, 4, 5])
def test_parameters_that_load_would_refuse_are_not_written(tmp_path, channels):
    images = np.zeros((1, 8, 8, channels), np.float32)
    params = MODEL.init(jax.random.key(0), images)['params']
    with pytest.raises(ValueError, match=rf'3 channels.*\n.*is float32\[{16 * channels}, 8\]'):
        runs.write(tmp_path / 'run', EXPERIMENT, params)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        (None, 'has none'),
        ('{"model"', 'cannot be read'),
        ('{"model": {"type": "Swin"}}', "model.type must be 'ViT', .*: 'Swin'"),
    ],
)
def test_other_directories_are_not_runs(tmp_path, text, match):
    if text is not None:
        (tmp_path / 'experiment.json').write_text(text)
    with pytest.raises(ValueError, match=match):
        runs.read_experiment(tmp_path)


@pytest.mark.parametrize(
    ('given', 'match'),
    [
        ('digits', 'is an experiment: .*train.* digits makes a run of it, runs/digits'),
        ('vit_tiny_patch16', 'is a model without weights'),
        ('{run}/experiment.json', 'is a file of a run: give the run, .*run'),
        ('{run}/checkpoints', '(?s)has none.*lies in the run .*run'),
        ('{up}/ablation', '(?s)has none.*is an ablation: give one of its runs, as in .*seed_0'),
        ('{up}/capture', '(?s)has none.*is a capture'),
    ],
)
def test_the_error_for_another_path_says_which_one_to_give(written, tmp_path, given, match):
    (tmp_path / 'ablation' / 'cells' / 'depth-2' / 'seed_0').mkdir(parents=True)
    (tmp_path / 'capture').mkdir()
    for name in ('index.json', 'examples.npy'):
        (tmp_path / 'capture' / name).touch()
    with pytest.raises(ValueError, match=match):
        runs.load(given.format(run=written, up=tmp_path))


def test_experiments_of_earlier_versions_read():
    """Those of published weights claimed to be of digits."""

    values = to_json(EXPERIMENT)
    assert values['data'] is None
    values['data'] = {'name': 'digits', 'dir': None, 'validation': 0.1, 'test': 0.2}
    source = from_json(json.loads(json.dumps(values))).data
    assert source is not None and source.name == 'digits'


def test_links_do_not_lead_out_of_a_run(tmp_path, written):
    (tmp_path / 'metrics.txt').write_text('precious')
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'metrics.jsonl').symlink_to(tmp_path / 'metrics.txt')
    (run / 'experiment.json').symlink_to(written / 'experiment.json')
    (run / 'checkpoints').symlink_to(written / 'checkpoints')
    (run / 'figures').symlink_to(tmp_path)
    for call in (
        lambda: records.append(run, {'step': 1}),
        lambda: records.rewind(run, 1),
        lambda: runs.read_experiment(run),
        lambda: runs.write_experiment(run, EXPERIMENT),
        lambda: checkpoint.steps(run),
        lambda: records.save_figure(None, run, 'a.png'),
    ):
        with pytest.raises(ValueError, match=f'^{run}/.* leads out of {run}.$'):
            call()
    (tmp_path / 'link').symlink_to(written)  # to a whole run, which anybody may keep elsewhere
    assert to_json(runs.load(tmp_path / 'link').experiment) == to_json(EXPERIMENT)


def test_parameters_that_are_not_finite_are_refused(tmp_path):
    params = MODEL.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    params = jax.tree.map(np.array, params)
    params['head']['output']['kernel'][1, 1] = np.nan
    runs.write(tmp_path / 'run', EXPERIMENT, params)
    with pytest.raises(ValueError, match='must be finite: head/output/kernel of .*run is not'):
        runs.load(tmp_path / 'run')


def test_another_configuration_is_named(written):
    runs.require_same(dataclasses.replace(EXPERIMENT, classes=()), written)
    with pytest.raises(ValueError, match='seed: 0 -> 4'):
        runs.require_same(dataclasses.replace(EXPERIMENT, seed=4), written)
    runs.require_same(EXPERIMENT, written.parent / 'new')


def test_16_bits_are_stored_and_said_and_read_as_32(tmp_path, capsys):
    experiment = dataclasses.replace(EXPERIMENT, optim=Optim(ema=0.9))
    params = MODEL.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
    runs.write(tmp_path / 'half', experiment, params, dtype='float16')
    place = str(tmp_path).encode()  # a run that is shared tells nothing of where it was written
    assert not any(place in f.read_bytes() for f in (tmp_path / 'half').rglob('*') if f.is_file())
    loaded = runs.load(tmp_path / 'half')
    assert capsys.readouterr().out == 'parameters: stored as float16\n'
    halves = jax.tree.map(lambda x: x.astype('float16').astype('float32'), params)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, halves)
    assert {x.dtype for x in jax.tree.leaves(loaded.params)} == {np.dtype('float32')}
    with pytest.raises(ValueError, match='must be finite: .* of .*/large in float16 is not'):
        large = jax.tree.map(lambda x: x + 1e5, params)
        runs.write(tmp_path / 'large', experiment, large, dtype='float16')
    assert [path.name for path in tmp_path.iterdir()] == ['half']
