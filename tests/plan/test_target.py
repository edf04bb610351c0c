from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax import ops
from vitjax.models import ViT
from vitjax.models.base import parameter_shapes
from vitjax.plan import machines, target
from vitjax.plan.flops import flops

MODEL = ViT(patch_size=4, width=32, depth=3, num_heads=4, num_classes=5)
IMAGES = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)


def loss(params, images):
    logits: Any = MODEL.apply({'params': params}, images)
    return jnp.sin(logits).sum()


@pytest.fixture(scope='module')
def here():
    return machines.machine('here')


@pytest.fixture(scope='module')
def report(here):
    jax.clear_caches()  # what `nn.remat` traced for other tests is cached without modules' names
    return target.compile(jax.grad(loss), parameter_shapes(MODEL, 16), IMAGES, machine=here)


def test_here_has_the_devices_of_jax(here):
    assert here.devices == tuple(jax.devices())
    assert here.chip is None and here.memory > 2**28


def test_a_report_has_memory_as_compiled_and_operations_as_counted(report):
    params = parameter_shapes(MODEL, 16)
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    images = IMAGES.size * 4
    assert report.memory.arguments == size + images
    assert size <= report.memory.outputs < size + 2048  # a tuple has addresses
    assert report.memory.peak >= report.memory.temporaries + size
    assert report.flops == flops(jax.grad(loss), params, IMAGES)
    assert report.bytes > size + images
    assert report.cycles is None and report.collectives == () and report.loops_once == 0


def test_modules_add_up_to_the_total(report):
    paths = set(report.modules)
    assert {'blocks/mlp/hidden', 'blocks/attention/qkv', 'embed/patch/projection'} <= paths
    assert sum(cost.flops for cost in report.modules.values()) == report.flops
    assert sum(cost.bytes for cost in report.modules.values()) == report.bytes
    assert np.isnan(report.seconds)  # nobody knows what this machine can do


def test_a_roofline_is_the_longer_of_arithmetic_and_memory(here):
    chip = machines.Chip(memory=1e9, bandwidth=1e9, flops={'float32': 1e12}, link=1e9)
    known = machines.Machine('here', here.devices[:1], chip)
    square = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    found = target.compile(lambda a: a @ a, square, machine=known, dtype='float32')
    (cost,) = found.modules.values()
    assert cost.flops == 2 * 256**3 and cost.by == 'roofline'
    assert found.seconds == cost.bytes / 1e9 > cost.flops / 1e12
    row = jax.ShapeDtypeStruct((4096, 256), jnp.float32)
    slow = machines.Machine(
        'here', here.devices[:1], machines.Chip(1e9, 1e12, {'float32': 1e9}, 1e9)
    )
    found = target.compile(lambda a, b: a @ b, row, square, machine=slow, dtype='float32')
    assert found.seconds == 2 * 4096 * 256**2 / 1e9


def test_an_interpreted_kernel_is_ordinary_operations(here):
    """Only custom calls are kernels, and an interpreted one is none."""

    def body(x, out):
        out[...] = x[...] @ x[...]

    square = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    kernel = pallas.pallas_call(body, grid=(3,), out_shape=square, interpret=True)
    found = target.compile(kernel, square, machine=here)
    assert found.flops == 3 * 2 * 8**3
    assert {cost.by for cost in found.modules.values()} == {'roofline'}


def test_collectives_of_a_sharded_function(here):
    """The gradient of replicated parameters on a split batch is reduced over all devices."""
    mesh = jax.make_mesh((8,), ('batch',), axis_types=(AxisType.Auto,))
    whole, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ('batch',)))
    kernel = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=whole)
    x = jax.ShapeDtypeStruct((128, 64), jnp.float32, sharding=rows)
    grad = jax.jit(jax.grad(lambda k, x: jnp.sin(x @ k).sum()), out_shardings=whole)
    found = target.compile(grad, kernel, x, machine=here)
    assert [(c.kind, c.bytes, c.times) for c in found.collectives] == [('all-reduce', 8192, 1)]
    assert found.memory.arguments == 4 * (64 * 32 + 128 * 64 // 8)
    assert found.devices == 8


def test_tracing_picks_implementations_for_the_machine(here):
    """A jitted function is traced anew for each machine."""
    seen = []

    @jax.jit
    def fn(x):
        seen.append(ops.device())
        return x

    first, last = (machines.Machine('here', (here.devices[i],), None) for i in (0, 7))
    for machine in (first, last, first):
        target.lower(fn, jax.ShapeDtypeStruct((), jnp.float32), machine=machine)
    assert set(seen) == {here.devices[0], here.devices[7]}


def test_dtypes_that_a_chip_lacks_are_refused(here):
    assert machines.rate(machines.CHIPS['h100'], 'bfloat16') == 989e12
    assert np.isnan(machines.rate(None, 'float64'))
    with pytest.raises(ValueError, match="one of bfloat16, float16, float32: 'float64'"):
        machines.rate(machines.CHIPS['v5e'], 'float64')
    known = machines.Machine('here', here.devices[:1], machines.CHIPS['h100'])
    with pytest.raises(ValueError, match="one of bfloat16, float16, float32: 'float64'"):
        target.compile(
            jnp.sin, jax.ShapeDtypeStruct((), jnp.float32), machine=known, dtype='float64'
        )
