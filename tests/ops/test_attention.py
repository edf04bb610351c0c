import contextlib
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import distance, normal, random_like
from jax.test_util import check_grads
from references import attention as reference

from vitjax import ops
from vitjax.ops import Mixing, attend, attention, cpu, gpu, plain, tpu

# batch, queries, keys, heads, head width
SHAPES = [
    (3, 1, 1, 4, 5),
    (5, 3, 3, 8, 2),
    (2, 17, 17, 3, 7),
    (7, 1, 30, 2, 4),
    (3, 11, 29, 1, 1),
    (9, 121, 121, 4, 3),  # chunked takes 5 images at a time, then 4 and one of padding
    (2, 437, 437, 4, 3),  # chunked takes 110 rows at a time, with 3 of padding
]


def make(shape, talking):
    batch, queries, keys, heads, width = shape
    tokens = [(batch, n, heads, width) for n in (queries, keys, keys)]
    mixing = [(heads, heads), (heads,)] * 2
    arrays = random_like([jax.ShapeDtypeStruct(s, 'float32') for s in tokens + mixing], scale=1.0)
    q, k, v, *mixing = map(jnp.asarray, arrays)
    return q, k, v, Mixing(*mixing) if talking else None


def value_and_gradients(implementation, args):
    q, k, v, mixing = args
    toward = normal(*q.shape, seed=1)

    @jax.jit
    def run(args):
        def scalar(args):
            q, k, v, mixing = args
            out = attend(q, k, v, implementation=implementation, mixing=mixing)
            return (out * toward).sum(), out

        with ops.entered():
            return jax.grad(scalar, has_aux=True)(args)

    gradients, out = run(args)
    return out, gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    ('shape', 'talking'), [*[(s, True) for s in SHAPES], *[(s, False) for s in SHAPES[2:6:3]]]
)
def test_implementations_agree_with_the_reference_and_each_other(shape, talking):
    args = make(shape, talking)
    out, gradients = value_and_gradients('explicit', args)
    assert distance(out, reference(*args)) < 1e-5
    all_of_them = ('chunked', 'packed', 'multi_query', 'fused', 'auto')
    for implementation in all_of_them if shape == SHAPES[2] else ('chunked',):
        np.testing.assert_allclose(
            attend(*args[:3], implementation=implementation, mixing=args[3]), out, atol=1e-5
        )
        other, others = value_and_gradients(implementation, args)
        assert distance(other, out) < 1e-5
        assert distance(others, gradients) < 1e-4


@pytest.mark.parametrize('block', [(2, 3), (5, 4), (3, 1)])
def test_chunked_is_exact_however_it_cuts(block, monkeypatch):
    cut = functools.partial(cpu.attend, block=lambda *shape: block)
    monkeypatch.setattr(cpu, 'attend', cut)
    args = make((5, 11, 6, 3, 4), True)
    out, gradients = value_and_gradients('explicit', args)
    other, others = value_and_gradients('chunked', args)
    assert distance(other, out) < 1e-5
    assert distance(others, gradients) < 1e-4


@pytest.mark.parametrize('talking', [False, True])
def test_a_tap_changes_neither_attention_nor_its_gradients(talking):
    """Hand-written gradients against those that jax derives from every intermediate."""
    q, k, v, mixing = make((2, 7, 9, 4, 3), talking)

    def scalar(args, tap):
        out = attend(*args[:3], implementation='explicit', mixing=args[3], tap=tap)
        return jnp.sin(out).sum(), out

    seen = []
    grad = jax.grad(scalar, has_aux=True)
    with ops.entered():
        gradients, out = grad((q, k, v, mixing), None)
        others, other = grad((q, k, v, mixing), lambda name, x: seen.append(name) or x)
    assert seen == (['mixed_logits', 'weights', 'mixed_weights'] if talking else ['weights'])
    assert distance(out, other) < 1e-6
    assert distance(gradients, others) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('implementation', [None, 'xla'])
