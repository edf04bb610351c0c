import json
import pathlib
import sys

import command
import convert
import jax
import numpy as np
import published
import pytest
from helpers import TINY, random_params
from safetensors.numpy import save_file

from vitjax import models, runs
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import resolved

DINOV2 = pathlib.Path(__file__).parents[3] / 'shared' / 'weights' / 'dinov2_small.safetensors'


def noise(shapes):
    random = np.random.default_rng(0)
    return {k: random.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'vit_tiny_patch16_224.npz'
    np.savez(path, allow_pickle=False, **noise(published.augreg(192, 12, 3, 16, 224)))
    return path


def test_weights_become_a_run(weights, tmp_path, capsys):
    out = tmp_path / 'runs' / 'vit'
    convert.main(str(weights), str(out), image_size=160)
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(2).startswith('assumed, since no file beside the weights states it: mean 0.5')
    assert lines == [
        'model: vit_tiny_patch16',
        'position embeddings: 14x14 -> 10x10 patches, bicubic, antialiased',
        'parameters: 5,698,984',
        'images: short side to 177 pixels, central 160x160',
        'pixels: 0 to 1, mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, 0.5',
        f'written: {out}',
    ]
    assert sorted(p.name for p in out.iterdir()) == ['checkpoints', 'experiment.json']
    assert [p.name for p in out.parent.iterdir()] == ['vit']
    values = json.loads((out / 'experiment.json').read_text())
    assert values['model']['type'] == 'ViT'
    assert values['preprocessing']['size'] == 160
    assert len(values['classes']) == 1000
    experiment, params, _ = runs.load(out)
    assert experiment.model == models.named('vit_tiny_patch16')
    with np.load(weights) as file:
        np.testing.assert_array_equal(params['head']['output']['kernel'], file['head/kernel'])

    # A run can be converted again, to another size.
    again = tmp_path / 'again'
    convert.main(str(out), str(again), patch_size=32, num_classes=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        'patch kernel: 16 -> 32 pixels, by pseudo-inverse',
        'position embeddings: 10x10 -> 5x5 patches, bicubic, antialiased',
        'head: fresh, 3 classes; was 1000 classes',
    ]
    experiment = runs.load(again).experiment
    assert experiment.classes == ()


def test_a_run_in_16_bits_keeps_its_records_unless_it_is_resized(tmp_path, capsys):
    run, params = tmp_path / 'run', random_params(TINY.model, np.zeros((1, 8, 8, 3)))
    runs.write(run, resolved(TINY, Preprocessing(size=8), tuple('0123456789')), params)
    for name in ('metrics.jsonl', 'environment.jsonl', 'predictions.json'):
        (run / name).write_text(f'{name}\n')
    convert.main(str(run), str(tmp_path / 'half'), dtype='float16')
    assert capsys.readouterr().out.endswith(f'written: {tmp_path / "half"}, float16\n')
    for name in ('metrics.jsonl', 'environment.jsonl', 'predictions.json'):
        assert (tmp_path / 'half' / name).read_text() == f'{name}\n'
    assert runs.load(tmp_path / 'half').experiment == runs.load(run).experiment
    convert.main(str(run), str(tmp_path / 'resized'), image_size=16)
    assert sorted(p.name for p in (tmp_path / 'resized').iterdir()) == [
        'checkpoints', 'experiment.json'
    ]  # fmt: skip


def test_nothing_is_half_written(weights, tmp_path):
    broken = noise(published.timm_vit(192, 12, 16, 224))
    broken['norm.weight'][3] = np.nan
    path = tmp_path / 'deit.safetensors'
    save_file(broken, path)
    out = tmp_path / 'run'
    with pytest.raises(ValueError, match='norm.weight: holds NaN or infinity'):
        convert.main(str(path), str(out))
    assert not out.exists()
    out.mkdir()
    (out / 'precious').touch()
    with pytest.raises(ValueError, match='must be new or empty'):
        convert.main(str(weights), str(out))
    assert [p.name for p in out.iterdir()] == ['precious']
    assert sorted(p.name for p in tmp_path.iterdir()) == ['deit.safetensors', 'run']


def test_an_error_is_a_line_and_an_exit_code(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'a.npz'
    path.write_bytes(b'PK\x03\x04 no zip')
    monkeypatch.setattr(sys, 'argv', ['convert.py', str(path), '--out', str(tmp_path / 'run')])
    with pytest.raises(SystemExit) as stop:
        command.run(convert.main)
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert said.out == ''
    assert said.err.startswith(f'error: {path} is not a whole npz file')
    assert len(said.err.splitlines()) == 1


@pytest.mark.skipif(not DINOV2.exists(), reason='needs ../shared/weights/dinov2_small.safetensors')
def test_dinov2_for_another_task(tmp_path, capsys):
    convert.main(str(DINOV2), str(tmp_path / 'run'), image_size=224, num_classes=10)
    assert capsys.readouterr().out.splitlines()[:3] == [
        'model: vit_small_patch14_dinov2',
        'position embeddings: 37x37 -> 16x16 patches, bicubic, not antialiased',
        'head: fresh, 10 classes; was none',
    ]
    experiment, params, _ = runs.load(tmp_path / 'run')
    assert experiment.model == models.named('vit_small_patch14_dinov2', num_classes=10)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
