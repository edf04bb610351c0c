from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, exact, normal, random_params
from references import norm

from vitjax.layers.norm import LayerNorm
from vitjax.ops.gradients import layer_norm


def run(module, params, *args, **rngs) -> Any:
    return jax.jit(lambda p: module.apply({'params': p}, *args, rngs=rngs))(params)


def test_layer_norm_keeps_its_digits_far_from_zero_and_takes_half_precision():
    x = normal(4, 64) + 30
    module = LayerNorm()
    params = random_params(module, x)
    assert_close(run(module, params, x), norm(exact(x), params))

    def total(params, x) -> Any:
        out: Any = LayerNorm('bfloat16').apply({'params': params}, x)
        return out.sum().astype('float32')

    grads = jax.grad(total, (0, 1))(params, jnp.asarray(x - 30, 'bfloat16'))
    assert jax.tree.map(lambda g: str(g.dtype), grads) == (
        {'scale': 'float32', 'bias': 'float32'},
        'bfloat16',
    )


@pytest.mark.parametrize('epsilon', [1e-12, 1e-6, 1e-3])
def test_the_epsilon_is_added_to_the_variance(epsilon):
    x = normal(4, 64) * 1e-3  # where it matters
    module = LayerNorm(epsilon=epsilon)
    params = random_params(module, x)
    centred = exact(x) - exact(x).mean(-1, keepdims=True)
    wanted = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon)
    assert_close(run(module, params, x), wanted * exact(params['scale']) + exact(params['bias']))

    def plain(x, scale, bias) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * scale + bias

    with jax.enable_x64(True):
        args = [jnp.asarray(a, 'float64') for a in (x, params['scale'], params['bias'])]
        weights = jnp.arange(64.0)
        found, wanted = (
            jax.grad(lambda *a, f=f: (f(*a) * weights).sum(), (0, 1, 2))(*args)
            for f in (lambda *a: layer_norm(*a, epsilon), plain)
        )
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('width', [1, 2, 7, 192])
def test_layer_norm_of_any_width_scale_and_type_is_the_formula(width, dtype):
    """Far from zero too; a width of 1, and equal numbers, give the bias alone."""
    scale, bias = jnp.asarray(normal(width)), jnp.asarray(normal(width, seed=1))
    for spread, away in ((1e-6, 0.0), (1.0, 30.0), (1e3, 1e3), (0.0, 5.0)):
        x = jnp.asarray(spread * normal(4, width, seed=2) + away, dtype)
        centred = exact(x) - exact(x).mean(-1, keepdims=True)
        wanted = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
        found: Any = layer_norm(x, scale, bias)
        assert found.dtype == np.float32
        wanted = wanted * exact(scale) + exact(bias)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
