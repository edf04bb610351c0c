"""Runs on images that stream from worker processes."""

import jax
import numpy as np
import pytest
from helpers import processes, same_run
from PIL import Image

from vitjax import loop
from vitjax.data.augment import Augment
from vitjax.data.kinds import load
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT

pytest.importorskip('grain', reason="needs the extra 'stream'")
pytest.importorskip('cv2', reason="needs the extra 'stream'")

FILE = """
from vitjax.data.augment import Augment
from vitjax.data.source import Source
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


@pytest.mark.slow
@pytest.mark.parametrize(('count', 'way'), [(2, 'pmap'), (2, 'fsdp')])
def test_several_processes_train_on_a_stream_as_one(experiment, whole, tmp_path, count, way):
    out = tmp_path / 'several'
    command = [str(experiment[0]), '--parallel', way, '--no-report', '--out', str(out)]
    ended = [process.communicate()[0] for process in processes(count, command)]
    assert all('error' not in text.lower() for text in ended), ended
    same_run(out, whole)


def test_what_a_stream_cannot_do_is_refused(folder, tmp_path):
    source = Source(f'folder:{folder}', size=10, memory=1000)
    assert load(source, 'train').images.streams
    model = ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=3)
    both = Augment(size=8, area=0.2, shift=0.1)
    with pytest.raises(ValueError, match=r'augment.area crops instead of augment.shift: 0.1'):
        loop.train(Experiment(model, source, both, steps=1, batch_size=8), tmp_path / 'both')
