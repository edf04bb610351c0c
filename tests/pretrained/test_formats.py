"""The formats agree with each other; timm's is held to golden tensors in test_golden.py."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import published
import pytest
from tiny_vit import TINY, assert_equal_trees, quiet, shapes_of, tiny

from vitjax import models, pretrained


def test_formats_of_one_vit_give_the_same_parameters():
    weights = tiny()
    params = pretrained.convert(weights, TINY, 12, report=quiet)
    assert jax.tree.map(lambda x: x.dtype, params) == jax.tree.map(
        lambda x: x.dtype, shapes_of(TINY, 12)
    )
    for other in (
        published.as_transformers(weights),
        published.as_transformers(weights, newer=True),
        published.as_augreg(weights, heads=3),
        {f'module.model.{name}': value for name, value in weights.items()},
        {f'vit.{name}': value for name, value in published.as_transformers(weights).items()},
        weights | {'mask_token': np.zeros(1), 'pooler.dense.bias': np.zeros(12)},
    ):
        assert_equal_trees(pretrained.convert(other, TINY, 12, report=quiet), params)


@pytest.mark.parametrize('registers', [0, 4])
def test_formats_of_one_dinov2_give_the_same_parameters(registers):
    model = TINY.clone(layer_scale=1.0, num_classes=0, registers=registers)
    weights = published.noise(
        published.timm_vit(12, 2, 4, 12, classes=0, scale=True, registers=registers), seed=1
    )
    params = pretrained.convert(weights, model, 12, report=quiet)
    if registers:  # the other library gives the class token a position too
        position = np.pad(weights['pos_embed'], ((0, 0), (1, 0), (0, 0)))
        weights['pos_embed'] = position
        assert (params['embed']['position']['table'][0] == 0).all()
    for newer in (False, True):
        other = published.as_transformers(weights, dinov2=True, newer=newer)
        assert_equal_trees(pretrained.convert(other, model, 12, report=quiet), params)


def test_one_linear_output_for_each_class_token():
    weights = published.noise(published.patchconvnet(16, 2, classes=3, multi=True))
    model = models.PatchConvNet(width=16, depth=2, num_classes=3, class_tokens_per_class=True)
    params = pretrained.convert(weights, model, 32, report=quiet)
    for i in range(3):
        np.testing.assert_array_equal(params['head']['kernel'][i], weights[f'head.{i}.weight'][0])
        assert params['head']['bias'][i] == weights[f'head.{i}.bias'][0]
        np.testing.assert_array_equal(params['class_token'][i], weights['cls_token'][0, i])


def test_vgg_reads_its_features_row_by_row():
    shapes = published.vgg16()
    weights = published.zeros(shapes)
    channel, row, column = np.mgrid[:512, :7, :7].reshape(3, -1)
    inputs = np.float32(channel * 49 + row * 7 + column)  # PyTorch's order: channels first
    weights['classifier.0.weight'] = np.broadcast_to(inputs, shapes['classifier.0.weight'])
    _, parameters = pretrained.match(weights, models.VGG16(), 224, report=quiet)
    kernel = parameters['dense_1/kernel'].join(
        {'classifier.0.weight': weights['classifier.0.weight'][:2]}
    )
    row, column, channel = np.mgrid[:7, :7, :512].reshape(3, -1)  # ours: channels last
    np.testing.assert_array_equal(kernel[:, 1], channel * 49 + row * 7 + column)


def test_half_precision_becomes_float32():
    weights = tiny()
    for dtype in (np.float16, ml_dtypes.bfloat16):
        half = {name: value.astype(dtype) for name, value in weights.items()}
        params = pretrained.convert(half, TINY, 12, report=quiet)
        exact = {name: value.astype(np.float32) for name, value in half.items()}
        assert_equal_trees(params, pretrained.convert(exact, TINY, 12, report=quiet))
        assert params['norm']['scale'].dtype == jnp.float32


def test_tables_read_both_ways():
    """Splitting every parameter gives the file back, tensor by tensor."""
    small: Any = {'width': 12, 'depth': 2, 'num_heads': 3, 'num_classes': 5}
    multi = models.PatchConvNet(width=16, depth=2, num_classes=3, class_tokens_per_class=True)
    vit = tiny()
    per_class = published.noise(published.patchconvnet(16, 2, classes=3, multi=True))
    cases = [
        (vit, TINY, 12),
        (published.as_transformers(vit), TINY, 12),
        (published.as_augreg(vit, heads=3), TINY, 12),
        (per_class, multi, 32),
        (
            published.noise(published.cait(12, 2, 12, classes=5, heads=3, patch=4)),
            models.CaiT(4, **small),
            12,
        ),
    ]
    for weights, model, size in cases:
        found, parameters = pretrained.match(weights, model, size, report=quiet)
        params = {path: each.join(found.weights) for path, each in parameters.items()}
        back = {}
        for path, each in parameters.items():
            back |= each.split(params[path])
        # Their own names, or those of the library's current version.
        assert back.keys() == found.weights.keys() and len(back) == len(weights)
        for name, tensor in found.weights.items():
            np.testing.assert_array_equal(back[name], tensor, err_msg=name)
