import csv
import json

import evaluate
import jax
import numpy as np
import pytest
from PIL import Image

from vitjax import models, runs
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment


def written(out, classes, source: Source | None, outputs=0):
    """A run whose logits are all alike, so that it says the first class of every image."""
    outputs = outputs or len(classes)
    model = models.ViT(patch_size=4, width=8, depth=1, num_heads=2, num_classes=outputs)
    images = np.zeros((1, 8, 8, 3), np.float32)
    params = jax.tree.map(np.zeros_like, model.init(jax.random.key(0), images)['params'])
    experiment = Experiment(model, source, preprocessing=Preprocessing(8, 1.0), classes=classes)
    runs.write(out, experiment, params)
    return str(out)


def test_a_run_is_scored_and_the_split_said(tmp_path, capsys):
    run = written(tmp_path / 'run', tuple('0123456789'), Source('digits'))
    evaluate.main(run, split='validation')
    said = capsys.readouterr().out.splitlines()
    which = 'validation (held out of its training images)'
    assert said[0].startswith('ViT: ') and said[1] == f'digits, {which}: 144 images, 10 classes'
    assert any(line.startswith('  top5') for line in said)
    with (tmp_path / 'run' / 'evaluation.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['split'] for row in rows] == ['validation'] * 10
    assert rows[0]['recall'] == '1.0000' and sum(int(row['examples']) for row in rows) == 144
    values = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
    share = int(rows[0]['examples']) / 144
    assert values['accuracy'] == pytest.approx(share) and values['split'] == 'validation'


def test_nothing_is_written_into_a_folder_of_weights(tmp_path, capsys, monkeypatch):
    run = written(tmp_path / 'run', tuple('0123456789'), None)
    loaded = runs.load(run)
    (tmp_path / 'weights').mkdir()
    for name in ('model.safetensors', 'config.json'):
        (tmp_path / 'weights' / name).write_text('{}')
    monkeypatch.setattr(runs, 'load', lambda *args, **kwargs: loaded)
    evaluate.main(str(tmp_path / 'weights'), data='digits')
    assert capsys.readouterr().out.endswith('nothing is written without --out\n')
    assert len([*(tmp_path / 'weights').iterdir()]) == 2
    with pytest.raises(ValueError, match='--data must name images'):
        evaluate.main(str(tmp_path / 'weights'))


def test_what_is_tested_on_is_said_and_means_are_over_classes_that_are_there(tmp_path, capsys):
    """A validation split that is tested on, and a head of ten outputs for three classes."""
    for split in ('train', 'val'):
        for i, name in enumerate('abc'):
            (tmp_path / 'images' / split / name).mkdir(parents=True)
            for k in range(5):
                file = tmp_path / 'images' / split / name / f'{k}.png'
                Image.new('RGB', (8, 8), (80 * i, k, 0)).save(file)
    source = Source(f'folder:{tmp_path / "images"}', validation=0.3)
    run = written(tmp_path / 'run', tuple('abc'), source, outputs=10)
    evaluate.main(run)
    said = capsys.readouterr().out
    assert 'test (its split val, as it has no test split): 15 images, 3 classes' in said
    assert 'the head has 10 outputs for 3 classes; without a class: class 3 to class 9' in said
    values = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
    assert values['recall'] == pytest.approx(1 / 3)  # not 1 / 10
    assert values['checkpoint'] == 'best'
    assert values['precision'] == pytest.approx(1 / 9)
    assert values['f1'] == pytest.approx(0.5 / 3)
    evaluate.main(run, split='validation')
    assert 'validation (held out of its training images)' in capsys.readouterr().out
    evaluate.main(run, split='train')
    assert ', train: ' in capsys.readouterr().out


def test_weights_of_elsewhere_are_scored_and_written_only_where_asked(
    tmp_path, capsys, monkeypatch
):
    run = written(tmp_path / 'run', tuple('0123456789'), None)
    loaded, file = runs.load(run), tmp_path / 'weights.npz'
    file.touch()
    monkeypatch.setattr(runs, 'load', lambda path, **options: loaded)
    with pytest.raises(ValueError, match='--data must name images: .* was not trained here'):
        evaluate.main(str(file))
    evaluate.main(str(file), data='digits')
    assert 'nothing is written without --out' in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {'run', 'weights.npz'}
    evaluate.main(str(file), data='digits', out=str(tmp_path / 'scores'))
    assert (tmp_path / 'scores' / 'figures' / 'confusion.png').exists()
