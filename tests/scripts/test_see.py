import sys

import command
import jax
import numpy as np
import pytest
import see
from helpers import random_like
from PIL import Image

from vitjax import models, runs
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment
from vitjax.models.base import parameter_shapes

MODEL = models.CaiT(4, 16, 2, 2, 2, num_classes=3, layer_scale=0.5)


@pytest.mark.slow
def test_photographs_become_one_figure_and_one_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ('cat.png', 'dog.jpg'):
        pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(name)
    known = Experiment(model=MODEL, preprocessing=Preprocessing(16), classes=('cat', 'dog', 'owl'))
    params = jax.tree.map(np.asarray, random_like(parameter_shapes(MODEL, 16)))
    runs.write('run', known, params)
    monkeypatch.setattr(sys, 'argv', ['vitjax see', 'cat.png', 'dog.jpg', '--weights', 'run'])
    with pytest.raises(SystemExit) as end:
        command.run(see.main)
    said = capsys.readouterr()
    assert not end.value.code, said.err
    assert {path.name for path in (tmp_path / 'seen').iterdir()} == {
        'overview.png', 'overview.npz', 'explorer.html',
    }  # fmt: skip
    found = np.load('seen/overview.npz')
    assert found['components'].shape == (2, 4, 4, 3) and found['attention'].shape == (2, 4, 4)


def test_weights_that_are_not_there_are_said_with_the_models_that_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['vitjax see', 'cat.png', '--weights', 'nothing'])
    with pytest.raises(SystemExit) as end:
        command.run(see.main)
    assert end.value.code == 1 and 'there is no run and no weights file nothing' in (
        capsys.readouterr().err
    )
