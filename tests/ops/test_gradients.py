import jax
import jax.numpy as jnp
from helpers import normal
from jax.test_util import check_grads

from vitjax.layers.dense import gelu
from vitjax.ops import cpu, gradients, tpu


def test_the_slope_of_gelu_is_its_own_forward_and_backward():
    with jax.enable_x64(True):
        x = jnp.linspace(-9.0, 9.0, 181)
        check_grads(gelu, (x,), order=2, atol=1e-7, rtol=1e-7)
        assert jax.grad(gelu)(-40.0) == 0 and jax.grad(gelu)(40.0) == 1
    half = jnp.asarray([-2.0, 0.5], 'bfloat16')
    assert jax.grad(lambda x: gelu(x).sum().astype('float32'))(half).dtype == 'bfloat16'


def test_the_gradients_of_product_and_affine_are_their_own():
    with jax.enable_x64(True):
        args = (normal(2, 3, 5), normal(5, 4, seed=1), normal(4, seed=2))
        args = tuple(jnp.asarray(x, 'float64') for x in args)
        check_grads(cpu.product, args[:2], order=1, modes=['rev'], atol=1e-7, rtol=1e-7)
        check_grads(tpu.affine, args, order=1, modes=['rev'], atol=1e-7, rtol=1e-7)


def test_the_gradient_of_layer_norm_is_its_own():
    with jax.enable_x64(True):
        args = (normal(2, 3, 5), normal(5, seed=1), normal(5, seed=2))
        args = tuple(jnp.asarray(x, 'float64') for x in args)
        check_grads(gradients.layer_norm, args, order=1, modes=['rev'], atol=1e-7, rtol=1e-7)
