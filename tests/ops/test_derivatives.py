"""Every hand-written derivative against jax's own of a plain formula, over what it accepts."""

import functools
import random

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy.special import erfc

from vitjax.layers.dense import gelu
from vitjax.ops import gradients, plain, tpu
from vitjax.ops.cpu import convolve, pool, product
from vitjax.ops.plain import drop

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _exact():
    with jax.enable_x64(True):
        yield


def normal(rng, *shape, dtype='float64'):
    return jnp.asarray(rng.normal(size=shape), dtype)


def agree(ours, plain, args, seed=0, tolerance=1e-10):
    """Values, and gradients under a random cotangent, which have the types of their arguments."""
    like = jax.eval_shape(plain, *args)
    given = normal(np.random.default_rng(seed), *like.shape, dtype=like.dtype)

    @jax.jit  # both at once: one compilation
    def run(given, *args):
        (found, back), (wanted, plain_back) = jax.vjp(ours, *args), jax.vjp(plain, *args)
        return (found, *back(given.astype(found.dtype))), (wanted, *plain_back(given))

    found, wanted = run(given, *args)
    assert [grad.dtype for grad in found[1:]] == [arg.dtype for arg in args]
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        scale = tolerance * max(1.0, float(jnp.abs(b).max(initial=0)))
        np.testing.assert_allclose(a.astype('float64'), b.astype('float64'), atol=scale, rtol=0)


# ---- Convolutions and pooling ------------------------------------------------------------------


def drawn(seed):
    """Shapes and settings of a convolution, of all kinds that there are."""
    choose = random.Random(seed).choice
    kernel, groups = (choose((1, 2, 3, 3, 4)), choose((1, 3, 3, 5))), choose((1, 1, 1, 2, 3))
    how = {'stride': choose((1, 1, 2, 3)), 'padding': choose((0, 1, 1, 2, 4)), 'groups': groups}
    shape = (
        choose((0, 1, 2)),
        choose((1, 2, 3, 5, 8)),
        choose((2, 4, 7, 9)),
        groups * choose((1, 3)),
    )
    return shape, (*kernel, shape[-1] // groups, groups * choose((1, 2))), how


@pytest.mark.parametrize('seed', range(24))
def test_convolutions_of_all_settings(seed):
    shape, kernel, how = drawn(seed)
    rng = np.random.default_rng(seed)
    ours, reference = (functools.partial(run, **how) for run in (convolve, plain.convolve))
    agree(ours, reference, (normal(rng, *shape), normal(rng, *kernel)), seed)


@pytest.mark.parametrize('shape', [(2, 6, 5, 4), (1, 1, 1, 1), (0, 3, 4, 2), (2, 1, 7, 3)])
def test_the_depthwise_convolution(shape):
    rng = np.random.default_rng(0)
    args = normal(rng, *shape), normal(rng, 3, 3, 1, shape[-1])
    ours, reference = (
        functools.partial(run, groups=shape[-1]) for run in (convolve, plain.convolve)
    )
    agree(ours, reference, args)


@pytest.mark.parametrize('dtype', ['float64', 'bfloat16'])
@pytest.mark.parametrize('shape', [(2, 6, 8, 3), (1, 5, 7, 2), (2, 1, 4, 3), (0, 4, 4, 2)])
def test_pooling_gives_the_gradient_to_the_first_of_equal_values(shape, dtype):
    tied = jnp.asarray(np.random.default_rng(0).integers(0, 2, shape), dtype)
    agree(pool, functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2)), (tied,))
    square = jnp.ones((1, 2, 2, 1))
    found = jax.jit(jax.grad(lambda x: pool(x).sum()))(square)
    assert found.ravel().tolist() == [1, 0, 0, 0]


# ---- Attention ---------------------------------------------------------------------------------


def attention(q, k, v):
    weights = jax.nn.softmax(jnp.einsum('bhqd,bhkd->bhqk', q, k))
    return jnp.einsum('bhqk,bhkd->bhqd', weights, v)


TOKENS = [  # images, heads, queries, keys, widths of keys and values
    (2, 3, 4, 5, 6, 6), (1, 1, 1, 1, 1, 1), (2, 2, 1, 7, 3, 5), (0, 2, 3, 4, 5, 5),
    (2, 2, 0, 4, 5, 5), (2, 2, 3, 4, 1, 2),
]  # fmt: skip


@pytest.mark.parametrize('shape', TOKENS)
def test_attention(shape):
    batch, heads, queries, keys, width, out = shape
    rng = np.random.default_rng(0)
    sizes = (queries, width), (keys, width), (keys, out)
    agree(gradients.gather, attention, [normal(rng, batch, heads, *size) for size in sizes])


@pytest.mark.parametrize('shape', [(2, 3, 4, 5, 6), (1, 1, 1, 1, 1), (2, 5, 1, 7, 48),
    (2, 4, 3, 4, 32), (1, 2, 3, 4, 150), (0, 2, 3, 4, 8)])  # fmt: skip
def test_attention_of_packed_heads(shape):
    batch, heads, queries, keys, width = shape
    rng = np.random.default_rng(0)

    def plain(q, k, v):
        q, k, v = (x.reshape(*x.shape[:2], heads, width).swapaxes(1, 2) for x in (q, k, v))
        out = attention(q / np.sqrt(width), k, v).swapaxes(1, 2)
        return out.reshape(batch, queries, heads * width)

    args = [normal(rng, batch, n, heads * width) for n in (queries, keys, keys)]
    agree(lambda q, k, v: gradients.gather_packed(q, k, v, heads), plain, args)


