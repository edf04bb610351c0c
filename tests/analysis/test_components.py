import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, exact, normal

from vitjax.analysis.components import components


@pytest.mark.parametrize('shape', [(2, 9, 5), (3, 2, 20)])
def test_projections_and_variances_are_those_of_the_covariance(shape):
    tokens = normal(*shape) * np.geomspace(9, 1, shape[-1], dtype=np.float32)
    projected, fractions = components(jnp.asarray(tokens), 3)
    rows = exact(tokens).reshape(-1, shape[-1])
    rows -= rows.mean(0)
    variances, axes = np.linalg.eigh(rows.T @ rows)
    expected = (rows @ axes[:, ::-1][:, :3]).reshape(*shape[:2], 3)
    expected *= np.sign((exact(projected) * expected).sum((0, 1)))
    assert_close(projected, expected, 1e-5)
    assert_close(fractions, variances[::-1][:3] / variances.sum(), 1e-5)
    flat = exact(projected).reshape(-1, 3)
    assert (flat[np.abs(flat).argmax(0), range(3)] > 0).all()


def test_components_that_the_tokens_lack_are_zero():
    projected, fractions = components(jnp.ones((1, 4, 2)), 3)
    assert projected.shape == (1, 4, 3) and not projected.any() and not fractions.any()
