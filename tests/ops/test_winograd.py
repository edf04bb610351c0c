import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.ops import winograd
from vitjax.ops.plain import convolve


def plain(x, kernel, padding):
    return convolve(x, kernel, padding=padding)


def normal(*shape, seed=0, dtype='float64'):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def require_the_convolution(size, padding):
    """Value and gradient at the kernel, in float64."""
    with jax.enable_x64(True):
        x, kernel = normal(2, *size, 3), normal(3, 3, 3, 5, seed=1)
        want, back = jax.vjp(lambda kernel: plain(x, kernel, padding), kernel)
        np.testing.assert_allclose(winograd.convolve(x, kernel, padding), want, atol=1e-13)
        grad = normal(*want.shape, seed=2)
        got = winograd.kernel_gradient(x, grad, padding)
        np.testing.assert_allclose(got, back(grad)[0], atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize('padding', [0, 1, 2])
@pytest.mark.parametrize('size', [(4, 4), (5, 8), (7, 3), (3, 9), (9, 6)])
def test_it_is_the_convolution_and_so_is_the_gradient_at_its_kernel(size, padding):
    require_the_convolution(size, padding)


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (2, 1), (2, 2), (8, 1)])
def test_it_is_the_convolution_of_maps_smaller_than_the_kernel(size):
    require_the_convolution(size, 1)


@pytest.mark.parametrize(('dtype', 'error'), [('bfloat16', 0.02), ('float16', 0.003)])
def test_its_result_has_the_type_of_the_maps(dtype, error):
    padding = 1
    x, kernel = normal(2, 5, 4, 8, dtype=dtype), normal(3, 3, 8, 4, seed=1, dtype=dtype)
    found = winograd.convolve(x, kernel, padding)
    wanted = plain(x.astype('float32'), kernel.astype('float32'), padding)
    assert found.dtype == x.dtype
    assert jnp.abs(found - wanted).max() < error * jnp.abs(wanted).max()


def test_the_rounding_error_is_about_the_plain_one():
    padding = 1
    x, kernel = normal(2, 16, 16, 64, dtype='float32'), normal(3, 3, 64, 64, dtype='float32')
    with jax.enable_x64(True):
        exact = np.asarray(plain(x.astype('float64'), kernel.astype('float64'), padding))
    ours, theirs = (
        np.sqrt(np.mean((np.asarray(f(x, kernel, padding)) - exact) ** 2))
        for f in (winograd.convolve, plain)
    )
    assert ours < 1.5 * theirs


@pytest.mark.parametrize(
    'shape, features, dtype, pays',
    [
        ((16, 16, 16, 128), 128, 'float32', True),
        ((16, 16, 16, 128), 128, 'bfloat16', False),
        ((16, 32, 32, 3), 64, 'float32', False),  # too few channels
        ((1, 7, 7, 512), 512, 'float32', False),  # too few tiles
        ((4, 112, 112, 64), 64, 'float32', False),  # too much for a cache
        ((4, 112, 112, 128), 128, 'float32', True),  # and enough channels for it
    ],
)
def test_it_is_used_if_it_was_faster(shape, features, dtype, pays):
    x = jnp.zeros(shape, dtype)
    kernel = jnp.zeros((3, 3, shape[-1], features), dtype)
    assert winograd.pays(x, kernel, 1) == pays
