"""From a run directory to files, as a user asks for them."""

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import normal, random_params
from PIL import Image

from vitjax import models, runs
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment

MODEL = models.ViT(patch_size=4, width=12, depth=2, num_heads=2, num_classes=3)
SCRIPT = pathlib.Path(__file__).parents[2] / 'scripts' / 'intervene.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('intervene')
    known = Experiment(model=MODEL, preprocessing=Preprocessing(8), classes=('cat', 'dog', 'owl'))
    runs.write(folder / 'run', known, random_params(MODEL, normal(1, 8, 8, 3)))
    random = np.random.default_rng(0)
    for i in range(3):
        pixels = random.integers(0, 256, (10, 14, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return folder


def ask(folder, *arguments) -> Any:
    call = [sys.executable, str(SCRIPT), 'run', *arguments, '--out', 'out']
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


def test_photographs_to_files(folder):
    done = ask(folder, 'patch', '--images', '0.png', '1.png', '2.png')
    assert done.returncode == 0, done.stderr
    assert 'the next image' in done.stdout and '3 images of files' in done.stdout
    assert {p.name for p in (folder / 'out').iterdir()} == {'patch.csv', 'patch.npz', 'patch.png'}
    with np.load(folder / 'out' / 'patch.npz') as arrays:
        assert arrays['answer'].shape == (2, 5, 3)
        assert list(arrays['names']) == ['0', '1', '2']


def test_what_cannot_be_is_said_in_a_line(folder):
    for arguments, message in (
        (['heads'], 'say which images: --images FILE ... or --data; the model has no data.'),
        (['steer', '--source', 'cat'], 'steer needs --source and --toward, two classes'),
    ):
        done = ask(folder, *arguments)
        assert done.returncode == 1 and done.stderr.startswith(f'error: {message}')
        assert done.stderr.count('\n') == 1
