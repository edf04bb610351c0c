import dataclasses

import numpy as np
import pytest
from helpers import random_params
from tiny_models import CAIT, VIT

from vitjax.analysis import similarity, tokens
from vitjax.data import kinds, preprocess
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment, prepared
from vitjax.inside.capture import capture
from vitjax.views import watch

PREPARED = Preprocessing(size=8, crop=1.0)
RECORDS = [
    {'epoch': e, 'images': 64, 'tokens': 'mean', 'cka': np.eye(3) * e / 9, 'rank': [e, 2, 3]}
    for e in range(1, 10)
]


@pytest.mark.parametrize('model', [VIT, CAIT], ids=['vit', 'cait'])
def test_watched_cka_and_rank_are_those_of_captured_layers(model):
    """Images are evenly spaced, in small batches; CKA takes the class token if there is one."""
    data = kinds.load(Source(), 'test')
    watched = Experiment(model=model, preprocessing=PREPARED, watch=('cka', 'rank'))
    experiment = prepared(watched)
    rows = np.linspace(0, len(data) - 1, 64).round().astype(int)
    images = np.asarray(preprocess.finish(data.images[rows], PREPARED, data.prepared))
    params = random_params(model, images[:1])
    found = watch.of_layers(experiment, params, data)
    blocks = capture(model, params, images, keep='blocks')[1]['blocks']
    patches = blocks[:, :, model.trunk.prefix :]
    taken = blocks[:, :, 0] if model is VIT else patches.mean(2)
    assert found['tokens'] == ('class' if model is VIT else 'mean') and found['images'] == 64
    np.testing.assert_allclose(found['cka'], similarity.cka(taken), atol=2e-5)
    rank = tokens.effective_rank(patches).mean(1)
    np.testing.assert_allclose(found['rank'], rank, rtol=1e-4)
    only = dataclasses.replace(experiment, watch=('rank',))
    assert watch.of_layers(only, params, data).keys() == {'images', 'rank'}


@pytest.mark.parametrize('kinds', [('cka', 'rank'), ('cka',), ('rank',)])
def test_a_strip_and_a_film_of_watched_layers(kinds, tmp_path):
    left = {'cka', 'rank'} - {*kinds}
    records = [{k: v for k, v in record.items() if k not in left} for record in RECORDS]
    figure, film = watch.drawings(records)
    pictures = [axis for axis in figure.axes if axis.images]
    titles = [axis.get_title() for axis in pictures]
    assert titles == ['epoch 1', 'epoch 3', 'epoch 4', 'epoch 6', 'epoch 7', 'epoch 9'] * (
        'cka' in kinds
    )
    if 'rank' in kinds:
        (lines,) = [axis.lines for axis in figure.axes if axis.lines]
        np.testing.assert_array_equal(lines[0].get_ydata(), range(1, 10))
    film.save(tmp_path / 'film.gif', writer='pillow')
    assert (tmp_path / 'film.gif').stat().st_size > 2000
