import sys

import command
import jax
import jax.numpy as jnp
import numpy as np
import predict
import published
import pytest
from PIL import Image
from safetensors.numpy import save_file

from vitjax import models, runs
from vitjax.data import preprocess
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment
from vitjax.models.base import parameter_shapes

MODEL = models.ViT(patch_size=4, width=12, depth=1, num_heads=2, num_classes=4)
PREPARED = Preprocessing(8, 0.8, mean=(0.3, 0.4, 0.5), deviation=(0.2, 0.3, 0.4))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    random = np.random.default_rng(0)
    for i in range(34):  # one batch is 32
        pixels = random.integers(0, 256, (10, 14, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i:02}.png')
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    known = Experiment(model=MODEL, preprocessing=PREPARED, classes=('cat', 'dog', 'owl'))
    random = np.random.default_rng(1)
    params = jax.tree.map(
        lambda s: jnp.asarray(random.standard_normal(s.shape), jnp.float32),
        parameter_shapes(MODEL, PREPARED.size),
    )
    run = tmp_path_factory.mktemp('runs') / 'tiny'
    runs.write(run, known, params)
    return str(run), params


def test_a_run_predicts_with_its_own_names_and_preprocessing(run, files, capsys):
    path, params = run
    predict.main(path, tuple(files), top=9)
    lines = capsys.readouterr().out.splitlines()
    logits = jax.jit(MODEL.apply)({'params': params}, preprocess.load(files, PREPARED))
    wanted = np.asarray(jax.nn.softmax(logits))
    names = ['cat', 'dog', 'owl', 'class 3']
    assert len(lines) == 5 * len(files)
    best = set()
    for file, head, rows in zip(
        files, lines[::5], zip(*(lines[i::5] for i in range(1, 5)), strict=True), strict=True
    ):
        assert head == file
        shares = [float(row.split('%')[0]) / 100 for row in rows]
        assert shares == sorted(shares, reverse=True)
        own = [names.index(row.split('%')[1].strip()) for row in rows]
        np.testing.assert_allclose(shares, wanted[files.index(file)][own], atol=6e-5)
        best.add(own[0])
    assert len(best) > 1  # the images matter


def test_published_weights_predict_imagenet_classes(tmp_path, files, capsys):
    weights = {
        name: np.zeros(shape, np.float32)
        for name, shape in published.timm_vit(192, 12, 16, 224).items()
    }
    weights['head.bias'][[281, 0]] = np.log([4000, 1000])  # the others are exp(0) = 1
    path = tmp_path / 'weights.safetensors'
    save_file(weights, path)
    predict.main(str(path), (files[0],), top=2, model='deit_tiny_patch16')
    said = capsys.readouterr()
    total = 4000 + 1000 + 998
    assert said.out.splitlines() == [
        files[0],
        f'  {4000 / total:7.2%}  tabby',
        f'  {1000 / total:7.2%}  tench',
    ]
    predict.main(str(path), (files[0],), top=1, model='deit_tiny_patch16', image_size=160)
    said = capsys.readouterr()
    assert said.err.startswith('position embeddings: 14x14 -> 10x10')


def test_images_that_cannot_be_read_are_named_and_the_others_predicted(
    run, files, tmp_path, capsys
):
    (tmp_path / 'bad.jpg').write_bytes(b'no image')
    (tmp_path / 'empty.png').touch()
    bad = [str(tmp_path / name) for name in ('none.jpg', '.', 'bad.jpg', 'empty.png')]
    bad[1] = str(tmp_path)
    images = (bad[0], files[0], *bad[1:], files[1])
    assert predict.main(run[0], images, top=1) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[::2] == [files[0], files[1]]
    errors = [line for line in said.err.splitlines() if line.startswith('error: ')]
    for path, line in zip(bad, errors, strict=True):
        assert path in line
    wanted = f'{tmp_path} is a folder: give its image files, as in {tmp_path}/*.jpg.'
    assert errors[1] == f'error: {wanted}'
    assert predict.main(run[0], tuple(files[:2]), top=1) == 0


def test_a_thousand_classes_are_ranked(tmp_path, files, capsys):
    model = MODEL.clone(num_classes=1000)
    names = tuple(f'class of {i}' for i in range(1000))
    params = jax.tree.map(lambda s: jnp.zeros(s.shape), parameter_shapes(model, PREPARED.size))
    params['head']['output']['bias'] = jnp.log(1.0 + jnp.arange(1000))
    known = Experiment(model=model, preprocessing=PREPARED, classes=names)
    runs.write(tmp_path / 'run', known, params)
    predict.main(str(tmp_path / 'run'), (files[0],), top=2000)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 1000
    assert lines[0] == f'  {1000 / 500_500:7.2%}  class of 999' and lines[-1].endswith('of 0')


def test_errors(run, files, tmp_path, monkeypatch, capsys):
    path, params = run
    headless = {k: v for k, v in params.items() if k != 'head'}
    known = Experiment(model=MODEL.clone(num_classes=0), preprocessing=PREPARED)
    runs.write(tmp_path / 'headless', known, headless)
    with pytest.raises(ValueError, match='headless has no head, so there are no classes'):
        predict.main(str(tmp_path / 'headless'), (files[0],))
    monkeypatch.setattr(sys, 'argv', ['predict.py', path, 'missing.jpg'])
    with pytest.raises(SystemExit) as stop:
        command.run(predict.main)
    assert stop.value.code == 1
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == 'error: there is no image missing.jpg.'
