import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import distance

from vitjax.data import order
from vitjax.data.augment import Augment, augment
from vitjax.experiment.optim import Optim, optimizer
from vitjax.models import CaiT, ViT
from vitjax.runs import checkpoint
from vitjax.training import layout
from vitjax.training.step import WHOLE, Recipe, Split, init_state, train_step

SGD = Optim(name='sgd', peak=0.1, end=0.1, warmup=0.0, clip=0.0)
NORMAL = ((0.5,) * 3, (0.25,) * 3)
MODEL = ViT(patch_size=4, width=64, depth=2, num_heads=2, num_classes=5)
MODELS = {
    'vit': MODEL,
    'cait': CaiT(
        patch_size=4, width=64, depth=2, class_depth=1, num_heads=2, num_classes=5, layer_scale=0.1
    ),
}


SEEDS = ['none', 'seeds']  # several seeds: as on CPU, and as on accelerators


@pytest.fixture(scope='module')
def data():
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    return images, (np.arange(64) % 5).astype(np.int32)


def start(model, optim):
    tx = optimizer(optim, 10)
    vary = functools.partial(augment, Augment(size=8, flip=0.5, mixup=0.3), NORMAL, 5)
    state = init_state(jax.random.key(0), model=model, tx=tx, image_shape=(8, 8, 3))
    return state, functools.partial(step_of, Recipe(model=model, tx=tx, augment=vary))


def step_of(recipe, state, batch, key, split=WHOLE):
    return train_step(state, batch, key, dataclasses.replace(recipe, split=split))


def copied(state):
    """A state that a run may use up."""
    return jax.tree.map(jnp.copy, state)


def take(made, step, placed, data, rows, count, keys=None):
    """Some steps in a layout, on data that it has placed."""
    program, keys = made.wrap(step, made.fetch(placed)[0]), keys or [jax.random.key(1)]
    return made.run(program, placed, data, rows, count, keys)


def run(way, data, model, optim, steps=10, devices=None, *, each=False):
    """Steps on all data, or (`each`) on those that come with the steps."""
    state, step = start(model, optim)
    made = layout.layout(way, devices, batch_size=16)
    rows = batches(0, steps)
    data = tuple(x[rows] for x in data) if each else data
    placed = made.place([state])
    placed, metrics = take(made, step, placed, made.place_batch(*data), rows, steps)
    (state,) = made.fetch(placed)
    return state, {name: values[:, 0] for name, values in metrics.items()}


def batches(seed, steps):
    """Rows [steps, seeds = 1, batch]."""
    return order.Order((seed,), 64, 16).rows(0, steps)


@pytest.fixture(scope='module')
def one_device(data):
    return {name: run('none', data, model, SGD) for name, model in MODELS.items()}


@pytest.mark.slow
@pytest.mark.parametrize(('way', 'name'), [('pmap', 'vit'), ('fsdp', 'cait')])
def test_eight_devices_take_the_steps_of_one(data, one_device, way, name):
    alone, expected = one_device[name]
    state, metrics = run(way, data, MODELS[name], SGD)
    for key in ('loss', 'grad_norm', 'accuracy'):
        np.testing.assert_allclose(metrics[key], expected[key], rtol=1e-5)
    local, reference = (jax.tree.map(np.asarray, s.params) for s in (state, alone))
    off = optax.tree.norm(optax.tree.sub(local, reference)) / optax.tree.norm(reference)
    assert off < 1e-5
    assert int(state.step) == 10


@pytest.mark.slow
@pytest.mark.parametrize('way', ['pmap', 'fsdp'])
def test_adamw_has_the_same_losses(data, way):
    optim = Optim(peak=1e-3, warmup=0.0)
    _, alone = run('none', data, MODEL, optim)
    _, shared = run(way, data, MODEL, optim)
    np.testing.assert_allclose(shared['loss'], alone['loss'], rtol=1e-4)


