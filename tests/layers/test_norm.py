from typing import Any

import jax
import jax.numpy as jnp
from helpers import assert_close, exact, normal, random_params
from references import norm

from vitjax.layers.norm import LayerNorm


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