def test_talking_heads_are_multi_query_attention_of_wider_heads(implementation):
    args: Any = make((2, 7, 9, 4, 3), True)

    def multi_query(q, k, v, mixing):
        return attention.multi_query(q, k, v, mixing, implementation=implementation)

    def run(attend):
        return jax.value_and_grad(lambda args: jnp.sin(attend(*args)).sum())(args)

    value, gradients = run(lambda q, k, v, m: plain.explicit(q, k, v, mixing=m))
    other, others = run(multi_query)
    assert distance(other, value) < 1e-5
    assert distance(others, gradients) < 1e-5
    q, k, v = (x.astype('bfloat16') for x in args[:3])
    half = multi_query(q, k, v, args[3])
    assert half.dtype == jnp.bfloat16
    assert distance(half.astype('float32'), reference(*args)) < 2e-2


@pytest.mark.parametrize(('heads', 'width'), [(1, 150), (3, 64), (4, 64), (5, 48), (2, 128)])
def test_packed_is_exact_however_heads_fill_its_groups(heads, width):
    args = make((2, 7, 9, heads, width), False)
    out, gradients = value_and_gradients('explicit', args)
    other, others = value_and_gradients('packed', args)
    assert distance(other, out) < 1e-5
    assert distance(others, gradients) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(('queries', 'keys'), [(7, 9), (7, 4), (1, 9), (6, 5), (4, 6)])
def test_fused_kernels_see_even_lengths_and_the_result_is_exact(queries, keys, monkeypatch):
    """cuDNN's wrapper refuses odd ones; XLA's implementation takes the same arguments."""
    q, k, v, _ = make((2, queries, keys, 3, 4), False)
    inner, lengths = jax.nn.dot_product_attention, set()

    def counted(q, k, v, **options):
        lengths.update((q.shape[1], k.shape[1]))
        return inner(q, k, v, **options)

    monkeypatch.setattr(jax.nn, 'dot_product_attention', counted)

    def run(attend):
        return jax.value_and_grad(lambda args: jnp.sin(attend(*args)).sum())((q, k, v))

    value, gradients = run(plain.explicit)
    other, others = run(lambda *args: attention.at_even_lengths(*args, implementation='xla'))
    assert lengths and not any(length % 2 for length in lengths)
    assert distance(other, value) < 1e-6
    assert distance(others, gradients) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize('talking', [False, True])
def test_gradients_are_those_of_finite_differences(talking):
    with jax.enable_x64(True):
        args = jax.tree.map(lambda x: jnp.asarray(x, 'float64'), make((2, 5, 4, 3, 2), talking))
        for implementation in ('explicit', 'chunked', 'packed', 'multi_query'):

            def run(q, k, v, mixing, implementation=implementation):
                return attend(q, k, v, implementation=implementation, mixing=mixing)

            with ops.entered():
                check_grads(run, args, order=1, modes=['rev'], atol=1e-7, rtol=1e-7)
            if implementation in ('explicit', 'chunked'):
                check_grads(run, args, order=2, atol=1e-5, rtol=1e-5)


def temporary_bytes(implementation, tokens, talking, dropout=0.0, within=ops.entered):
    """Bytes besides arguments and results that a gradient of 8 heads of 16 needs."""
    tree = (jax.ShapeDtypeStruct((1, tokens, 8, 16), jnp.float32),) * 3
    shapes = ((8, 8), (8,)) * 2
    arrays: Any = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    mixing = Mixing(*arrays) if talking else None

    def scalar(args, mixing):
        out = attend(
            *args, implementation=implementation, mixing=mixing, dropout=dropout,
            key=jax.random.key(0) if dropout else None,
        )  # fmt: skip
        return jnp.sin(out).sum()

    with within():
        compiled = jax.jit(jax.grad(scalar, (0, 1) if talking else 0)).lower(tree, mixing).compile()
    memory: Any = compiled.memory_analysis()
    return memory.temp_size_in_bytes


def test_blocks_of_images_divide_the_batch_if_a_divisor_is_near():
    assert cpu.block(8, 4, 196, 196) == (2, 196)  # 3 would fit, and pad a ninth
    assert cpu.block(7, 4, 196, 196) == (3, 196)  # 7 has no divisor near
    assert cpu.block(2, 4, 16, 16) == (2, 16)
    assert cpu.block(2, 4, 1024, 1024) == (1, 128)