@pytest.mark.slow
def test_dropout_differs_per_device(data):
    # The same example everywhere and no augmentation: only dropout can tell devices apart.
    tx = optimizer(SGD, 10)
    model = MODEL.clone(dropout=0.5)
    state = init_state(jax.random.key(0), model=model, tx=tx, image_shape=(8, 8, 3))
    images = jnp.repeat(data[0][:1], 8, axis=0)[:, None]
    batch = {'image': images, 'label': jnp.zeros((8, 1), int), 'index': jnp.arange(8)[:, None]}

    vary = functools.partial(augment, Augment(size=8), NORMAL, 5)
    recipe = Recipe(model=model, tx=tx, augment=vary)

    def step(state, batch, split):
        return step_of(recipe, state, batch, jax.random.key(0), split)[1]['loss']

    split = functools.partial(step, split=Split('batch'))
    averaged = np.asarray(jax.pmap(split, 'batch', in_axes=(None, 0))(state, batch))
    assert np.ptp(averaged) == 0
    one = jax.tree.map(lambda x: x[0], batch)
    alone = jax.jit(functools.partial(step, split=Split()))(state, one)
    assert abs(averaged[0] - alone) > 1e-3  # one shared mask would make the mean one device's loss


@pytest.mark.slow
def test_a_slice_of_a_core_counts_as_a_device(data, monkeypatch):
    """Two devices with two slices each draw what four devices do, dropout and augmentation too."""
    model = MODEL.clone(dropout=0.3, attention_dropout=0.2)
    four, there = run('pmap', data, model, SGD, devices=jax.devices()[:4])
    whole, other = run('pmap', data, model, SGD, devices=jax.devices()[:2])
    monkeypatch.setattr(layout, 'SLICE', 4)
    sliced, metrics = run('pmap', data, model, SGD, devices=jax.devices()[:2])
    for name in ('loss', 'grad_norm', 'accuracy', 'top5'):
        np.testing.assert_allclose(metrics[name], there[name], rtol=1e-5)
    assert distance(sliced.params, four.params) < 1e-5
    assert distance(sliced.params, whole.params) > 1e-3  # whose dropout is another
    assert np.abs(metrics['loss'] - other['loss']).max() > 1e-3


@pytest.mark.parametrize(('images', 'slices'), [(64, 8), (8, 1), (60, 1)])
def test_a_core_takes_slices_of_eight_images(images, slices):
    assert layout.slices(images, jax.devices()[0]) == slices


@pytest.mark.slow
def test_fsdp_splits_what_is_large_and_never_along_depth(data):
    state, _ = run('fsdp', data, MODEL, Optim(peak=1e-3), 1)
    specs = jax.tree_util.tree_leaves_with_path(state)
    split = {jax.tree_util.keystr(p): x.sharding.spec for p, x in specs if any(x.sharding.spec)}
    assert any('mlp' in name for name in split) and any('opt_state' in name for name in split)
    for name, spec in split.items():
        assert 'blocks' not in name or spec[0] is None
    shard = state.params['blocks']['mlp']['hidden']['kernel'].addressable_shards[0].data
    assert shard.size * 8 == 2 * 64 * 256


@pytest.mark.slow
def test_fsdp_never_has_the_whole_of_anything_large(data):
    """Bytes of one of eight devices, of parameters that are most of what there is."""
    model = ViT(patch_size=4, width=256, depth=12, num_heads=4, num_classes=5)
    state, step = start(model, Optim(peak=1e-3))
    whole = sum(4 * x.size for x in jax.tree.leaves(state.params))
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in data)
    sizes = {}
    for way in ('pmap', 'fsdp'):
        made = layout.layout(way, batch_size=16)
        arguments = made.abstract([state], shapes, 4, [jax.random.key(1)])
        function = made.wrap(step, state)
        sizes[way] = function.lower(*arguments).compile().memory_analysis()
    assert sizes['pmap'].argument_size_in_bytes > 3 * whole  # with two moments
    assert sizes['fsdp'].argument_size_in_bytes < 1.1 * 3 * whole / 8
    assert sizes['pmap'].temp_size_in_bytes > whole  # gradients, all at once
    assert sizes['fsdp'].temp_size_in_bytes < whole / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ('writes', 'reads'), [('pmap', 'none'), ('none', 'fsdp'), ('fsdp', 'pmap')]
)
def test_a_checkpoint_of_one_way_goes_on_in_another(tmp_path, data, writes, reads):
    state, step = start(MODEL, SGD)
    rows = batches(0, 4)
    states = {}
    for way in (writes, reads):
        made = layout.layout(way, batch_size=16)
        arrays = made.place_batch(*data)
        here = made.place([copied(state)])
        if way == reads:
            (empty,) = made.fetch(here)
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), empty.params
            )
            found = checkpoint.restore(tmp_path, 2, {'params': shapes})['params']
            two = jnp.asarray(2, jnp.int32)
            here = made.place([dataclasses.replace(empty, step=two, params=found)])
            here, _ = take(made, step, here, arrays, np.roll(rows, -2, axis=0), 2)
        else:
            here, _ = take(made, step, here, arrays, rows, 2)
            with checkpoint.writing(tmp_path) as manager:
                checkpoint.save(manager, 2, {'params': made.fetch(here)[0].params}, {})
        states[way] = jax.tree.map(np.asarray, made.fetch(here)[0].params)
    whole, _ = run('none', data, MODEL, SGD, 4)
    whole = jax.tree.map(np.asarray, whole.params)
    off = optax.tree.norm(optax.tree.sub(states[reads], whole)) / optax.tree.norm(whole)
    assert off < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('each', [False, True])
