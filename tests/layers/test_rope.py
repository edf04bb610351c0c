"""Rotary position embeddings: properties, then a float64 reference from the papers' equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import normal

from vitjax.layers import rope
from vitjax.layers.attention import MultiHeadAttention

GRID = (3, 4)


def angles(kind, grid=GRID, size=8):
    return jnp.asarray(rope.coordinates(kind, grid) @ rope.frequencies(kind, size))


@pytest.mark.parametrize('kind', rope.KINDS)
def test_scores_depend_on_distances_alone(kind):
    """q at (1, 1) with k at (2, 3) scores as q at (0, 0) with k at (1, 2)."""
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)
    alike = [jnp.repeat(x, 12, axis=1) for x in (q, k)]
    turn = angles(kind)[:, None]
    q, k = (rope.rotate(x, turn, prefix=0, halves=rope.KINDS[kind].halves) for x in alike)
    scores = np.einsum('qd,kd->qk', q[0, :, 0], k[0, :, 0]).reshape(3, 4, 3, 4)
    np.testing.assert_allclose(scores[1, 1, 2, 3], scores[0, 0, 1, 2], rtol=1e-4)
    assert abs(scores[1, 1, 2, 3] - scores[0, 0, 2, 3]) > 1e-3


@pytest.mark.parametrize('halves', [False, True])
def test_turning_keeps_lengths_and_the_prefix(halves):
    x = normal(2, 2 + 12, 3, 8)
    turned = rope.rotate(x, angles('axial')[:, None], prefix=2, halves=halves)
    np.testing.assert_array_equal(turned[:, :2], x[:, :2])
    np.testing.assert_allclose(*(jnp.square(y).sum(-1) for y in (turned, x)), rtol=1e-5)
    assert jnp.abs(turned - x)[:, 3:].max() > 0.1


def test_axial_angles_against_the_paper():
    """Heo et al. 2024, eq. 8: columns turn channels 4t and 4t + 1, rows 4t + 2 and 4t + 3.

    Their pairs of columns come first here, which is the same up to an order of the channels.
    """
    x = np.asarray(normal(1, 12, 1, 8), np.float64)
    turned = rope.rotate(jnp.asarray(x), angles('axial')[:, None], prefix=0, halves=False)
    for n in range(12):
        row, column = divmod(n, 4)
        for pair, angle in enumerate([column, column / 10, row, row / 10]):
            first, second = x[0, n, 0, 2 * pair : 2 * pair + 2]
            want = np.exp(1j * angle) * (first + 1j * second)
            got = turned[0, n, 0, 2 * pair : 2 * pair + 2]
            np.testing.assert_allclose(got, [want.real, want.imag], atol=1e-5)


def test_learned_frequencies_begin_with_the_axial_ones_turned():
    frequencies = rope.mixed_init(jax.random.key(0), (2, 3, 4))
    lengths = np.linalg.norm(frequencies, axis=0)
    np.testing.assert_allclose(lengths, np.broadcast_to([1, 10**-0.5] * 2, (3, 4)), rtol=1e-5)


def test_widths_that_cannot_turn_are_refused():
    module = MultiHeadAttention(2, head_width=6, rope='axial')
    with pytest.raises(
        ValueError, match="rope='axial' needs heads of a multiple of 4 .* 6 channels"
    ):
        module.init(jax.random.key(0), normal(1, 4, 8), grid=(2, 2))
