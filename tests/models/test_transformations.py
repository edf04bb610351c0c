"""Outside of a step every transformation of jax takes every model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import distance, normal, random_like, random_params
from jax.flatten_util import ravel_pytree
from tiny_models import CAIT, CONVNET, CURRENT, MULTI, PATCHCONVNET, POOLED, VIT

from vitjax import models

MODELS: dict[str, Any] = {
    'vit': VIT, 'vit_current': CURRENT, 'vit_pooled': POOLED, 'cait': CAIT,
    'cait_chunked': CAIT.clone(attention='chunked'),
    'patchconvnet': PATCHCONVNET, 'patchconvnet_multi': MULTI.clone(depthwise=False),
    'convnet': CONVNET,
}  # fmt: skip
SLOW = [name if name == 'vit' else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
IMAGES = normal(2, 16, 16, 3)
ONE = {  # a parameter of few numbers
    'vit': ('blocks', 'norm_1', 'scale'), 'cait': ('blocks', 'attention', 'mix_weights', 'kernel'),
    'patchconvnet': ('blocks', 'norm', 'scale'), 'convnet': ('conv_1', 'conv', 'bias'),
}  # fmt: skip


def scalar(model, images=IMAGES):
    """A loss of the parameters."""

    def loss(params):
        return jnp.sin(model.apply({'params': params}, images)).sum()

    return loss


def exactly(name):
    """Loss, parameters and a direction in float64: finite differences need its digits."""
    model = MODELS[name].clone(dtype='float64')
    params = jax.tree.map(lambda x: jnp.asarray(x, 'float64'), random_params(model, IMAGES))
    direction = jax.tree.map(np.float64, random_like(params, seed=1, scale=1.0))
    return scalar(model), params, direction


def along(params, direction, step):
    return jax.tree.map(lambda p, d: p + step * d, params, direction)


@pytest.fixture
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures('_float64')
@pytest.mark.parametrize('name', SLOW)
def test_forward_mode_is_reverse_mode_and_a_finite_difference(name):
    loss, params, direction = exactly(name)

    @jax.jit
    def run(params, direction):
        slope = jax.jvp(loss, (params,), (direction,))[1]
        _, linear = jax.linearize(loss, params)
        inner = jax.tree.map(jnp.vdot, jax.grad(loss)(params), direction)
        return slope, linear(direction), sum(jax.tree.leaves(inner))

    slope, linear, inner = run(params, direction)
    high, low = (jax.jit(loss)(along(params, direction, h)) for h in (1e-6, -1e-6))
    np.testing.assert_allclose([linear, inner], slope, rtol=1e-9)
    np.testing.assert_allclose((high - low) / 2e-6, slope, rtol=1e-4)


@pytest.mark.usefixtures('_float64')
@pytest.mark.parametrize('name', SLOW)
def test_forward_over_reverse_is_a_finite_difference_of_gradients(name):
    loss, params, direction = exactly(name)
    grad = jax.jit(jax.grad(loss))
    found = jax.jit(lambda p, d: jax.jvp(jax.grad(loss), (p,), (d,))[1])(params, direction)
    high, low = (grad(along(params, direction, h)) for h in (1e-6, -1e-6))
    assert distance(found, jax.tree.map(lambda a, b: (a - b) / 2e-6, high, low)) < 1e-5


@pytest.mark.parametrize('name', SLOW)
def test_gradients_of_each_image_add_up_to_the_batch_s(name):
    model, params = MODELS[name], random_params(MODELS[name], IMAGES)

    @jax.jit
    def run(params):
        each = jax.vmap(lambda image: jax.grad(scalar(model, image[None]))(params))(IMAGES)
        return jax.tree.map(lambda g: g.sum(0), each), jax.grad(scalar(model))(params)

    assert distance(*run(params)) < 1e-5


@pytest.mark.usefixtures('_float64')
@pytest.mark.parametrize(
    'name', [each for name, each in zip(MODELS, SLOW, strict=True) if name in ONE]
)
def test_a_hessian_is_the_jacobian_of_the_gradient(name):
    loss, params, _ = exactly(name)
    *path, last = ONE[name]
    holder = params
    for key in path:
        holder = holder[key]
    flat, back = ravel_pytree(holder[last])

    def part(flat):
        def put(tree, keys):
            if not keys:
                return back(flat)
            return {**tree, keys[0]: put(tree[keys[0]], keys[1:])}

        return loss(put(params, ONE[name]))

    found = jax.jit(jax.hessian(part))(flat)
    wanted = jax.jit(jax.jacrev(jax.grad(part)))(flat)
    assert found.shape == (len(flat), len(flat)) and np.abs(found).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9 * float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, found.T, atol=1e-8 * float(np.abs(wanted).max()))


def test_vgg16_has_products_with_its_hessian():
    model = models.VGG16(num_classes=2)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    loss = scalar(model, jnp.zeros((1, 32, 32, 3)))
    shape = jax.eval_shape(
        lambda p: jax.jvp(jax.grad(loss), (p,), (p,))[1], params['params']
    )  # fmt: skip
    assert jax.tree.map(jnp.shape, shape) == jax.tree.map(jnp.shape, params['params'])
