"""Descriptions of trunks against the models' parameters and captures."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from helpers import shapes_of

from vitjax.inside.capture import paths
from vitjax.models import NAMES, VGG16, CaiT, ConvNet, PatchConvNet, ViT, named
from vitjax.models.base import parameter_shapes

SHAPE: dict[str, Any] = {'patch_size': 4, 'width': 16, 'depth': 3, 'num_heads': 2, 'num_classes': 5}
MODELS = {
    'class': ViT(**SHAPE, registers=2),
    'mean': ViT(**SHAPE, pool='mean', registers=1),
    'flatten': ViT(**SHAPE, pool='flatten'),
    'cait': CaiT(**SHAPE, class_depth=4),
    'patchconvnet': PatchConvNet(**SHAPE),
    'patchconvnet_multi': PatchConvNet(**SHAPE, class_tokens_per_class=True),
}


@pytest.mark.parametrize('name', MODELS)
def test_the_trunk_is_what_runs(name):
    model, images = MODELS[name], jax.ShapeDtypeStruct((2, 16, 20, 3), 'float32')
    trunk, params = model.trunk, shapes_of(model, images)
    assert trunk.grid(16, 20) == (4, 5) and trunk.grid(16) == (4, 4)
    found = paths(model, images)
    assert found['embed'] == (2, trunk.prefix + 20, 16)
    assert model.prefix_tokens == trunk.prefix
    for stack, depth in trunk.stacks.items():
        assert found[stack][0] == depth
        assert {leaf.shape[0] for leaf in jax.tree.leaves(params[stack])} == {depth}
    assert found.get('class_blocks', (0, 0, 0))[2] == trunk.class_tokens
    assert trunk.reads == (name if name in ('class', 'mean', 'flatten') else 'attention')
    assert trunk.class_token == (name == 'class')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['class', 'mean', 'flatten'])
def test_the_answer_is_read_from_the_tokens_that_the_trunk_says(name):
    model = MODELS[name]
    tokens = np.random.default_rng(0).normal(size=(1, model.prefix_tokens + 4, 16))
    params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))['params']

    def total(tokens) -> Any:
        return (model.apply({'params': params}, tokens, method='readout') ** 2).sum()

    read = np.abs(jax.grad(total)(np.float32(tokens))).sum((0, 2)) > 0
    expected = {
        'class': [True, False, False, False, False, False, False],
        'mean': [False, True, True, True, True],
        'flatten': [True, True, True, True],
    }
    np.testing.assert_array_equal(read, expected[model.trunk.reads])


@pytest.mark.parametrize('model', [ConvNet(), VGG16()])
def test_feature_maps_have_neither_grid_nor_stacks(model):
    assert model.trunk.stacks == {} and model.prefix_tokens == 0
    assert model.trunk.reads == 'maps' and not model.trunk.class_token
    with pytest.raises(ValueError, match='unequal shapes have no grid'):
        model.trunk.grid(32)


def test_a_grid_of_parts_of_patches_is_an_error():
    with pytest.raises(ValueError, match='patch_size=4, image is 16x18 pixels'):
        MODELS['class'].trunk.grid(16, 18)


def test_every_published_size_says_what_its_trunk_is():
    for name in NAMES:
        assert named(name).trunk.reads in ('class', 'attention', 'maps')


@pytest.mark.slow
def test_parameter_shapes_are_those_of_what_init_makes():
    for model in (MODELS['cait'], nn.Dense(4)):
        made = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))['params']
        assert jax.tree.map(lambda x: (x.shape, x.dtype), made) == jax.tree.map(
            lambda x: (x.shape, x.dtype), parameter_shapes(model, 8)
        )