def test_heads_that_do_not_divide_the_channels_are_refused():
    x = jnp.ones((1, 2, 7))
    with pytest.raises(ValueError, match='heads must divide the channels: heads=2, 7 channels'):
        gradients.gather_packed(x, x, x, 2)


def mixed(logits, before, before_bias, after, after_bias):
    logits = jnp.einsum('bhqk,hg->bgqk', logits, before) + before_bias[:, None, None]
    weights = jnp.einsum('bhqk,hg->bgqk', jax.nn.softmax(logits), after)
    return weights + after_bias[:, None, None]


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (1, 1, 1, 1), (0, 2, 3, 4), (2, 4, 0, 4)])
def test_talking_heads(shape):
    rng, heads = np.random.default_rng(0), shape[1]
    mixing = [normal(rng, *size) for size in ((heads, heads), (heads,)) * 2]
    agree(gradients.talk, mixed, (normal(rng, *shape), *mixing))


# ---- Rows and elements -------------------------------------------------------------------------

LEADS = [(), (2, 3, 4), (0, 3)]


def standard(x, scale, bias):
    x = x.astype(jnp.promote_types(x.dtype, 'float32'))
    deviation = jnp.sqrt(jnp.square(x - x.mean(-1, keepdims=True)).mean(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / deviation * scale + bias


@pytest.mark.parametrize('widths', [(3, 4), (1, 1), (0, 2), (2, 0)])
@pytest.mark.parametrize('lead', LEADS)
def test_dense_layers_and_layer_norm(lead, widths):
    rng, (width, features) = np.random.default_rng(0), widths
    x, kernel = normal(rng, *lead, width), normal(rng, width, features)
    agree(product, jnp.matmul, (x, kernel))
    agree(tpu.affine, lambda x, k, b: x @ k + b, (x, kernel, normal(rng, features)))
    if width:
        agree(gradients.layer_norm, standard, (x, normal(rng, width), normal(rng, width)))


MIXED = [('bfloat16', 'bfloat16'), ('bfloat16', 'float32'), ('float32', 'float16')]


@pytest.mark.parametrize('dtypes', MIXED, ids='-'.join)
def test_gradients_have_the_types_of_their_arguments(dtypes):
    """The values too, to the rounding of 16 bits, which each side does in another order."""
    rng, (one, other) = np.random.default_rng(0), dtypes
    x, kernel, bias = normal(rng, 2, 3, dtype=one), normal(rng, 3, 4, dtype=other), normal(rng, 4)
    three = normal(rng, 3, dtype=other), normal(rng, 3, dtype='bfloat16')
    heads = [normal(rng, 1, 2, 3, 4, dtype=kind) for kind in (one, other, one)]
    mixing = [normal(rng, *size, dtype=other) for size in ((2, 2), (2,)) * 2]
    check = functools.partial(agree, tolerance=0.05)
    check(product, jnp.matmul, (x, kernel))
    check(tpu.affine, lambda x, k, b: x @ k + b, (x, kernel, bias.astype('bfloat16')))
    check(gradients.layer_norm, standard, (x, *three))
    check(gradients.gather, attention, heads)
    check(gradients.talk, mixed, (normal(rng, 1, 2, 3, 4, dtype=one), *mixing))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_gelu_of_all_16_bit_numbers(dtype):
    """The value and its slope: exact but for float32's rounding inside and the last one."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    x = np.arange(2**16, dtype=np.uint16).view(kind)
    x = x[np.isfinite(x.astype('float32'))]
    wide = x.astype('float64')
    cdf = erfc(-wide / np.sqrt(2)) / 2
    density = np.exp(-np.minimum(wide**2, 1e4) / 2) / np.sqrt(2 * np.pi)
    found = jax.jit(gelu)(x), jax.jit(jax.vmap(jax.grad(gelu)))(x)
    for got, want in zip(found, (wide * cdf, cdf + wide * density), strict=True):
        assert got.dtype == kind
        info = ml_dtypes.finfo(kind)
        # Besides half a unit in the last place: 1 + erf is rounded in float32.
        tolerance = 0.51 * float(info.eps) * np.abs(want) + 1.2e-7 * np.maximum(np.abs(wide), 1)
        assert (np.abs(np.asarray(got, 'float64') - want) <= tolerance).all()
        middle = (wide >= -4) & (wide <= -1)  # where 16 bits inside lost 7% in the median
        error = np.abs(np.asarray(got, 'float64') - want)[middle] / np.abs(want[middle])
        assert np.median(error) < float(info.eps) / 2


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('rate', [0.5, 1 - 1e-9])
def test_dropout_near_its_ends_is_finite_and_so_is_its_gradient(rate, dtype):
    x = jnp.ones((40, 50), dtype)
    run = jax.jit(jax.value_and_grad(lambda x: drop(jax.random.key(0), x, rate).sum()))
    value, slope = run(x)
    assert jnp.isfinite(value) and jnp.isfinite(slope).all()
    kept = np.asarray(slope, 'float64')
    kept = kept[kept > 0]
    np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=0.01)  # bfloat16 rounds by 0.4%
    assert abs(len(kept) / x.size - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / x.size) + 1e-9
    assert drop(jax.random.key(0), jnp.ones((0, 3)), 0.5).shape == (0, 3)
    assert drop(jax.random.key(0), jnp.ones((3, 0)), 0.5).shape == (3, 0)
