import math
from typing import Any

import jax
import numpy as np

from vitjax.layers.head import Head, PerClassHead

RNG = np.random.default_rng(0)
erf = np.vectorize(math.erf)


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


def dense(x, params):
    return x @ exact(params['kernel']) + exact(params.get('bias', 0))


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def test_heads():
    x = normal(3, 6)
    head = Head(4, (8, 5))
    params = random_params(head, x)
    hidden = gelu(dense(gelu(dense(exact(x), params['hidden_1'])), params['hidden_2']))
    assert_near(run(head, params, x), dense(hidden, params['output']))
    features = Head(0).apply({}, x)
    np.testing.assert_array_equal(features, x)
    tokens = normal(3, 4, 6)
    params = random_params(PerClassHead(), tokens)
    expected = [[t[c] @ params['kernel'][c] for c in range(4)] + params['bias'] for t in tokens]
    assert_near(run(PerClassHead(), params, tokens), np.array(expected))
