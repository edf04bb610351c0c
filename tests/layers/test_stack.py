from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from helpers import normal, random_params

from vitjax.layers.attention import MultiHeadAttention
from vitjax.layers.block import (
    Block,
    Mlp,
)
from vitjax.layers.stack import stack


def run(module, params, *args, **rngs) -> Any:
    return jax.jit(lambda p: module.apply({'params': p}, *args, rngs=rngs))(params)


def make_stack(depth, **options):
    stacked = stack(Block, depth, 0, **options)
    return stacked(MultiHeadAttention(2, head_width=4), Mlp(2.0), 0.1)


def test_stack_is_its_blocks_one_after_the_other():
    tokens = normal(2, 5, 8)
    params = random_params(make_stack(3), tokens, None, False)
    assert params['mlp']['hidden']['kernel'].shape == (3, 8, 16)
    x = tokens
    for i in range(3):
        layer = jax.tree.map(lambda p, i=i: p[i], params)
        x, _ = run(Block(MultiHeadAttention(2, head_width=4), Mlp(2.0), 0.1), layer, x, None, False)
    np.testing.assert_allclose(
        run(make_stack(3), params, tokens, None, False)[0], x, rtol=1e-5, atol=1e-5
    )


def test_remat_changes_no_gradient_not_even_under_dropout():
    tokens, rates = normal(2, 5, 8), jnp.linspace(0, 0.5, 3)
    params = random_params(make_stack(3), tokens, None, False)

    def gradient(remat):
        def scalar(p):
            rngs = {'dropout': jax.random.key(0)}
            out, _ = make_stack(3, remat=remat).apply({'params': p}, tokens, rates, True, rngs=rngs)
            return jnp.sin(out).sum()

        return jax.jit(jax.grad(scalar))(params)

    for a, b in zip(*(jax.tree.leaves(gradient(r)) for r in (False, True)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, rate, train):
        keep = jax.random.bernoulli(self.make_rng('dropout'), 0.5, x.shape)
        self.sow('intermediates', 'keep', keep)
        return x, None


def test_every_layer_of_a_stack_draws_its_own_bits():
    _, state = stack(Dropping, 4, 0)().apply(
        {}, jnp.ones(64), None, True, rngs={'dropout': jax.random.key(0)}, mutable='intermediates'
    )
    masks = np.asarray(state['intermediates']['keep'][0])
    assert masks.shape == (4, 64) and len(np.unique(masks, axis=0)) == 4
