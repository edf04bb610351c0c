import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.layers.attend import Mixing, explicit
from vitjax.layers.talking import talking_heads


def shapes(batch, queries, keys, heads, width, dtype='float32'):
    tokens = [(batch, n, heads, width) for n in (queries, keys, keys)]
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in tokens]
    return *arrays, *(jax.ShapeDtypeStruct((heads, heads), 'float32') for _ in range(2))


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 40, 70, 2, 5), (1, 16, 32, 4, 8), (1, 33, 1, 3, 2)])
def test_the_kernels_are_talking_heads_forward_and_backward(shape):
    """Blocks in full and in part, more keys than queries and fewer, widths that need padding."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in shapes(*shape)]

    def plain(q, k, v, before, after):
        zero = jnp.zeros(len(before))
        return explicit(q, k, v, mixing=Mixing(before, zero, after, zero))

    def run(attention):
        def scalar(*args):
            return jnp.sin(attention(*args)).sum()

        return jax.jit(jax.value_and_grad(scalar, argnums=range(5)))(*args)

    value, gradients = run(plain)
    other, others = run(lambda *args: talking_heads(*args, interpret=True))
    np.testing.assert_allclose(other, value, rtol=1e-5)
    for a, b in zip(others, gradients, strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * max(1, np.linalg.norm(b))  # one key: b is 0


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The Pallas Triton backend is deprecated')  # jax 0.12
@pytest.mark.parametrize(('heads', 'width'), [(4, 48), (8, 48), (3, 5)])
def test_triton_takes_the_kernels(heads, width):
    """Lowering for a GPU wants none: sizes and operations that Triton has not fail here."""

    def total(*args):
        return talking_heads(*args).astype('float32').sum()

    arrays = shapes(2, 196, 197, heads, width, 'bfloat16')
    grad = jax.jit(jax.grad(total, argnums=range(5)))
    hopper = jax.sharding.AbstractDevice('NVIDIA H100 80GB HBM3', num_cores=132, platform='gpu')
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=hopper)):
        text = grad.trace(*arrays).lower(lowering_platforms=('cuda',)).as_text()
    assert text.count('xla.gpu.triton') == 3  # forward, to queries, to keys
