import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from vitjax.data import sources
from vitjax.data.preprocess import Preprocessing
from vitjax.data.sources import Source
from vitjax.experiment import Experiment
from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT
from vitjax.views.validation import attention_figure

TRUNK: Any = {'patch_size': 4, 'width': 8, 'depth': 1, 'num_classes': 10}
MODELS = {
    'vit': ViT(num_heads=2, **TRUNK),
    'cait': CaiT(num_heads=2, **TRUNK),
    'pooling': PatchConvNet(**TRUNK),
    'one token a class': PatchConvNet(class_tokens_per_class=True, **TRUNK),
    'mean': ViT(num_heads=2, pool='mean', **TRUNK),
    'convolutional': ConvNet((4,), 8, 10),
}


@pytest.mark.parametrize('name', MODELS)
def test_models_that_answer_through_class_attention_have_a_picture(name):
    prepared = Preprocessing(size=8, crop=1.0)
    experiment = dataclasses.replace(
        Experiment(), model=MODELS[name], preprocessing=prepared, classes=tuple('abcdefghij')
    )
    data = sources.load(Source(), 'test')
    images = np.zeros((1, 8, 8, 3), np.float32)
    params = MODELS[name].init(jax.random.key(0), images)['params']
    figure = attention_figure(experiment, params, data, count=3)
    if name in ('mean', 'convolutional'):
        assert figure is None
        return
    titles = [axis.get_title() for axis in figure.axes]
    assert set(filter(None, titles)) <= set('abcdefghij')
