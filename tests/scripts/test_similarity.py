"""The commands on a run of digits and on captures: what a researcher types, and what is written."""

import csv
import json
import subprocess
import sys

import capture
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import similarity

from vitjax import runs
from vitjax.analysis import similarity as measures
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT

MODEL = ViT(patch_size=4, width=16, depth=2, num_heads=2, num_classes=10)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A model that was not trained: its features are random, and still tell digits apart."""
    out = tmp_path_factory.mktemp('runs') / 'untrained'
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(lambda key, x: MODEL.init(key, x), jax.random.key(0), images)['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32) / 4, shapes)
    prepared = Preprocessing(8, 1.0)
    runs.write(out, Experiment(MODEL, Source('digits'), preprocessing=prepared), params)
    return out


@pytest.fixture(scope='module')
def captures(run, tmp_path_factory):
    out = tmp_path_factory.mktemp('captures')
    for split in ('train', 'test'):
        capture.main(str(run), out=str(out / split), split=split, keep='blocks|norm', tokens='mean')
    return out


@pytest.mark.slow
def test_chosen_layers_of_a_run(run, captures, tmp_path):
    """They alone are captured; a capture has its own."""
    similarity.main((str(run),), out=str(tmp_path), layers=(2, 2), examples=32, tokens='mean')
    found = np.load(tmp_path / 'cka.npz')
    assert list(found['x']) == ['blocks 2'] and found['cka'].shape == (1, 1)
    with pytest.raises(ValueError, match='layers are chosen of a run or weights: .*test has its'):
        similarity.main((str(captures / 'test'),), out=str(tmp_path), layers=(1, 2))
    with pytest.raises(ValueError, match='of 1 to 2 at blocks: got 1 3'):
        similarity.main((str(run),), out=str(tmp_path), layers=(1, 3))


def test_cka_of_a_capture(captures, capsys):
    out = captures / 'result'
    similarity.main((str(captures / 'test'),), out=str(out), metrics=('cka', 'procrustes'))
    assert 'tokens: mean; 359 images, 95% interval over batches of 64' in capsys.readouterr().out
    names = ['blocks 1', 'blocks 2', 'norm']
    stacks = [np.load(captures / 'test' / n) for n in ('blocks.0-1.npy', 'norm.npy')]
    layers = np.concatenate(stacks)
    found = np.load(out / 'cka.npz')
    batches = [layers[:, i : i + 64] for i in range(0, 359, 64)]
    wanted = measures.minibatch_cka((x, x) for x in batches)
    np.testing.assert_allclose(found['cka'], wanted, atol=1e-5)
    low, high = found['low'] - 1e-6, found['high'] + 1e-6
    assert (low <= found['cka']).all() and (found['cka'] <= high).all()
    assert list(found['x']) == list(found['y']) == names
    assert found['policy'] == 'tokens: mean; 359 images'
    assert json.loads(str(found['about_x']))['data'] == 'digits'
    rows = list(csv.reader((out / 'cka.csv').read_text().splitlines()))
    assert rows[0] == ['cka (tokens: mean; 359 images)', *names]
    assert [row[0] for row in rows[1:]] == names
    np.testing.assert_allclose(np.array([r[1:] for r in rows[1:]], float), wanted, atol=1e-5)
    distance = np.load(out / 'procrustes.npz')
    np.testing.assert_allclose(distance['procrustes'], measures.procrustes(layers), atol=1e-5)
    assert {p.name for p in out.iterdir()} == {
        f'{metric}.{kind}' for metric in ('cka', 'procrustes') for kind in ('npz', 'csv', 'png')
    }


@pytest.mark.slow
def test_a_users_own_metric(captures, tmp_path, monkeypatch):
    (tmp_path / 'own_gaps.py').write_text(
        'import numpy as np\n'
        'def gap(x, y):\n'
        '    a, b = ([layer.mean() for stack in side for layer in stack] for side in (x, y))\n'
        '    return np.abs(np.subtract.outer(a, b))\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    similarity.main((str(captures / 'test'),), out=str(tmp_path), metrics=('own_gaps:gap',))
    found = np.load(tmp_path / 'own_gaps.gap.npz')
    assert found['own_gaps.gap'].shape == (3, 3) and (tmp_path / 'own_gaps.gap.png').exists()
    with pytest.raises(ValueError, match="one of cka, .*, or MODULE:FUNCTION: 'gap'"):
        similarity.main((str(captures / 'test'),), out=str(tmp_path), metrics=('gap',))


def test_two_runs_directly_write_nothing_but_the_result(run, captures, tmp_path):
    before = sorted(run.rglob('*'))
    similarity.main((str(run), str(run)), out=str(tmp_path), keep='blocks|norm', tokens='mean')
    similarity.main((str(captures / 'test'),), out=str(tmp_path / 'captured'))
    one, other = (np.load(tmp_path / n)['cka'] for n in ('cka.npz', 'captured/cka.npz'))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert sorted(run.rglob('*')) == before


def test_a_representation_from_elsewhere(captures, tmp_path):
    layer = np.load(captures / 'test' / 'norm.npy')[0]
    np.save(tmp_path / 'norm.npy', layer)
    similarity.main((str(tmp_path / 'norm.npy'), str(captures / 'test')), out=str(tmp_path))
    found = np.load(tmp_path / 'cka.npz')
    assert found['cka'].shape == (1, 3) and found['policy'].item().startswith('tokens: as given / ')
    np.testing.assert_allclose(found['cka'][0, 2], 1, atol=1e-6)


def test_runs_of_a_pattern_make_a_matrix_for_each_layer(run, tmp_path, capsys):
    experiment, params, _ = runs.load(run)
    for seed in range(3):
        changed = jax.tree.map(
            lambda p, s=seed: p * (1 + s * np.cos(np.arange(p.size).reshape(p.shape))), params
        )
        runs.write(tmp_path / 'cells' / 'a' / f'seed_{seed}', experiment, changed)
    pattern = f'{tmp_path}/cells/*/seed_*'
    similarity.main((pattern,), out=str(tmp_path / 'out'), examples=64, batch_size=32)
    found = np.load(tmp_path / 'out' / 'cka.npz')
    assert list(found['layers']) == ['blocks 1', 'blocks 2']
    assert list(found['runs']) == ['a/seed_0', 'a/seed_1', 'a/seed_2']
    assert found['cka'].shape == found['low'].shape == (2, 3, 3)
    rows = list(csv.reader((tmp_path / 'out' / 'cka.csv').read_text().splitlines()))
    assert rows[0] == ['layer', 'run', *found['runs']] and len(rows) == 7
    np.testing.assert_allclose([float(x) for x in rows[-1][2:]], found['cka'][-1, -1], atol=1e-5)
    assert (tmp_path / 'out' / 'cka_mean.png').exists()
    assert '3 x 3 runs, blocks 2; tokens: class; 64 images' in capsys.readouterr().out
    with pytest.raises(ValueError, match='--out must name a folder to write: 3 sides'):
        similarity.main((pattern,))
    with pytest.raises(ValueError, match=r'there is no .*/b/\*'):
        similarity.main((f'{tmp_path}/cells/b/*',), out=str(tmp_path))
    with pytest.raises(ValueError, match='--size has a value for each side: 4 for 3'):
        similarity.main((pattern,), out=str(tmp_path), size=(8, 8, 8, 8))


@pytest.mark.slow
def test_probes_of_a_run_and_of_captures_agree(run, captures, tmp_path, capsys):
    similarity.main(
        (str(run),), probe=True, keep='blocks|norm', tokens='mean', out=str(tmp_path / 'run')
    )
    similarity.main(
        (str(captures / 'train'), str(captures / 'test')), probe=True, out=str(tmp_path / 'probes')
    )
    one, other = (np.load(tmp_path / n / 'probe.npz') for n in ('run', 'probes'))
    assert list(one['layers']) == ['blocks 1', 'blocks 2', 'norm']
    assert list(one['probes']) == ['k-NN (k = 20)', 'ridge', 'linear']
    np.testing.assert_allclose(one['accuracy'], other['accuracy'], atol=0.01)
    assert 0.5 < one['accuracy'].max() <= 1  # a guess is right in a tenth
    assert (one['low'] < one['accuracy']).all() and (one['accuracy'] < one['high']).all()
    assert 'tokens: mean; 1,294 images to fit, 359 to test' in capsys.readouterr().out
    assert len((tmp_path / 'run' / 'probe.csv').read_text().splitlines()) == 4


def test_what_cannot_be_compared_is_refused(run, captures, tmp_path):
    out = str(tmp_path)
    with pytest.raises(ValueError, match='1294 and 359'):
        similarity.main((str(captures / 'train'), str(captures / 'test')), out=out)
    with pytest.raises(ValueError, match='1294 and 144'):
        similarity.main((str(captures / 'train'), str(run)), split='validation', out=out)
    np.save(tmp_path / 'x.npy', np.zeros((359, 4)))
    with pytest.raises(ValueError, match='--out must name a folder to write'):
        similarity.main((str(tmp_path / 'x.npy'),))
    with pytest.raises(ValueError, match='x is the same for every example'):
        similarity.main((str(tmp_path / 'x.npy'),), out=out)
    with pytest.raises(ValueError, match='has the tokens mean, not class'):
        similarity.main((str(captures / 'test'),), out=out, tokens='class')
    with pytest.raises(
        ValueError, match='two captures or files, fitted on A and tested on B, or one model'
    ):
        similarity.main((str(captures / 'test'),), out=out, probe=True)


@pytest.mark.slow
def test_errors_are_one_line(captures):
    result = subprocess.run(
        [sys.executable, similarity.__file__, str(captures / 'none.npy'), '--out', 'x'],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
