import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.plan import timing

SHAPES = (jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((32,), jnp.bfloat16))


def test_seconds_are_the_median_without_the_first_call(monkeypatch):
    clock = iter([0, 50, 60, 61, 70, 72, 80, 89])  # calls take 50, 1, 2 and 9
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: next(clock))
    calls = []
    assert timing.seconds(lambda *args: calls.append(args), (1, 2), repeats=3) == 2
    assert calls == [(1, 2)] * 4


def test_random_arrays_have_the_shapes_and_a_fixed_seed():
    first, second = timing.random_arrays(SHAPES), timing.random_arrays(SHAPES)
    assert [(x.shape, x.dtype) for x in first] == [(s.shape, s.dtype) for s in SHAPES]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert float(first[0].std()) == pytest.approx(0.1, rel=0.05)


def test_backward_differentiates_the_sum_of_squares():
    def run(w, x):
        return (w @ x).astype(jnp.bfloat16)

    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    value, (to_w, to_x) = timing.backward(run, (0, 1))(w, x)
    y = w @ x
    np.testing.assert_allclose(value, (y**2).sum(), rtol=0.01)  # bfloat16 has 8 bits
    np.testing.assert_allclose(to_w, 2 * np.outer(y, x), rtol=0.02)
    np.testing.assert_allclose(to_x, 2 * w.T @ y, rtol=0.02, atol=0.02)


def test_a_measurement_has_its_parts():
    row = timing.measure(lambda x: x @ x.T, SHAPES[:1], flops=10**6, repeats=2, runs=4)
    assert row['status'] == 'ok' and row['flops'] == 10**6
    assert row['bytes'] >= 4 * (64 * 32 + 64 * 64)  # the argument and the result
    assert row['compile_seconds'] > 0 and row['seconds'] > 0
    assert row['flops_per_second'] == pytest.approx(1e6 / row['seconds'])
    speed = row['flops_per_second'] / timing.peak('float32')
    assert row['utilisation'] == pytest.approx(speed)


def test_seconds_are_of_one_run(monkeypatch):
    monkeypatch.setattr(timing, 'seconds', lambda fn, args, repeats: 6.0)
    timing.peak.cache_clear()
    row = timing.measure(jnp.sin, SHAPES[:1], flops=30, repeats=1, runs=3)
    assert (row['seconds'], row['flops_per_second']) == (2.0, 15.0)
    assert timing.peak('float32') == 2 * 2048**3 / 6.0
    timing.peak.cache_clear()


def test_too_large_a_program_is_reported_before_it_runs(monkeypatch):
    monkeypatch.setattr(timing, 'device_bytes', lambda: 10_000)
    monkeypatch.setattr(timing, 'seconds', lambda *_: pytest.fail('it ran'))
    row = timing.measure(lambda x: x @ x.T, SHAPES[:1], flops=1, repeats=1)
    assert row['status'] == 'out of memory' and row['bytes'] > 10_000
    assert math.isnan(row['seconds']) and math.isnan(row['utilisation'])


@pytest.mark.parametrize('message', ['RESOURCE_EXHAUSTED: Out of memory', 'INTERNAL: a bug'])
def test_only_running_out_of_memory_is_caught(message, monkeypatch):
    def fail(*args):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax, 'block_until_ready', fail)
    if message.startswith('RESOURCE'):
        row = timing.measure(jnp.sin, SHAPES[:1], flops=2, repeats=1)
        assert row['status'] == 'out of memory' and math.isnan(row['seconds'])
    else:
        with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
            timing.measure(jnp.sin, SHAPES[:1], flops=2, repeats=1)


def test_the_device_has_memory():
    assert timing.device_bytes() > 2**28
