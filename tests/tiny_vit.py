"""A small ViT, and its tensors under timm's names."""

import jax
import jax.numpy as jnp
import numpy as np
import published

from vitjax import models

TINY = models.ViT(patch_size=4, width=12, depth=2, num_heads=3, num_classes=5)


def tiny(seed=0):
    return published.noise(published.timm_vit(12, 2, 4, 12, classes=5), seed)


def quiet(change):
    raise AssertionError(f'nothing should have changed: {change}')


def shapes_of(model, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)['params']


def assert_equal_trees(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
