"""Operations are plain outside of a step and the platform's inside, whatever jax has cached."""

import functools
import inspect
import threading
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import distance, normal, random_params
from tiny_models import CAIT, CONVNET, CURRENT, MULTI, PATCHCONVNET, POOLED, VIT

from vitjax import ops
from vitjax.inside.capture import gradients
from vitjax.ops import cpu, gpu, plain, tpu
from vitjax.training.step import eval_step

MODELS: dict[str, Any] = {
    'vit': VIT, 'current': CURRENT, 'pooled': POOLED, 'cait': CAIT, 'patchconvnet': PATCHCONVNET,
    'multi': MULTI.clone(depthwise=False),
    'convnet': CONVNET.clone(widths=(32, 32)), 'remat': CAIT.clone(remat=True),
}  # fmt: skip
IMAGES = normal(2, 16, 16, 3)


def fast(fn, *args):
    """True if a function's program has hand-written gradients."""
    return 'custom_vjp' in str(jax.make_jaxpr(fn)(*args))


@pytest.mark.parametrize('name', MODELS)
def test_a_step_has_the_values_and_gradients_of_the_plain_model(name):
    model = MODELS[name]
    params = random_params(model, IMAGES)

    def run(params):
        def loss(params):
            out = model.apply({'params': params}, IMAGES)
            return jnp.sin(out).sum(), out

        return jax.grad(loss, has_aux=True)(params)

    def entered(params):
        with ops.entered():
            return run(params)

    assert fast(entered, params) and not fast(run, params)
    assert distance(jax.jit(entered)(params), jax.jit(run)(params)) < 2e-5


@pytest.mark.parametrize('name', MODELS)
def test_a_model_is_plain_before_and_after_a_step_in_one_process(name):
    """The same functions and modules each time, so that whatever jax remembers of them is asked."""
    model = MODELS[name]
    params = random_params(model, IMAGES)

    def apply(params):
        return model.apply({'params': params}, IMAGES).sum()

    jitted = jax.jit(apply)

    def step(params):
        with ops.entered():
            return jitted(params)

    for _ in range(2):
        assert not fast(apply, params) and not fast(jitted, params)
        assert np.isfinite(jax.jvp(jitted, (params,), (params,))[1])
        assert fast(step, params)
        with pytest.raises(TypeError, match='forward-mode'):
            jax.jvp(step, (params,), (params,))
        with ops.entered():
            assert fast(apply, params) and fast(jitted, params)


def test_loops_and_recomputed_functions_are_traced_anew():
    def body(x, _):
        return ops.layer_norm(x, jnp.ones(4), jnp.zeros(4)), None

    recomputed = jax.checkpoint(lambda x: body(x, None)[0])

    def scanned(x):
        return jax.lax.scan(body, recomputed(x), None, length=3)[0]

    x = jnp.ones((2, 4))
    for _ in range(2):
        plain_text = str(jax.make_jaxpr(scanned)(x))
        with ops.entered():
            text = str(jax.make_jaxpr(scanned)(x))
        assert text.count('custom_vjp_call') == 2 and 'custom_vjp' not in plain_text


def test_another_thread_stays_plain():
    seen = []
    x = jnp.ones((2, 4))

    def norm(x):
        return ops.layer_norm(x, jnp.ones(4), jnp.zeros(4))

    with ops.entered():
        thread = threading.Thread(target=lambda: seen.append(fast(norm, x)))
        thread.start()
        thread.join()
        seen.append(fast(norm, x))
    assert seen == [False, True]


def test_our_steps_enter_and_leave(monkeypatch):
    params = random_params(VIT, IMAGES)
    evaluate = functools.partial(eval_step, model=VIT)
    assert fast(evaluate, params, IMAGES)
    attend, called = cpu.attend, []
    monkeypatch.setattr(cpu, 'attend', lambda *a, **k: called.append(a) or attend(*a, **k))
    # A gradient's program has no name of the hand-written ones: jax 0.12 inlines them.
    jax.make_jaxpr(lambda p: gradients(VIT, p, IMAGES, lambda x: x.sum(), keep='norm'))(params)
    assert called
    called.clear()
    assert not fast(lambda p: VIT.apply({'params': p}, IMAGES), params)
    assert not called


@pytest.mark.parametrize(('platform', 'module'), [('cpu', cpu), ('gpu', gpu), ('tpu', tpu)])
def test_the_platform_is_that_of_the_device_traced_for(platform, module, monkeypatch):
    """Not that of the machine that traces: here a CPU, for devices that are only described."""
    monkeypatch.setattr(ops, 'device', lambda: SimpleNamespace(platform=platform))
    monkeypatch.setattr(module, 'in_thirds', lambda: platform, raising=False)
    assert ops.in_thirds() is False
    with ops.entered():
        assert ops.in_thirds() == platform
    assert ops.in_thirds() is False


def test_a_platform_without_versions_is_plain(monkeypatch):
    monkeypatch.setattr(ops, 'device', lambda: SimpleNamespace(platform='another'))
    params = random_params(VIT, IMAGES)
    assert not fast(functools.partial(eval_step, model=VIT), params, IMAGES)


def test_every_version_takes_the_arguments_of_its_reference():
    for module in (cpu, gpu, tpu):
        for name in {*ops.__all__} & {*vars(module)} & {*vars(plain)}:
            version, reference = (inspect.signature(getattr(m, name)) for m in (module, plain))
            more = {'choose', 'block'} if name == 'attend' else set()
            assert {*version.parameters} - more == {*reference.parameters}, (module, name)
