"""Small models of every kind with random weights, as `vitjax.runs.load` would hand them over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax import models
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, prepared
from vitjax.models.base import parameter_shapes
from vitjax.runs import Loaded

SIDE = 16
MODELS = {
    'vit': models.ViT(4, 16, 3, 2, num_classes=3),
    'features': models.ViT(
        4, 16, 2, 2, num_classes=0, pool='mean', registers=1, position='sincos', dtype='bfloat16'
    ),
    'cait': models.CaiT(4, 16, 2, 2, 2, num_classes=3, layer_scale=0.5),
    'multi': models.PatchConvNet(
        4, 16, 2, num_classes=5, layer_scale=0.5, class_tokens_per_class=True
    ),
    'convnet': models.ConvNet((4, 6), hidden=8, num_classes=1),
}


def random_params(model, side):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(model, side)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape)), shapes)


@pytest.fixture(scope='session')
def opened():
    def one(name):
        model = MODELS[name]
        experiment = Experiment(
            model=model,
            preprocessing=Preprocessing(SIDE, 1.0),
            classes=tuple(f'class{i}, or so' for i in range(model.num_classes)),
        )
        return Loaded(prepared(experiment), random_params(model, SIDE))

    return {name: one(name) for name in MODELS}


@pytest.fixture(scope='session')
def photographs():
    return list(np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), np.uint8))
