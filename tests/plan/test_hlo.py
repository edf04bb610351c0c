import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from vitjax.plan import hlo


def shaped(*shape, dtype='float32'):
    return jax.ShapeDtypeStruct(shape, dtype)


def read(fn, *args):
    text: Any = jax.jit(fn).lower(*args).compile().as_text()
    return hlo.read(text)


def stack(x, kernels):
    def layer(x, kernel):
        with jax.named_scope('layer'):
            return jnp.tanh(x @ kernel), None

    return jax.lax.scan(layer, x, kernels)[0]


def test_a_product_moves_its_arrays_once():
    moved = read(lambda a, b: a @ b, shaped(64, 32), shaped(32, 16)).bytes.total()
    assert moved == 4 * (64 * 32 + 32 * 16 + 64 * 16)


def test_bytes_are_linear_in_depth():
    """Each pass through a scan counts with its own slice of the stack, not all of it."""
    moved = {
        depth: read(stack, shaped(128, 64), shaped(depth, 64, 64)).bytes.total()
        for depth in (1, 4, 16)
    }
    a_layer = (moved[16] - moved[4]) / 12
    assert 4 * 64 * 64 < a_layer < 4 * (6 * 128 * 64 + 3 * 64 * 64)
    gradient = [
        read(jax.grad(lambda x, k: stack(x, k).sum(), 1), shaped(128, 64), shaped(depth, 64, 64))
        for depth in (4, 16, 64)
    ]
    first, second, third = (found.bytes.total() for found in gradient)
    assert third - second == pytest.approx(4 * (second - first), rel=0.02)
    assert not any(found.unknown for found in gradient)


def test_loops_of_unknown_length_count_once_and_are_reported():
    def loop(x, count):
        return jax.lax.fori_loop(0, count, lambda i, x: stack(x, x[None]), x)

    found = read(loop, shaped(64, 64), shaped(dtype='int32'))
    assert found.unknown == 1


def test_collectives_are_counted_with_their_kind_and_arrays():
    mesh = jax.make_mesh((8,), ('batch',), axis_types=(AxisType.Auto,))
    rows = PartitionSpec('batch')

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=rows, out_specs=rows)
    def fn(x):
        def body(x, _):
            with jax.named_scope('mixer'):
                return x - jax.lax.psum(x, 'batch') / 8, None

        x = jax.lax.scan(body, x, None, length=5)[0]
        return x + jax.lax.all_gather(x, 'batch', tiled=True).sum()

    gathered, reduced = sorted(read(fn, shaped(32, 16)).collectives)
    assert reduced == hlo.Collective('all-reduce', 'mixer', ('f32[4,16]',), 256, 5)
    assert gathered == hlo.Collective('all-gather', '', ('f32[32,16]',), 2048, 1)


TPU = """
%body (p: (s32[], f32[12,8])) -> (s32[], f32[12,8]) {
  %p = (s32[]{:T(128)}, f32[12,8]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[12,8]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %k = f32[12,8]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%f, metadata={op_name="jit(f)/jvp(ViT)/while/body/closed_call/blocks/mlp/dot_general"}, backend_config={"estimated_cycles":"70"}
  %y = f32[12,8]{1,0:T(8,128)} custom-call(%k), custom_call_target="tpu_custom_call", metadata={op_name="jit(f)/jvp(ViT)/while/body/closed_call/blocks/attention/pallas_call"}
  ROOT %t = (s32[]{:T(128)}, f32[12,8]{1,0:T(8,128)}) tuple(%i, %y)
}

%f (a: f32[12,8]) -> f32[12,8] {
  %a = f32[12,8]{1,0:T(8,128)} parameter(0)
  ROOT %b = f32[12,8]{1,0:T(8,128)} negate(%a), backend_config={"estimated_cycles":"9999"}
}

%condition (p.1: (s32[], f32[12,8])) -> pred[] {
  %end = s32[]{:T(128)} constant(12)
  %p.1 = (s32[]{:T(128)}, f32[12,8]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %end), direction=LT
}

ENTRY %main (q: f32[12,8]) -> f32[12,8] {
  %q = f32[12,8]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[12,8]{1,0:T(8,128)}) tuple(%zero, %q)
  %loop = (s32[]{:T(128)}, f32[12,8]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[12,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_cycles_and_kernels_of_a_tpu_program():
    """Cycles of executed instructions times the loop's passes; only main memory is moved."""
    array = 4 * 12 * 8
    found = hlo.read(TPU)
    assert found.cycles == {'blocks/mlp': 12 * 70}
    assert found.bytes['blocks/mlp'] == 12 * array  # its result stays on the chip
    kernel = hlo.Kernel('tpu_custom_call', 'blocks/attention', 12 * array, 12)
    assert found.kernels == [kernel]
    assert found.unknown == 0


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('jit(step)/jvp(ViT)/while/body/closed_call/blocks/norm_1/reduce_sum', 'blocks/norm_1'),
        ('jit(f)/transpose(jvp(CaiT))/CaiT.readout/class_blocks/mlp/dot', 'class_blocks/mlp'),
        ('jit(f)/transpose(jvp(ViT))/blocks/mlp/blocks/mlp/output/output/dot', 'blocks/mlp/output'),
        ('jit(f)/jvp(ViT)/while/body/dynamic_slice', ''),
        ('jit(f)/jvp(PatchConvNet)/blocks/conv_2/cond/branch_0_fun/dot', 'blocks/conv_2'),
        ('', ''),
    ],
)
def test_paths_of_modules(name, expected):
    assert hlo.module_path(name) == expected
