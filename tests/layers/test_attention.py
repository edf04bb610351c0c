from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import distance, exact, random_params
from references import attention as reference
from references import dense

from vitjax import ops
from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.ops import Mixing, cpu, tpu


def heads_of(x, heads):
    return x.reshape(*x.shape[:2], heads, -1)


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('talking', [False, True])
def test_multi_head_attention_is_the_papers(talking, bias):
    module = MultiHeadAttention(3, head_width=5, talking=talking, qkv_bias=bias)
    tokens = jax.random.normal(jax.random.key(0), (2, 7, 6))
    params = random_params(module, tokens)
    assert params['qkv']['kernel'].shape == (6, 3 * 3 * 5)
    q, k, v = np.split(dense(exact(tokens), params['qkv']), 3, axis=-1)
    mixing = None
    if talking:
        before, after = params['mix_logits'], params['mix_weights']
        mixing = Mixing(before['kernel'], before['bias'], after['kernel'], after['bias'])
    out = reference(heads_of(q, 3), heads_of(k, 3), heads_of(v, 3), mixing)
    expected = dense(out.reshape(2, 7, 15), params['projection'])
    assert distance(jax.jit(module.apply)({'params': params}, tokens), expected) < 1e-5


@pytest.mark.parametrize('bias', [False, True])
def test_thirds_are_the_products_of_one_kernel(bias, monkeypatch):
    """As on a TPU, with three products; a capture has the one that is cut."""
    module = MultiHeadAttention(2, head_width=64, qkv_bias=bias, implementation='packed')
    tokens = jax.random.normal(jax.random.key(0), (2, 7, 6))
    params = random_params(module, tokens)

    def run(tokens, params):
        def scalar(params):
            out: Any = module.apply({'params': params}, tokens)
            return jnp.sin(out).sum(), out

        with ops.entered():
            return jax.grad(scalar, has_aux=True)(params)

    gradients, out = run(tokens, params)
    monkeypatch.setattr(cpu, 'in_thirds', tpu.in_thirds, raising=False)
    assert distance(run(tokens, params), (gradients, out)) < 1e-5
    monkeypatch.setattr(cpu, 'thirds', tpu.thirds, raising=False)
    others, other = run(tokens, params)
    assert distance(other, out) < 1e-5
    assert distance(others, gradients) < 1e-5
    made = jax.eval_shape(lambda: module.init(jax.random.key(0), tokens))['params']
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
    with ops.entered():
        _, seen = module.apply({'params': params}, tokens, capture_intermediates=True)
    seen: Any = seen
    assert seen['intermediates']['qkv']['__call__'][0].shape == (2, 7, 3 * 128)


@pytest.mark.parametrize('count', [1, 4])
def test_class_attention_is_the_papers(count):
    tokens = jax.random.normal(jax.random.key(0), (3, count, 6))
    patches = jax.random.normal(jax.random.key(1), (3, 9, 6))
    params = random_params(ClassAttention(2), tokens, patches)
    both = np.concatenate([tokens, patches], 1) if count == 1 else patches
    q = dense(exact(tokens), params['query'])
    k, v = (dense(exact(both), params[name]) for name in ('key', 'value'))
    out = reference(heads_of(q, 2), heads_of(k, 2), heads_of(v, 2))
    expected = dense(out.reshape(3, count, 6), params['projection'])
    for implementation in ('explicit', 'chunked', 'fused', 'auto'):
        apply = jax.jit(ClassAttention(2, implementation=implementation).apply)
        assert distance(apply({'params': params}, tokens, patches), expected) < 1e-5


def test_class_attention_has_heads_that_divide_the_width():
    with pytest.raises(ValueError, match='num_heads must divide width: num_heads=4, width=6'):
        tokens = jnp.ones((1, 1, 6))
        ClassAttention(4).init(jax.random.key(0), tokens, tokens)
