import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.layers.dropout import drop, drop_path, dropout


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_drop_keeps_the_mean_and_zeros_the_rate(rate):
    out = np.asarray(jax.jit(drop)(jax.random.key(0), jnp.full((300, 500), 3.0), rate))
    spread = np.sqrt(rate * (1 - rate) / out.size)
    assert abs((out == 0).mean() - rate) < 5 * spread
    np.testing.assert_allclose(out[out != 0], 3 / (1 - rate), rtol=1e-4)


def test_the_rate_is_exact_between_multiples_of_a_byte():
    # 0.1 is 25.6 of 256: rounded for all rows alike, it would be off by ten standard deviations.
    out = np.asarray(jax.jit(drop)(jax.random.key(1), jnp.ones((20_000, 200)), 0.1))
    assert abs((out == 0).mean() - 0.1) < 5 * np.sqrt(0.09 / out.size)


def test_drop_at_rate_zero_changes_nothing_even_where_the_rate_is_traced():
    x = jnp.arange(1000.0)
    np.testing.assert_array_equal(jax.jit(drop)(jax.random.key(0), x, 0.0), x)


class Droppers(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return dropout(self, x, self.rate, train), drop_path(self, x, jnp.asarray(self.rate), train)


def test_stochastic_depth_drops_whole_examples():
    x = jnp.ones((2000, 3, 4))
    _, out = Droppers(0.3).apply({}, x, True, rngs={'dropout': jax.random.key(0)})
    examples = np.asarray(out).reshape(2000, -1)
    assert np.all(examples == examples[:, :1])
    assert abs((examples[:, 0] == 0).mean() - 0.3) < 0.05
    np.testing.assert_allclose(examples[examples > 0], 1 / 0.7, rtol=1e-4)


def test_evaluation_and_rate_zero_need_no_random_bits():
    x = jnp.ones((4, 3))
    for out in Droppers(0.5).apply({}, x, False):
        np.testing.assert_array_equal(out, x)
    assert dropout(nn.Dense(1), x, 0.0, True) is x
    assert drop_path(nn.Dense(1), x, None, True) is x
