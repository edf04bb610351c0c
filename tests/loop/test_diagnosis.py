import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_params

from vitjax.experiment.loss import cross_entropy
from vitjax.loop import diagnosis
from vitjax.models import CaiT, ConvNet, ViT

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(3)
MODEL = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=3)


def first(model, params, images=IMAGES):
    return diagnosis.first_module(model, params, jnp.asarray(images), LABELS, cross_entropy)


def scaled(params, path, layer, value):
    """Parameters with those of one path, of one layer in a stack, times a value."""

    def change(name, leaf):
        if jax.tree_util.keystr(name, simple=True, separator='/') != path:
            return leaf
        out = np.array(leaf)
        out[... if layer is None else layer] *= value
        return out

    return jax.tree_util.tree_map_with_path(change, params)


@pytest.mark.parametrize(
    ('path', 'layer', 'named'),
    [('embed/patch/projection/kernel', None, 'embed/patch/projection'),
     ('blocks/attention/qkv/kernel', 1, 'blocks/attention/qkv, layer 2'),
     ('blocks/mlp/output/bias', 2, 'blocks/mlp/output, layer 3'),
     ('head/output/kernel', None, 'head/output')],
)  # fmt: skip
def test_the_first_module_whose_parameters_are_not_finite(path, layer, named):
    params = random_params(MODEL, IMAGES)
    later = scaled(params, 'head/output/bias', None, np.nan)
    assert first(MODEL, scaled(later, path, layer, np.nan)) == f'parameters of {named}'


@pytest.mark.parametrize('layer', [0, 2])
def test_the_first_module_whose_activations_overflow(layer):
    params = scaled(random_params(MODEL, IMAGES), 'blocks/mlp/hidden/kernel', layer, 1e30)
    params = scaled(params, 'blocks/mlp/output/kernel', layer, 1e30)
    assert first(MODEL, params) == f'activations of blocks/mlp/output, layer {layer + 1}'


def test_other_models_and_their_order():
    cait = CaiT(patch_size=4, width=8, depth=2, class_depth=2, num_heads=2, num_classes=3)
    params = scaled(random_params(cait, IMAGES), 'class_blocks/mlp/hidden/kernel', 1, 1e30)
    params = scaled(params, 'class_blocks/mlp/output/kernel', 1, 1e30)
    assert first(cait, params) == 'activations of class_blocks/mlp/output, layer 2'
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    conv = ConvNet(widths=(4, 6), hidden=7, num_classes=3)
    params = scaled(random_params(conv, images), 'conv_2/conv/kernel', None, np.inf)
    assert first(conv, params, images) == 'parameters of conv_2/conv'


@pytest.mark.slow
def test_gradients_that_overflow_and_numbers_that_are_all_finite():
    params = random_params(MODEL, IMAGES)
    assert first(MODEL, params).startswith('activations of ')
    assert 'are the largest' in first(MODEL, params)
    large = scaled(params, 'head/output/kernel', None, 1e25)
    assert first(MODEL, large).startswith('gradients of ')