@pytest.mark.parametrize('way', ['none', 'pmap', 'fsdp'])
def test_the_program_to_lower_is_the_one_that_runs(data, way, each):
    data = tuple(x[batches(0, 4)] for x in data) if each else data
    state, step = start(MODEL, SGD)
    made = layout.layout(way, batch_size=16)
    shapes = [jax.ShapeDtypeStruct((*x.shape[:1], *x.shape[1 + each :]), x.dtype) for x in data]
    function = made.wrap(step, state)
    arguments = made.abstract([state], tuple(shapes), 4, [jax.random.key(1)])
    given = made.place([copied(state)])[0], made.place_batch(*data)[0]
    for shape, real in zip(jax.tree.leaves(arguments[:2]), jax.tree.leaves(given), strict=True):
        assert (shape.shape, shape.dtype) == (real.shape, real.dtype)
        assert shape.sharding == real.sharding
    after, metrics = jax.eval_shape(function, *arguments)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, given[0])
    assert metrics['loss'].shape == (4,)
    function.lower(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize('way', ['none', 'pmap', 'fsdp'])
def test_data_of_each_step_are_the_same_steps_and_a_device_has_its_part(data, one_device, way):
    state, metrics = run(way, data, MODEL, SGD, each=True)
    whole, wanted = one_device['vit']
    np.testing.assert_allclose(metrics['loss'], wanted['loss'], rtol=1e-5)
    assert distance(state.params, whole.params) < 1e-5
    arrays = layout.layout(way, batch_size=16).place_batch(*(x[batches(0, 10)] for x in data))
    images = jax.tree.leaves(arrays)[0]
    part = 1 if way == 'none' else len(jax.devices())
    assert images.addressable_shards[0].data.size == 10 * 16 * 8 * 8 * 3 / part


@pytest.mark.slow
def for_seeds(rule, seeds):
    """The layout of several seeds on one device, as on CPU or as on accelerators."""
    return dataclasses.replace(layout.layout('none', batch_size=16, seeds=seeds), rule=rule)


@pytest.mark.slow
@pytest.mark.parametrize('rule', SEEDS)
def test_several_seeds_have_their_own_data_of_each_step(data, rule):
    (one, step), rows = start(MODEL, SGD), np.concatenate([batches(s, 4) for s in (0, 1)], 1)
    keys, found, made = [jax.random.key(s) for s in (1, 2)], [], for_seeds(rule, 2)
    for given in (data, tuple(x[rows] for x in data)):
        placed, batch = made.place([copied(one), copied(one)]), made.place_batch(*given)
        found.append(take(made, step, placed, batch, rows, 4, keys)[1]['loss'])
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert np.shape(found[0]) == (4, 2)


@pytest.mark.parametrize('each', [False, True])
def test_the_program_to_lower_for_several_seeds_is_the_one_that_runs(data, each):
    one, rows, made = start(MODEL, SGD)[0], batches(0, 4), for_seeds('seeds', 2)
    shapes = [x[rows][:, 0] if each else x for x in data]
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in shapes)
    abstract = made.abstract([one] * 2, shapes, 4, [jax.random.key(s) for s in (1, 2)])[:2]
    given = tuple(x[np.repeat(rows, 2, 1)] for x in data) if each else data
    real = made.place([copied(one), copied(one)])[0], made.place_batch(*given)[0]
    assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, real)


