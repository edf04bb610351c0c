from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.layers.norm import LayerNorm

RNG = np.random.default_rng(0)


def exact(x) -> Any:
    return np.asarray(x, np.float64)


def normal(*size) -> Any:
    return np.float32(RNG.normal(size=size, scale=0.5))


def random_params(module, *args):
    """Parameters with nothing at its initial value, so that no term goes unseen."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))['params']
    return jax.tree.map(lambda x: normal(*x.shape), shapes)


def run(module, params, *args, **rngs) -> Any:
    return jax.jit(lambda p: module.apply({'params': p}, *args, rngs=rngs))(params)


def assert_near(found, expected):
    assert np.shape(found) == np.shape(expected)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params['scale'] + params['bias']


def test_layer_norm_keeps_its_digits_far_from_zero_and_takes_half_precision():
    x = normal(4, 64) + 30
    module = LayerNorm()
    params = random_params(module, x)
    assert_near(run(module, params, x), norm(exact(x), params))

    def total(params, x) -> Any:
        out: Any = LayerNorm('bfloat16').apply({'params': params}, x)
        return out.sum().astype('float32')

    grads = jax.grad(total, (0, 1))(params, jnp.asarray(x - 30, 'bfloat16'))
    assert jax.tree.map(lambda g: str(g.dtype), grads) == (
        {'scale': 'float32', 'bias': 'float32'},
        'bfloat16',
    )
