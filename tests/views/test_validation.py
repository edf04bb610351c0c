import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from vitjax.data import kinds
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment, prepared
from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT
from vitjax.views import validation

TRUNK: Any = {'patch_size': 4, 'width': 8, 'depth': 1, 'num_classes': 10}
MODELS = {
    'vit': ViT(num_heads=2, **TRUNK),
    'cait': CaiT(num_heads=2, **TRUNK),
    'pooling': PatchConvNet(**TRUNK),
    'one token a class': PatchConvNet(class_tokens_per_class=True, **TRUNK),
    'mean': ViT(num_heads=2, pool='mean', **TRUNK),
    'convolutional': ConvNet((4,), 8, 10),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', MODELS)
def test_models_with_class_attention_have_a_picture(name):
    settings = Preprocessing(size=8, crop=1.0)
    experiment = prepared(
        Experiment(MODELS[name], preprocessing=settings, classes=tuple('abcdefghij'))
    )
    data = kinds.load(Source(), 'test')
    images = np.zeros((1, 8, 8, 3), np.float32)
    params = MODELS[name].init(jax.random.key(0), images)['params']
    data = dataclasses.replace(data, images=data.images[:3], labels=data.labels[:3])
    found = validation.attention_maps(experiment, params, data)
    if name in ('mean', 'convolutional'):
        assert found is None
        return
    assert found and np.shape(found['attention']) == (3, 2, 2)
    assert 0 < np.sum(found['attention'][0]) <= 1 + 1e-5
    notes = [{'epoch': epoch, **found} for epoch in (2, 4)]
    figure = validation.strip(experiment, data, notes)
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert titles[:3] == ['abcdefghij'[i] for i in data.labels[:3]]
    assert titles[3:6] == titles[6:9] == ['abcdefghij'[i] for i in found['predicted']]
    rows = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert rows == ['image', 'epoch 2', 'epoch 4', 'attention / uniform']