@pytest.mark.slow
def test_count_stops_early_and_does_not_recompile(data):
    state, step = start(MODEL, SGD)
    traced = []

    def counted(*args, **options):
        traced.append(1)
        return step(*args, **options)

    made = layout.layout('none', batch_size=16)
    arrays, rows = made.place_batch(*data), batches(0, 6)
    whole, metrics = take(made, counted, made.place([copied(state)]), arrays, rows, 6)
    once = len(traced)
    part, first = take(made, counted, made.place([copied(state)]), arrays, rows, 2)
    np.testing.assert_array_equal(first['loss'][:2], metrics['loss'][:2])
    assert np.isnan(first['loss'][2:]).all() and int(made.fetch(part)[0].step) == 2
    part, _ = take(made, counted, part, arrays, np.concatenate([rows[2:], rows[:2]]), 4)
    for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(traced) == once


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_steps(data):
    state, step = start(MODEL, Optim(name='sgd', peak=1e30, warmup=0.0, clip=0.0))
    made = layout.layout('none', batch_size=16)
    placed, arrays = made.place([state]), made.place_batch(*data)
    placed, metrics = take(made, step, placed, arrays, batches(0, 8), 8)
    taken = int(made.fetch(placed)[0].step)
    assert taken < 8 and np.isfinite(metrics['loss'][: taken - 1]).all()
    assert not np.isfinite(metrics['loss'] + metrics['grad_norm'])[taken - 1]


@pytest.mark.parametrize(
    ('way', 'batch', 'seeds', 'match'),
    [
        ('pmap', 12, 1, 'batch_size=12, 8 devices'),
        ('ddp', 16, 1, "parallel must be .*'ddp'"),
        ('fsdp', 16, 2, "one device: parallel='fsdp', 2 seeds"),
    ],
)
def test_bad_ways(way, batch, seeds, match):
    with pytest.raises(ValueError, match=match):
        layout.layout(way, batch_size=batch, seeds=seeds)


@pytest.mark.slow
def test_seeds_take_the_steps_that_each_takes_alone(data):
    """One after the other, as on CPU, and at once, as on accelerators."""
    state, step = start(MODEL, Optim(peak=1e-3, warmup=0.0))
    keys = [jax.random.key(i) for i in range(3)]
    rows = np.concatenate([batches(i, 4) for i in range(3)], 1)
    alone, made = [], layout.layout('none', batch_size=16)
    arrays = made.place_batch(*data)
    for i, key in enumerate(keys):
        placed = made.place([copied(state)])
        alone.append(take(made, step, placed, arrays, rows[:, i : i + 1], 4, [key])[1]['loss'])
    for rule in SEEDS:
        made = for_seeds(rule, 3)
        arrays = made.place_batch(*data)
        replicas = made.place([copied(state) for _ in keys])
        replicas, metrics = take(made, step, replicas, arrays, rows, 3, keys)
        assert metrics['loss'].shape == (4, 3) and np.isnan(metrics['loss'][3]).all()
        replicas, more = take(made, step, replicas, arrays, rows[3:], 1, keys)
        losses = np.concatenate([metrics['loss'][:3], more['loss']])
        np.testing.assert_allclose(losses, np.concatenate(alone, 1), rtol=1e-4)
        assert [int(of_seed.step) for of_seed in made.fetch(replicas)] == [4, 4, 4]


@pytest.mark.slow
@pytest.mark.parametrize('rule', SEEDS)
def test_a_seed_that_diverges_is_seen(data, rule):
    state, step = start(MODEL, SGD)
    keys, made = [jax.random.key(i) for i in range(2)], for_seeds(rule, 2)
    head = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), state.params['head'])
    wild = dataclasses.replace(state, params={**state.params, 'head': head})
    placed = made.place([copied(state), copied(wild)])
    rows = np.concatenate([batches(0, 4)] * 2, 1)
    _, metrics = take(made, step, placed, made.place_batch(*data), rows, 4, keys)
    assert np.isnan(metrics['loss'][1:, 1]).all() and np.isfinite(metrics['loss'][0, 0])
