import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas

from vitjax.models import CaiT, ViT, named
from vitjax.plan.flops import flops, flops_by_scope, model_flops, model_flops_by_scope


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ('equation', 'shapes', 'multiply_adds'),
    [
        ('ij,jk->ik', [(2, 3), (3, 5)], 2 * 3 * 5),
        ('bqhd,bkhd->bhqk', [(2, 7, 3, 4), (2, 9, 3, 4)], 2 * 3 * 7 * 9 * 4),
        ('bhqk,hg->bgqk', [(2, 3, 7, 9), (3, 3)], 2 * 7 * 9 * 3 * 3),
        ('abc,cab->', [(2, 3, 4), (4, 2, 3)], 2 * 3 * 4),
    ],
)
def test_products_count_twice_their_multiply_adds(equation, shapes, multiply_adds):
    fn = functools.partial(jnp.einsum, equation)
    assert flops(fn, *[shaped(*s) for s in shapes]) == 2 * multiply_adds


CONVOLUTIONS = [  # input side, kernel, stride, padding, dilation, groups, output side
    (8, 3, 1, 'SAME', 1, 1, 8),
    (8, 3, 2, [(1, 1), (1, 1)], 1, 1, 4),
    (9, 3, 2, [(1, 1), (1, 1)], 1, 1, 5),
    (10, 3, 1, 'VALID', 1, 1, 8),
    (8, 4, 4, 'VALID', 1, 1, 2),
    (8, 3, 1, 'SAME', 1, 6, 8),
    (12, 3, 1, 'SAME', 2, 2, 12),
    (13, 3, 3, 'SAME', 2, 3, 5),
]


def convolution(kernel, stride, padding, dilation, groups):
    def run(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), padding, rhs_dilation=(dilation, dilation),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups,
        )  # fmt: skip

    return run, shaped(kernel, kernel, 6 // groups, 12)


@pytest.mark.parametrize('case', CONVOLUTIONS)
def test_a_convolution_costs_its_outputs_times_its_taps_and_so_do_its_gradients(case):
    side, kernel, stride, padding, dilation, groups, out = case
    run, weights = convolution(kernel, stride, padding, dilation, groups)
    images = shaped(2, side, side, 6)
    expected = 2 * 2 * out**2 * 12 * kernel**2 * (6 // groups)
    assert flops(run, images, weights) == expected

    def backward(argument):
        def pull(x, w):
            out, back = jax.vjp(run, x, w)
            return back(out)[argument]

        return flops(pull, images, weights)

    # The transposed function repeats the forward pass, then adds both gradients.
    assert backward(0) == backward(1) == 3 * expected


def test_transposed_convolutions_cost_their_inputs_times_their_taps():
    images, weights = shaped(2, 4, 4, 6), shaped(3, 3, 6, 5)
    fn = functools.partial(jax.lax.conv_transpose, strides=(2, 2), padding='SAME')
    assert flops(fn, images, weights) == 2 * 2 * 4 * 4 * 9 * 6 * 5


SQUARE = shaped(4, 4)
ONE = 2 * 4**3


def product(x):
    return x @ x


@pytest.mark.parametrize(
    ('fn', 'products'),
    [
        (lambda x: jax.lax.scan(lambda c, _: (c @ x, c @ c), x, None, length=7)[0], 14),
        (lambda x: jax.lax.map(product, jnp.stack([x] * 5)), 5),
        (lambda x: jax.lax.fori_loop(0, 6, lambda i, c: c @ x, x), 6),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, product, x), 2),
        (lambda x: jax.lax.switch(0, [lambda y: y, product], x), 1),
        (jax.jit(lambda x: jax.jit(product)(x) @ x), 2),
        (jax.vmap(product, in_axes=0, axis_size=None), 4),
        (jax.grad(lambda x: jnp.sin(product(x)).sum()), 3),
        (jax.grad(lambda x: jnp.sin(jax.checkpoint(lambda y: y @ y @ y)(x)).sum()), 7),
        (lambda x: jax.nn.relu(x @ x), 1),
        (lambda x: jax.lax.while_loop(lambda c: c.sum() > 0, lambda c: c - 1, x), 0),
        (jnp.sum, 0),
    ],
)
def test_calls_loops_and_branches(fn, products):
    argument = shaped(4, 4, 4) if products == 4 else SQUARE
    assert flops(fn, argument) == products * ONE


