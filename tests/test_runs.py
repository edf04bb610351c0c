import dataclasses
import json

import jax
import numpy as np
import pytest

from vitjax import runs
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment
from vitjax.models import ViT

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
    assert loaded.experiment == EXPERIMENT and loaded.changes == ()


def test_a_run_opens_at_other_sizes_and_says_what_changed(written):
    told = []
    loaded = runs.load(written, image_size=16, num_classes=5, report=told.append)
    assert loaded.experiment.model == MODEL.clone(num_classes=5)
    prepared = loaded.experiment.preprocessing
    assert prepared is not None and prepared.size == loaded.experiment.augment.size == 16
    assert loaded.experiment.classes == ()
    assert [change.what for change in loaded.changes] == ['positions', 'head']
    assert list(loaded.changes) == told
    table = loaded.params['embed']['position']['table']
    assert table.shape == (1 + 16, 8) and loaded.params['head']['output']['kernel'].shape == (8, 5)


def test_a_run_has_no_other_model(written):
    with pytest.raises(ValueError, match='a run directory knows its model'):
        runs.load(written, model='vit_tiny_patch16')


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        (None, 'has none'),
        ('{"model"', 'cannot be read'),
        ('{"model": {"type": "Swin"}}', "one of ViT, .*: 'Swin'"),
    ],
)
def test_what_is_no_run(tmp_path, text, match):
    if text is not None:
        (tmp_path / 'experiment.json').write_text(text)
    with pytest.raises(ValueError, match=match):
        runs.read_experiment(tmp_path)


def test_experiments_of_earlier_versions_read():
    """Those of published weights claimed to be of digits."""
    from vitjax.experiment import from_json, to_json

    values = to_json(EXPERIMENT)
    assert values['data'] is None
    values['data'] = {'name': 'digits', 'dir': None, 'validation': 0.1, 'test': 0.2}
    source = from_json(json.loads(json.dumps(values))).data
    assert source is not None and source.name == 'digits'


def test_lines_after_a_checkpoint_are_dropped(tmp_path):
    for step in (1, 2, 3):
        runs.append(tmp_path, {'step': step, 'epoch': 0.0, 'split': 'train', 'loss': 0.5 * step})
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 4, "spl')  # a kill in the middle of a line
    assert [r['step'] for r in runs.read_metrics(tmp_path)] == [1, 2, 3]
    assert [r['step'] for r in runs.rewind(tmp_path, 2)] == [1, 2]
    assert [r['step'] for r in runs.read_metrics(tmp_path)] == [1, 2]
    assert runs.tested(tmp_path) is None
    runs.append(tmp_path, {'step': 3, 'epoch': 0.0, 'split': 'test', 'loss': 0.1, 'seconds': 1.0})
    record = runs.tested(tmp_path)
    assert record is not None and record['loss'] == 0.1
    assert runs.rewind(tmp_path, 0) == [] and runs.read_metrics(tmp_path) == []


def test_another_configuration_is_named(written):
    runs.require_same(dataclasses.replace(EXPERIMENT, classes=()), written)
    with pytest.raises(ValueError, match='seed: 0 -> 4'):
        runs.require_same(dataclasses.replace(EXPERIMENT, seed=4), written)
    runs.require_same(EXPERIMENT, written.parent / 'new')
