import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax.experiment.optim import Optim, optimizer, schedule, trainable

PARAMS = {
    'head': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)},
    'blocks': {'norm': {'scale': jnp.ones((4, 3))}, 'mlp': {'kernel': jnp.ones((4, 3, 3))}},
}


def names(tree):
    return {'/'.join(k.key for k in p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}


def updates(settings, grads, steps=10, count=1):
    tx = optimizer(settings, steps)
    state = tx.init(PARAMS)
    out = None
    for _ in range(count):
        out, state = tx.update(grads, state, PARAMS)
    return names(out)


def test_schedule_warms_up_and_falls_along_a_half_cosine():
    rate: Any = schedule(Optim(peak=1.0, start=0.1, end=0.2, warmup=0.25), 40)
    steps = np.arange(41)
    warm = 0.1 + 0.9 * steps / 10
    cosine = 0.2 + 0.8 * (1 + np.cos(np.pi * (steps - 10) / 30)) / 2
    want = np.where(steps < 10, warm, cosine)
    np.testing.assert_allclose([rate(int(s)) for s in steps], want, rtol=1e-5)


def test_end_is_the_rate_of_the_update_after_the_last():
    rate: Any = schedule(Optim(peak=1.0, end=0.1, warmup=0.0), 100)
    assert float(rate(100)) == pytest.approx(0.1) and 0.1 < float(rate(99)) < 0.101


def test_schedule_counts_updates_under_accumulation():
    rate: Any = schedule(Optim(peak=1.0, end=0.5, warmup=0.0, accumulate=4), 40)
    assert float(rate(10)) == pytest.approx(0.5) and float(rate(0)) == pytest.approx(1.0)


@pytest.mark.parametrize('steps', [1, 2, 3, 7])
@pytest.mark.parametrize('warmup', [0.0, 0.5, 0.999])
def test_schedules_of_few_updates(steps, warmup):
    for accumulate in (1, 2):
        settings = Optim(peak=1.0, start=0.1, end=0.2, warmup=warmup, accumulate=accumulate)
        rate: Any = schedule(settings, steps)
        updates = max(1, steps // accumulate)
        rising = min(round(warmup * updates), updates - 1)
        for n in range(updates):
            cosine = 0.2 + 0.8 * (1 + np.cos(np.pi * (n - rising) / (updates - rising))) / 2
            want = 0.1 + 0.9 * n / rising if n < rising else cosine
            assert float(rate(n)) == pytest.approx(want, rel=1e-5)


def test_only_kernels_decay():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    out = updates(Optim(peak=0.1, warmup=0.0, decay=0.5, end=0.1), zeros)
    for name, update in out.items():
        want = -0.05 if name.endswith('kernel') else 0.0
        np.testing.assert_allclose(update, want, rtol=1e-6)


def test_lamb_is_the_papers_algorithm_layer_by_layer():
    """Algorithm 2 of You et al. 2020 in float64; without a trust ratio where nothing decays."""
    rng, settings = (
        np.random.default_rng(0),
        Optim(name='lamb', peak=0.1, warmup=0.0, decay=0.3, clip=0.0),
    )
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)
    tx: Any = optimizer(settings, 10)
    state, ours, theirs = tx.init(params), params, names(params)
    m = v = {name: np.zeros(p.shape) for name, p in theirs.items()}
    for step in range(3):
        grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), PARAMS)
        update, state = tx.update(grads, state, ours)
        ours = optax.apply_updates(ours, update)
        rate = 0.1 * (1 + np.cos(np.pi * step / 10)) / 2
        m = {n: 0.9 * m[n] + 0.1 * g for n, g in names(grads).items()}
        v = {n: 0.999 * v[n] + 0.001 * g.astype(np.float64) ** 2 for n, g in names(grads).items()}
        for name, x in theirs.items():
            ratio = m[name] / (1 - 0.9 ** (step + 1))
            ratio = ratio / (np.sqrt(v[name] / (1 - 0.999 ** (step + 1))) + 1e-6)
            if name.endswith('kernel'):
                ratio, within = ratio + 0.3 * x, (-2, -1)  # of each layer of the stack
                norms = (np.sqrt((a**2).sum(within, keepdims=True)) for a in (x, ratio))
                ratio = ratio * np.divide(*norms)
            theirs[name] = x - rate * ratio
    for name, x in names(ours).items():
        np.testing.assert_allclose(x, theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('traced', [False, True])
def test_lamb_without_decay_is_adam(traced):
    """As in timm, where only what decays has a trust ratio."""
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda p: 1e-6 * rng.normal(size=p.shape).astype('f4'), PARAMS)
    settings = Optim(name='lamb', peak=0.1, warmup=0.0, decay=0.0, clip=0.0)

    def run(decay):
        return updates(dataclasses.replace(settings, decay=decay), grads, count=3)

    found = jax.jit(run)(0.0) if traced else run(0.0)
    adam = optax.adam(lambda n: 0.1 * (1 + jnp.cos(jnp.pi * n / 10)) / 2, eps=1e-6)
    state, wanted = adam.init(PARAMS), None
    for _ in range(3):
        wanted, state = adam.update(grads, state)
    for name, update in names(wanted).items():
        np.testing.assert_allclose(found[name], update, rtol=1e-4)
    adapted = jax.jit(run)(1e-30)['head/kernel']  # by the norm of ones, where Adam's are small
    assert np.linalg.norm(adapted) > 1.2 * np.linalg.norm(found['head/kernel'])