@pytest.mark.slow
@pytest.mark.parametrize('talking', [False, True])
def test_chunked_gradient_needs_memory_linear_in_tokens(talking):
    longest = temporary_bytes('chunked', 4096, talking)
    assert longest < 0.1 * temporary_bytes('explicit', 4096, talking)
    assert longest < 4.5 * temporary_bytes('chunked', 1024, talking)
    assert temporary_bytes('chunked', 4096, talking, 0.1) < 2 * longest
    outside = temporary_bytes('auto', 4096, talking, within=contextlib.nullcontext)
    assert outside < 0.1 * temporary_bytes('explicit', 4096, talking)


@pytest.mark.parametrize('implementation', ['explicit', 'chunked', 'auto'])
def test_attention_dropout_keeps_the_mean_and_drops_the_rate(implementation, monkeypatch):
    cut = {'block': lambda *shape: (2, 16), 'choose': lambda *args, **kwargs: 'chunked'}
    monkeypatch.setattr(cpu, 'attend', functools.partial(attention.attend, **cut))
    q = jnp.zeros((4, 64, 2, 64))
    v = jnp.broadcast_to(jnp.eye(64)[:, None], (4, 64, 2, 64))  # the output is the weights
    drop: dict[str, Any] = {'dropout': 0.25, 'key': jax.random.key(0)}
    with ops.entered():
        weights = attend(q, q, v, implementation=implementation, **drop)
    if implementation == 'explicit':
        np.testing.assert_array_equal(attend(q, q, v, **drop), weights)
    kept = np.asarray(weights) > 0
    assert abs(kept.mean() - 0.75) < 0.01
    np.testing.assert_allclose(weights[kept], 1 / 64 / 0.75, rtol=1e-5)
    rows = kept.swapaxes(1, 2).reshape(-1, 64)
    assert len(np.unique(rows, axis=0)) == len(rows)  # no block repeats another's bits


@pytest.mark.parametrize('within', [ops.entered, contextlib.nullcontext])
@pytest.mark.parametrize('implementation', ['packed', 'multi_query', 'fused'])
def test_attention_dropout_needs_a_key_and_no_fused_kernel(implementation, within):
    q = jnp.ones((1, 3, 2, 4))
    np.testing.assert_array_equal(attend(q, q, q, dropout=0.5), attend(q, q, q))
    message = rf"attention='{implementation}' has no .*attention_dropout=0.5; take"
    with within(), pytest.raises(ValueError, match=message):
        attend(q, q, q, implementation=implementation, dropout=0.5, key=jax.random.key(0))


@pytest.mark.parametrize('within', [ops.entered, contextlib.nullcontext])
def test_unknown_implementation_is_an_error_that_names_all(within):
    q = jnp.ones((1, 3, 2, 4))
    with (
        within(),
        pytest.raises(
            ValueError, match=r"auto.*explicit.*chunked.*packed.*multi_query.*fused.*: 'pallas'"
        ),
    ):
        attend(q, q, q, implementation='pallas')


def test_a_tap_may_replace_what_it_sees():
    q, k, v, mixing = make((2, 3, 3, 2, 4), True)
    seen = {}

    def tap(name, value):
        seen[name] = value
        return jnp.zeros_like(value) if name == 'mixed_weights' else value

    out = attend(q, k, v, implementation='explicit', mixing=mixing, tap=tap)
    assert set(seen) == {'mixed_logits', 'weights', 'mixed_weights'}
    np.testing.assert_allclose(seen['weights'].sum(-1), 1, rtol=1e-5)
    assert not np.any(out)


@pytest.mark.parametrize('talking', [False, True])
@pytest.mark.parametrize(
    'implementation', ['explicit', 'chunked', 'packed', 'multi_query', 'fused']
)
def test_scores_are_float32_in_bfloat16(implementation, talking):
    q, k, v, mixing = make((2, 33, 33, 2, 8), talking)
    q, k, v = (x.astype('bfloat16') for x in (q, k, v))
    for within in (ops.entered, contextlib.nullcontext):
        with within():
            out = attend(q, k, v, implementation=implementation, mixing=mixing)
        assert out.dtype == jnp.bfloat16
        assert distance(out.astype('float32'), reference(q, k, v, mixing)) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(('heads', 'width', 'talking'), [(6, 64, False), (4, 48, True)])