def test_products_of_custom_derivatives_count():
    @jax.custom_vjp
    def cube(x) -> Any:
        return x @ x @ x

    cube.defvjp(lambda x: (cube(x), x), lambda x, g: (g @ x @ x @ x,))
    assert flops(cube, SQUARE) == 2 * ONE
    assert flops(jax.grad(lambda x: jnp.sin(cube(x)).sum()), SQUARE) == 5 * ONE


def test_sharded_work_counts_on_all_devices():
    mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec('data')
    spread = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec)
    assert flops(spread, shaped(8, 3)) == 4 * 2 * 2 * 2 * 3


def test_uncountable_operations_are_refused_by_name():
    def positive(x: jax.Array) -> jax.Array:
        return x.sum() > 0

    loop = functools.partial(jax.lax.while_loop, positive, product)
    with pytest.raises(ValueError, match='a while loop holds the products of somewhere'):
        flops(jax.named_scope('somewhere')(loop), SQUARE)
    kernel = pallas.pallas_call(lambda x, y: None, out_shape=SQUARE)
    with pytest.raises(ValueError, match='flops cannot see into pallas_call'):
        flops(kernel, SQUARE)


def test_an_estimate_counts_loops_once_and_kernels_by_their_arithmetic():
    def positive(x: jax.Array) -> jax.Array:
        return x.sum() > 0

    loop = functools.partial(jax.lax.while_loop, positive, product)
    found = flops_by_scope(jax.named_scope('somewhere')(loop), SQUARE, estimate=True)
    assert sum(found.values()) == flops(product, SQUARE)

    def body(x, out):
        out[...] = jax.lax.fori_loop(0, 3, lambda i, total: total + x[...] @ x[...], x[...])

    kernel = pallas.pallas_call(body, grid=(2, 5), out_shape=SQUARE)
    found = flops_by_scope(jax.named_scope('somewhere')(kernel), SQUARE, estimate=True)
    assert found == {'somewhere/pallas_call': 2 * 5 * 3 * ONE}


@pytest.mark.parametrize(
    ('name', 'size', 'published', 'norms'),  # GMACs by fvcore, as timm lists them
    [
        ('cait_xxs24', 224, 2.53, 24 * 2 * 196 + 2 * 198 + 1),
        ('cait_s24', 224, 9.35, 24 * 2 * 196 + 2 * 198 + 1),
        ('cait_xs24', 384, 19.28, 24 * 2 * 576 + 2 * 578 + 1),
        ('vit_base_patch16', 224, 17.58, 25 * 197),
        ('vit_tiny_patch16', 224, 1.26, 25 * 197),
        ('vit_small_patch14_dinov2', 518, 46.76, 25 * 1370),
    ],
)
def test_published_flops_are_products_plus_five_per_normalised_element(
    name, size, published, norms
):
    model = named(name)
    counted = model_flops(model, size) / 2 + 5 * norms * model.width
    assert round(counted / 1e9, 2) == published


def test_vgg16_has_the_published_gmacs():
    assert round(model_flops(named('vgg16'), 224) / 2e9, 2) == 15.47


TINY: dict[str, Any] = {'patch_size': 4, 'width': 8, 'num_heads': 2, 'num_classes': 5}


@pytest.mark.slow
def test_flops_do_not_depend_on_the_implementation_and_scale_with_depth():
    models = [
        CaiT(**TINY, depth=3, attention='explicit'),
        CaiT(**TINY, depth=3, attention='chunked', remat=True),
        CaiT(**TINY, depth=3, attention='fused'),
    ]
    for backward in (False, True):
        assert len({model_flops(m, 16, backward=backward) for m in models}) == 1
    deeper = [model_flops(models[0].clone(depth=d), 16) for d in (1, 2, 12)]
    assert deeper[2] - deeper[1] == 10 * (deeper[1] - deeper[0])
    twice = flops(
        lambda p, x: models[0].apply({'params': p}, x, mutable=['intermediates'])[0],
        jax.eval_shape(models[0].init, jax.random.key(0), np.zeros((1, 16, 16, 3)))['params'],
        shaped(2, 16, 16, 3),
    )
    assert twice == 2 * model_flops(models[0], 16)


def test_scopes_are_modules_and_add_up_to_the_total():
    jax.clear_caches()  # what `nn.remat` traced for other tests is cached without modules' names
    model = ViT(**TINY, depth=3)
    scopes = model_flops_by_scope(model, 16)
    assert scopes['ViT/blocks/mlp/hidden'] == 2 * 3 * 17 * 8 * 32
    assert scopes['ViT/embed/patch/projection'] == 2 * 16 * 48 * 8
    assert sum(scopes.values()) == model_flops(model, 16)
    assert flops_by_scope(lambda x: x + 1, SQUARE) == {}