def test_rmsprop_is_that_of_keras():
    """In float64: the epsilon is under the root, and the first updates are not corrected."""
    rng = np.random.default_rng(0)
    tx: Any = optimizer(Optim(name='rmsprop', peak=0.1, end=0.1, warmup=0, decay=0, clip=0), 10)
    state, v = tx.init(PARAMS), dict.fromkeys(names(PARAMS), 0.0)
    for _ in range(3):
        grads = jax.tree.map(lambda p: 1e-3 * rng.normal(size=p.shape).astype('f4'), PARAMS)
        update, state = tx.update(grads, state, PARAMS)
        for name, g in names(grads).items():
            v[name] = 0.9 * v[name] + 0.1 * g.astype(np.float64) ** 2
            want = -0.1 * g / np.sqrt(v[name] + 1e-7)
            np.testing.assert_allclose(names(update)[name], want, rtol=1e-5)


def orthogonalised(matrix):
    """Five Newton-Schulz steps of Jordan et al. 2024, in float64."""
    x = matrix / np.linalg.norm(matrix)
    x = x.T if x.shape[0] > x.shape[1] else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_orthogonalises_each_matrix_of_a_stack_and_is_adamw_for_the_rest():
    rng = np.random.default_rng(0)
    shapes = {
        'blocks': {
            'conv': {'kernel': (2, 3, 3, 4, 6)}, 'depthwise': {'kernel': (2, 3, 3, 1, 6)},
            'attention': {'qkv': {'kernel': (2, 4, 12), 'bias': (2, 12)}},
        },
        'head': {'kernel': (6, 2)},
    }  # fmt: skip

    def draw():
        def leaf(shape):
            return rng.normal(size=shape).astype(np.float32)

        return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))

    params, grads = draw(), [draw() for _ in range(3)]
    settings = Optim(name='muon', peak=0.1, warmup=0.0, decay=0.3, clip=0.0)
    found = {}
    for name in ('muon', 'adamw'):
        tx: Any = optimizer(dataclasses.replace(settings, name=name), 10)
        state = tx.init(params)
        for each in grads:
            found[name], state = tx.update(each, state, params)
    found = {name: names(update) for name, update in found.items()}
    muon = {'blocks/conv/kernel', 'blocks/attention/qkv/kernel'}
    for name in found['adamw'].keys() - muon:
        np.testing.assert_array_equal(found['muon'][name], found['adamw'][name])

    rate = 0.1 * (1 + np.cos(np.pi * 2 / 10)) / 2
    for name in muon:
        g = [names(each)[name].astype(np.float64) for each in grads]
        moment = 0.05 * (0.95**2 * g[0] + 0.95 * g[1] + g[2])
        moment = 0.95 * moment / (1 - 0.95**4) + 0.05 * g[2] / (1 - 0.95**3)
        parts = np.split(moment, 3, -1) if 'qkv' in name else [moment]
        rows, columns = int(np.prod(parts[0].shape[1:-1])), parts[0].shape[-1]
        want = [
            np.stack([orthogonalised(m.reshape(rows, columns)) for m in part]) for part in parts
        ]
        values = np.linalg.svd(np.stack(want), compute_uv=False)
        assert 0.6 < values.min() and values.max() < 1.25
        want = np.concatenate(want, -1).reshape(moment.shape) * 0.2 * max(rows, columns) ** 0.5
        want = -rate * (want + 0.3 * names(params)[name])
        np.testing.assert_allclose(found['muon'][name], want, rtol=1e-4, atol=1e-6)


def test_the_first_moment_is_kept_in_bfloat16():
    state = optimizer(Optim(moment='bfloat16'), 10).init(PARAMS)
    kinds = {p.dtype.name: p.size for p in jax.tree.leaves(state) if p.size > 1}
    assert set(kinds) == {'bfloat16', 'float32'}


def test_clip_bounds_the_global_norm():
    grads = jax.tree.map(lambda p: 100 * jnp.ones_like(p), PARAMS)
    out = updates(Optim(name='sgd', peak=1.0, warmup=0.0, clip=2.0), grads)
    norm = np.sqrt(sum((np.asarray(u) ** 2).sum() for u in out.values()))
    assert norm == pytest.approx(2.0, rel=1e-5)


def test_freezing_leaves_the_rest_alone_and_keeps_no_moments_for_it():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    settings = Optim(peak=0.1, warmup=0.0, decay=0.5, train='head.*')
    for name, update in updates(settings, grads).items():
        assert (np.abs(update).max() > 0) == name.startswith('head')
    moments = jax.tree.leaves(optimizer(settings, 10).init(PARAMS))
    assert max(m.size for m in moments) == 6


def test_accumulation_averages_gradients():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    settings = Optim(name='sgd', peak=1.0, warmup=0.0, clip=0.0, accumulate=3, end=1.0)
    assert all((np.asarray(u) == 0).all() for u in updates(settings, grads, 9, 2).values())
    for update in updates(settings, grads, 9, 3).values():
        np.testing.assert_allclose(update, -1.0, rtol=1e-6)


def test_trainable_matches_whole_paths():
    mask = names(trainable(PARAMS, r'blocks/.*|head/bias'))
    assert [n for n, t in mask.items() if not t] == ['head/kernel']


@pytest.mark.parametrize(
    ('settings', 'match'),
    [
        (dataclasses.replace(Optim(), name='adam'), "'sgd' or MODULE:NAME: 'adam'"),
        (Optim(train='tail.*'), "'tail.*' matches none under blocks, head"),
        (Optim(train='('), "regular expression: '\\('"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        optimizer(settings, 10).init(PARAMS)
