from typing import Any

import jax
import numpy as np
from helpers import assert_close, exact, normal, random_params
from references import dense, gelu

from vitjax.layers.head import Head, PerClassHead


def run(module, params, *args, **rngs) -> Any:
    return jax.jit(lambda p: module.apply({'params': p}, *args, rngs=rngs))(params)


def test_heads():
    x = normal(3, 6)
    head = Head(4, (8, 5))
    params = random_params(head, x)
    hidden = gelu(dense(gelu(dense(exact(x), params['hidden_1'])), params['hidden_2']))
    assert_close(run(head, params, x), dense(hidden, params['output']))
    features = Head(0).apply({}, x)
    np.testing.assert_array_equal(features, x)
    tokens = normal(3, 4, 6)
    params = random_params(PerClassHead(), tokens)
    expected = [[t[c] @ params['kernel'][c] for c in range(4)] + params['bias'] for t in tokens]
    assert_close(run(PerClassHead(), params, tokens), np.array(expected))
