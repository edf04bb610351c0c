import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax import ops
from vitjax.layers.dense import Conv
from vitjax.ops import plain
from vitjax.ops.cpu import convolve


def conv(groups, x, features, stride=1, padding=1):
    module = Conv(features, stride, padding, groups)
    reference = nn.Conv(features, (3, 3), stride, padding, feature_group_count=groups)
    params = reference.init(jax.random.key(1), x)
    return [
        functools.partial(lambda m, p, x: m.apply(p, x), m) for m in (module, reference)
    ], params


CASES = [
    (1, (2, 7, 9, 5), 6, 1, 1),
    (1, (2, 8, 12, 3), 4, 2, 1),
    (1, (2, 7, 9, 3), 4, 2, 1),
    (1, (2, 8, 9, 5), 6, 1, 0),
    (1, (2, 7, 10, 32), 48, 1, 1),  # these in tiles
    (1, (3, 8, 9, 32), 32, 1, 0),
    (6, (2, 7, 9, 6), 6, 1, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES, ids=str)
def test_values_and_gradients_are_those_of_linen_s_convolution(case):
    groups, shape, *rest = case
    x = jax.random.normal(jax.random.key(0), shape)
    (ours, linen), params = conv(groups, x, *rest)

    def gradient(apply):
        return jax.grad(lambda p, x: jnp.sin(apply(p, x)).sum(), (0, 1))

    np.testing.assert_array_equal(ours(params, x), linen(params, x))
    with ops.entered():
        np.testing.assert_allclose(ours(params, x), linen(params, x), atol=1e-5)
        got, want = (jax.jit(gradient(f))(params, x) for f in (ours, linen))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_scanned_rematerialized_and_in_16_bits():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4)).astype(jnp.bfloat16)
    kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 4, 4)).astype(jnp.bfloat16) * 0.1

    def run(kind, kernels):
        @jax.checkpoint
        def body(x, kernel):
            return x + kind(x, kernel), None

        return jax.lax.scan(body, x, kernels)[0].astype(jnp.float32).sum()

    got, want = (
        jax.jit(jax.grad(functools.partial(run, kind)))(kernels)
        for kind in (convolve, plain.convolve)
    )
    assert got.dtype == jnp.bfloat16
    # bfloat16 keeps 8 bits, and both sides round after each of three layers, in another order.
    np.testing.assert_allclose(
        got.astype(np.float32), want.astype(np.float32), atol=0.02 * float(jnp.abs(want).max())
    )
