"""The command, from run directories to files."""

import csv
import inspect
import json
import subprocess
import sys
from typing import Any

import intervene
import numpy as np
import pytest
from helpers import SCRIPTS, normal, random_params
from PIL import Image

from vitjax import models, runs, studies
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment

SHAPE: dict[str, Any] = {'patch_size': 4, 'width': 12, 'depth': 2, 'num_heads': 2}
MODEL = models.ViT(**SHAPE, num_classes=3)
CELLS = {'cait': models.CaiT(**SHAPE, num_classes=10, class_depth=1),
         'patchconvnet': models.PatchConvNet(**SHAPE, num_classes=10)}  # fmt: skip
SCRIPT = SCRIPTS / 'intervene.py'


def write(run, model, seed=0, **known):
    experiment = Experiment(model=model, preprocessing=Preprocessing(8, crop=1.0), **known)
    runs.write(run, experiment, random_params(model, normal(1, 8, 8, 3), seed=seed))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('intervene')
    write(folder / 'run', MODEL, classes=('cat', 'dog', 'owl'))
    random = np.random.default_rng(0)
    for i in range(3):
        pixels = random.integers(0, 256, (10, 14, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    return folder


@pytest.mark.slow
def test_photographs_to_files(folder):
    """A process of the command, on files instead of a data set."""
    call = [sys.executable, str(SCRIPT), 'run', 'patch', '--images', '0.png', '1.png', '2.png']
    done = subprocess.run([*call, '--out', 'o'], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'the next image' in done.stdout and '3 images: photographs' in done.stdout
    assert {p.name for p in (folder / 'o').iterdir()} == {'patch.csv', 'patch.npz', 'patch.png'}
    with np.load(folder / 'o' / 'patch.npz') as arrays:
        assert arrays['answer'].shape == (2, 5, 3)
        assert list(arrays['names']) == ['0', '1', '2']


@pytest.fixture(scope='module')
def ablation(tmp_path_factory):
    """Two finished seeds of a model and an unfinished one, as an ablation leaves them."""
    folder = tmp_path_factory.mktemp('ablation')
    for cell, model in CELLS.items():
        for seed in (0, 1, 2):
            run = folder / cell / 'cells' / cell / f'seed_{seed}'
            write(run, model, seed, data=Source('digits'), classes=tuple('0123456789'))
            if seed < 2:
                line = {'step': 1, 'epoch': 1, 'split': 'test', 'accuracy': 0.1, 'loss': 1.0}
                line |= {'seconds': 1.0}
                (run / 'metrics.jsonl').write_text(json.dumps(line))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ('what', 'cell'),
    [('heads', 'patchconvnet'), ('patch', 'cait'), ('knockout', 'cait'), ('steer', 'cait'),
     ('lesion', 'patchconvnet')],
)  # fmt: skip
def test_an_ablation_s_runs_alone_and_over_seeds(ablation, what, cell, tmp_path, capsys):
    given: Any = {'outliers': 1, 'regions': 1}
    given |= {'source': '3', 'toward': '5'} if what == 'steer' else {}
    out = tmp_path / 'out'
    intervene.main(str(ablation / cell), what, out=str(out), examples=20, draws=1, **given)
    wanted = {f'{what}.{kind}' for kind in ('csv', 'npz', 'png')}
    assert {p.name for p in (out / cell).iterdir()} == wanted | {'seed_0', 'seed_1'}
    assert {p.name for p in (out / cell / 'seed_1').iterdir()} == wanted
    assert f'{cell}, ' in capsys.readouterr().out
    with (out / cell / f'{what}.csv').open() as file:
        rows = [*csv.DictReader(file)]
    assert 'seeds: 0, 1' in rows[0]['policy'] and len(rows) > 1
    with np.load(out / cell / f'{what}.npz') as arrays:
        interval = json.loads(str(arrays['about']))['interval']
    none = 'no interval, three seeds are needed'
    said = {'lesion': none, 'steer': f"Student's over seeds, 95%; of moved {none}"}
    assert interval == said.get(what, "Student's over seeds, 95%")
    assert 'nan' not in (out / cell / f'{what}.csv').read_text()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'what': 'heads'}, 'no images: give --images FILE ... or --data; the model has no data'),
        ({'what': 'steer', 'source': 'cat'}, 'steer needs --source and --toward, two classes'),
        (
            {'what': 'steer', 'source': 'cat', 'toward': 'cow', 'data': 'digits'},
            "--toward must be a class or 0 to 2: 'cow'",
        ),
        ({'what': 'knockout', 'aside': 3, 'images': ('0.png',), 'outliers': 1}, '1 to 2: got 3'),
    ],
)
def test_invalid_arguments_are_refused_in_a_line(folder, monkeypatch, given: Any, message):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=message) as error:
        intervene.main('run', out='out', regions=1, **given)
    assert str(error.value).count('\n') == 0


def test_every_registered_study_and_its_options_are_in_the_command_and_the_readme():
    flags = {*inspect.signature(intervene.main).parameters} | {'fitted', 'strengths'}
    readme = (SCRIPTS / 'README.md').read_text()
    for name in studies.STUDIES:
        assert f'- {name}: ' in intervene.description() and f'`{name}`' in readme
        assert {*studies.options_of(name)} <= flags
