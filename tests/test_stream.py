"""Runs on images that stream from worker processes."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import distance
from PIL import Image

from vitjax import loop, runs
from vitjax.data.augment import Augment
from vitjax.data.sources import Source, load
from vitjax.experiment import Experiment
from vitjax.models import ViT

pytest.importorskip('grain', reason="needs the extra 'stream'")
pytest.importorskip('cv2', reason="needs the extra 'stream'")

TRAIN = pathlib.Path(__file__).parent.parent / 'scripts' / 'train.py'
FILE = """
from vitjax.data.augment import Augment
from vitjax.data.sources import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT
experiment = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=3),
    data=Source('folder:{folder}', size=10, memory=1000),
    augment=Augment(size=8, area=0.2, flip=0.5), batch_size=8, steps=9, evaluate_every=0.5,
)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root, random = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for i in range(81):
        home = root / ('train', 'train', 'validation')[i % 3] / 'abc'[i // 3 % 3]
        home.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (*random.integers(12, 30, 2), 3), np.uint8)
        Image.fromarray(pixels).save(home / f'{i}.jpg')
    return root


@pytest.fixture(scope='module')
def experiment(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp('experiment') / 'streamed.py'
    path.write_text(FILE.format(folder=folder))
    made = {}
    exec(path.read_text(), made)
    return path, made['experiment']


@pytest.fixture(scope='module')
def whole(experiment, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'whole'
    loop.train_seeds(experiment[1], {0: out}, quiet=True, devices=jax.devices()[:1])
    return out


def same(out, whole):
    for found, wanted in zip(runs.read_metrics(out), runs.read_metrics(whole), strict=True):
        assert (found['step'], found['split']) == (wanted['step'], wanted['split'])
        for name in ('loss', 'accuracy'):
            assert found[name] == pytest.approx(wanted[name], rel=1e-5), (name, found, wanted)
    found, wanted = (runs.load(run, which='latest').params for run in (out, whole))
    assert distance(found, wanted) < 1e-5


def test_two_processes_train_on_a_stream_as_one(experiment, whole, tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1'),
        'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
        'JAX_NUM_PROCESSES': '2',
        'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    }
    command = [sys.executable, str(TRAIN), str(experiment[0]), '--no-report', '--out']
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / 'two')], env={**environment, 'JAX_PROCESS_ID': str(i)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    texts = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    same(tmp_path / 'two', whole)


def test_what_a_stream_cannot_do_is_refused(folder, tmp_path):
    source = Source(f'folder:{folder}', size=10, memory=1000)
    assert load(source, 'train').images.streams
    model = ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=3)
    both = Augment(size=8, area=0.2, shift=0.1)
    with pytest.raises(ValueError, match=r'augment.area crops instead of augment.shift: 0.1'):
        loop.train(Experiment(model, source, both, steps=1, batch_size=8), tmp_path / 'both')