def test_gradients_in_bfloat16_are_those_in_float32(heads, width, talking):
    """Sizes of ViT-S and CaiT-XXS, which kernels of a GPU take; it runs there as it runs here."""
    args = make((2, 197, 197, heads, width), talking)
    out, gradients = value_and_gradients('explicit', args)
    half = (*(x.astype('bfloat16') for x in args[:3]), args[3])
    for implementation in ('explicit', 'chunked', 'packed', 'multi_query', 'fused'):
        other, others = value_and_gradients(implementation, half)
        assert distance(other.astype('float32'), out) < 1e-2
        assert distance(others, gradients) < 2e-2


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [
        ((8, 196, 196, 4), 'explicit'),  # 5 MiB of scores
        ((64, 144, 144, 4), 'chunked'),  # 21 MiB
    ],
)
def test_auto_chooses_by_the_size_of_the_scores_on_cpu(shape, expected):
    batch, queries, keys, heads = shape
    q: Any = jax.ShapeDtypeStruct((batch, queries, heads, 32), jnp.float32)
    assert cpu.choose(q, keys, talking=False, dropout=False) == expected
    assert cpu.choose(q, keys, talking=True, dropout=False) == 'chunked'


def test_one_query_is_explicit_however_many_keys():
    q, k = jnp.ones((2, 1, 2, 4)), jnp.ones((2, 4096, 2, 4))
    with ops.entered():
        assert 'while' not in str(jax.make_jaxpr(attend)(q, k, k))
    assert 'scan' not in str(jax.make_jaxpr(attend)(q, k, k))


H100, A100, V100 = (
    SimpleNamespace(platform='gpu', compute_capability=c) for c in ('9.0', '8.0', '7.0')
)
MI300 = SimpleNamespace(platform='gpu', compute_capability='gfx942')
TPU = SimpleNamespace(platform='tpu')


@pytest.mark.parametrize(
    ('device', 'width', 'dtype', 'expected'),
    [
        (H100, 64, 'bfloat16', 'fused'),
        (H100, 256, 'float16', 'fused'),
        (H100, 264, 'bfloat16', 'explicit'),
        (H100, 60, 'bfloat16', 'explicit'),
        (H100, 64, 'float32', 'explicit'),
        (A100, 128, 'bfloat16', 'fused'),
        (A100, 136, 'bfloat16', 'explicit'),
        (V100, 64, 'float16', 'explicit'),
        (MI300, 64, 'bfloat16', 'explicit'),
        (TPU, 64, 'bfloat16', 'packed'),
        (TPU, 32, 'float32', 'explicit'),  # 192 channels are one group of heads and a half
        (TPU, 80, 'bfloat16', 'explicit'),
    ],
)
def test_auto_chooses_for_the_device_that_it_traces_for(
    device, width, dtype, expected, monkeypatch
):
    """Not for the one that traces: here a CPU, which would cut these scores and has no kernels."""
    monkeypatch.setattr(attention, 'device', lambda: device)
    platform = {'gpu': gpu, 'tpu': tpu}[device.platform]

    def choose(tokens, **given):
        q: Any = jax.ShapeDtypeStruct((64, tokens, 6, width), dtype)
        return platform.choose(q, tokens, **{'talking': False, 'dropout': False, **given})

    assert choose(197) == expected
    assert choose(197, talking=True) == 'multi_query'
    assert choose(197, dropout=True) == choose(197, talking=True, dropout=True) == 'explicit'
    assert choose(1024, talking=True) == choose(1024, dropout=True) == 'chunked'
    assert attention.rows(64, 4, 196, 196) == (64, 98)


def test_the_device_traced_for_is_the_default_device():
    first, last = jax.devices()[0], jax.devices()[-1]
    assert ops.device() == first
    with jax.default_device(last):
        assert ops.device() == last
    with jax.default_device('cpu'):
        assert ops.device() == first
