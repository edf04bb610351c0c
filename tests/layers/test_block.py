import math
from typing import Any

import jax
import numpy as np
import pytest
from helpers import assert_close, exact, normal, random_params
from references import dense, gelu, norm, softmax

from vitjax import ops
from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.layers.block import (
    Block,
    ClassBlock,
    ConvBlock,
    LayerScale,
    Mlp,
    SqueezeExcite,
)


def run(module, params, *args, **rngs) -> Any:
    return jax.jit(lambda p: module.apply({'params': p}, *args, rngs=rngs))(params)


def mlp(x, params):
    return dense(gelu(dense(x, params['hidden'])), params['output'])


def talking_heads(x, params, heads):
    """Touvron et al. 2021 after Shazeer et al. 2020, listing 1: x [N, D], float64."""
    q, k, v = dense(x, params['qkv']).reshape(len(x), 3, heads, -1).transpose(1, 2, 0, 3)
    logits = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    before, after = params['mix_logits'], params['mix_weights']
    logits = dense(logits.transpose(1, 2, 0), before).transpose(2, 0, 1)
    weights = dense(softmax(logits).transpose(1, 2, 0), after).transpose(2, 0, 1)
    out = (weights @ v).transpose(1, 0, 2).reshape(len(x), -1)
    return dense(out, params['projection'])


def class_attention(token, patches, params, heads):
    """Touvron et al. 2021, eq. 6, and with several class tokens, which do not see themselves."""
    seen = np.concatenate([token, patches]) if len(token) == 1 else patches
    q, k, v = (
        dense(x, params[name]).reshape(len(x), heads, -1).transpose(1, 0, 2)
        for name, x in (('query', token), ('key', seen), ('value', seen))
    )
    weights = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
    return dense((weights @ v).transpose(1, 0, 2).reshape(len(token), -1), params['projection'])


def test_the_backward_pass_of_an_mlp_keeps_one_array_of_its_hidden_width():
    x = normal(3, 4)
    module = Mlp(2.5)
    params = random_params(module, x)
    with ops.entered():
        _, back = jax.vjp(lambda p, x: module.apply({'params': p}, x), params, x)
    shapes = [leaf.shape for leaf in jax.tree.leaves(back)]
    assert shapes.count((3, 10)) == 1


def test_mlp_has_the_exact_gelu():
    x = normal(3, 4)
    for last in (False, True):
        module = Mlp(2.5, last_gelu=last)
        params = random_params(module, x)
        assert params['hidden']['kernel'].shape == (4, 10)
        expected = mlp(exact(x), params)
        assert_close(run(module, params, x), gelu(expected) if last else expected)


def test_layer_scale_multiplies_channels_and_starts_small():
    x = normal(3, 4)
    params = LayerScale(1e-5).init(jax.random.key(0), x)['params']
    np.testing.assert_array_equal(params['scale'], np.full(4, 1e-5, np.float32))
    np.testing.assert_allclose(run(LayerScale(1e-5), params, x), x * 1e-5, rtol=1e-6)
    assert not LayerScale(None).init(jax.random.key(0), x)


def test_block_of_talking_heads_is_the_papers():
    tokens = normal(2, 5, 8)
    block = Block(MultiHeadAttention(2, head_width=4, talking=True), Mlp(2.0), 0.1)
    params = random_params(block, tokens, None, False)
    for image, out in zip(tokens, run(block, params, tokens, None, False)[0], strict=True):
        x = exact(image)
        branch = talking_heads(norm(x, params['norm_1']), params['attention'], 2)
        x = x + params['scale_1']['scale'] * branch
        branch = mlp(norm(x, params['norm_2']), params['mlp'])
        assert_close(out, x + params['scale_2']['scale'] * branch)


@pytest.mark.parametrize('count', [1, 3])
def test_class_block_is_the_papers_and_updates_class_tokens_alone(count):
    tokens, patches = normal(2, count, 8), normal(2, 6, 8, seed=1)
    block = ClassBlock(ClassAttention(2), Mlp(3.0), 0.1)
    params = random_params(block, tokens, patches, False)
    for i, out in enumerate(run(block, params, tokens, patches, False)[0]):
        x, seen = exact(tokens[i]), norm(exact(patches[i]), params['norm_1'])
        branch = class_attention(norm(x, params['norm_1']), seen, params['attention'], 2)
        x = x + params['scale_1']['scale'] * branch
        branch = mlp(norm(x, params['norm_2']), params['mlp'])
        assert_close(out, x + params['scale_2']['scale'] * branch)


def squeeze_excite(x, params):
    """Hu et al. 2018, eq. 2-4: x [H, W, D]."""
    hidden = np.maximum(dense(x.mean((0, 1)), params['reduce']), 0)
    return x / (1 + np.exp(-dense(hidden, params['expand'])))


@pytest.mark.parametrize('bias', [False, True])
def test_squeeze_excite_is_the_papers(bias):
    x = normal(2, 3, 4, 8)
    params = random_params(SqueezeExcite(4, bias), x)
    assert params['reduce']['kernel'].shape == (8, 2)
    assert ('bias' in params['reduce']) == bias
    expected = np.stack([squeeze_excite(exact(image), params) for image in x])
    assert_close(run(SqueezeExcite(4, bias), params, x), expected)


@pytest.mark.parametrize('depthwise', [True, False])
def test_convolutional_block_is_the_papers(depthwise):
    tokens, grid = normal(2, 12, 8), (3, 4)
    block = ConvBlock(depthwise, layer_scale=0.1)
    params = random_params(block, tokens, None, grid, False)
    out, _ = run(block, params, tokens, None, grid, False)
    kernel = exact(params['conv_2']['kernel'])
    assert kernel.shape == (3, 3, 1 if depthwise else 8, 8)
    for image, found in zip(tokens, out, strict=True):
        x = gelu(dense(norm(exact(image), params['norm']), params['conv_1']))
        padded = np.pad(x.reshape(*grid, 8), ((1, 1), (1, 1), (0, 0)))
        x = np.zeros((*grid, 8)) + params['conv_2']['bias']
        for i in range(3):
            for j in range(3):
                window = padded[i : i + 3, j : j + 4]
                x += window * kernel[i, j, 0] if depthwise else window @ kernel[i, j]
        x = squeeze_excite(gelu(x), params['se']).reshape(12, 8)
        assert_close(found, image + params['scale']['scale'] * dense(x, params['conv_3']))
