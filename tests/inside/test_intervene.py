"""Edits compared with unedited models, and with a model written out in float64."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_users_do, assert_close, assert_equal, exact, normal, random_params
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from references import attention as reference_attention
from references import dense
from scipy.special import erf
from tiny_models import CAIT, CONVNET, CURRENT, MULTI, POOLED, VIT

from vitjax.inside.capture import capture, paths
from vitjax.inside.intervene import Edit, add, intervene, places, renormalise
from vitjax.inside.sweep import sweep

IMAGES: Any = np.float32(np.random.default_rng(1).normal(size=(2, 8, 12, 3)))
OTHERS: Any = np.float32(np.random.default_rng(2).normal(size=(2, 8, 12, 3)))
LARGER: Any = np.float32(np.random.default_rng(1).normal(size=(2, 16, 12, 3)))
MODELS = [
    (VIT, IMAGES),
    (CURRENT, IMAGES),
    (POOLED, IMAGES),
    (CAIT, IMAGES),
    (MULTI, IMAGES),
    (CONVNET, LARGER),
]
NAMES = ['vit', 'current', 'pooled', 'cait', 'multi', 'convnet']
HEADS, WEIGHTS = 'blocks/attention/heads', 'blocks/attention/weights'


@pytest.mark.slow
@pytest.mark.parametrize(('model', 'images'), MODELS, ids=NAMES)
def test_every_captured_path_can_be_edited(model, images):
    """Captures contain the edits; a shift is added once, although modules call others."""
    params = random_params(model, images)
    _, found = capture(model, params, images)
    edits = {path: Edit(value=10.0) for path in found}
    _, changed = intervene(model, params, images, edits, keep='.*')
    for path, value in changed.items():
        assert np.all(value == 10), path
    shifted = {'embed', 'blocks/norm_1', 'class_blocks/norm_1', 'blocks/mlp', 'norm'} & {*found}
    for path in shifted:  # one program: which of them it is, is data
        edits = {name: Edit(value=np.float32(name == path), how=add) for name in shifted}
        _, changed = intervene(model, params, images, edits, keep='.*')
        first = changed[path][:1] if path.startswith(('blocks', 'class_')) else changed[path]
        before = found[path][: len(first)] if first.ndim == found[path].ndim else found[path]
        assert_close(first, before + 1, 1e-5)


@pytest.mark.parametrize(('model', 'images'), MODELS, ids=NAMES)
def test_a_models_own_activations_change_nothing(model, images):
    params = random_params(model, images)
    logits, found = capture(model, params, images)
    edits = {path: Edit(value=value) for path, value in found.items()}
    assert_close(intervene(model, params, images, edits)[0], logits, 1e-6)


@pytest.mark.slow
def test_bits():
    """Own activations, another image's at the last block, removed heads, and earlier layers."""
    as_users_do(BITS)


BITS = """
import re

import numpy as np
from helpers import assert_equal, random_params
from inside.test_intervene import *
from vitjax.analysis.prune import remove_heads

trunk, pooling = 'blocks', 'class_blocks'
shown = 'embed|norm|(class_)?blocks(/attention/(heads|weights|mixed_weights))?'
for model, stack in ((VIT, trunk), (CAIT, pooling), (CAIT, trunk)):
    params = random_params(model, IMAGES)
    logits, found = capture(model, params, IMAGES)
    # Not of LayerScale: a product and then a sum are rounded once, or twice where it is written.
    edited = [path for path in found if re.fullmatch(shown, path) and stack != pooling]
    for path in edited:  # one program: which of them it is, is data
        own = {p: Edit(np.array(p == path), found[p]) for p in edited}
        np.testing.assert_array_equal(
            intervene(model, params, IMAGES, own)[0], logits, err_msg=path
        )

    other_logits, other = capture(model, params, OTHERS)
    depth = len(other[stack])
    last = Edit(places(model, IMAGES, stack, layers=depth - 1), other[stack])
    np.testing.assert_array_equal(intervene(model, params, IMAGES, {stack: last})[0], other_logits)

    heads = f'{stack}/attention/heads'
    for layer in range(depth):
        removed = np.repeat(np.arange(depth)[:, None] == layer, 2, 1)
        without, wanted = capture(model, remove_heads(params, removed, stack=stack), IMAGES)
        edit = Edit(places(model, IMAGES, heads, layers=layer))
        got, after = intervene(model, params, IMAGES, {heads: edit}, keep='.*')
        np.testing.assert_array_equal(got, without)
        for path, value in after.items():
            if path.startswith(stack):
                np.testing.assert_array_equal(value[:layer], found[path][:layer], err_msg=path)
            elif stack == 'class_blocks' and path.split('/')[0] in ('embed', 'blocks'):
                np.testing.assert_array_equal(value, found[path], err_msg=path)
"""


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def norm(x, params):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * params['scale'] + params['bias']


def unrolled(params, tokens, heads_factor, shift, grid_heads=2):
    """Two blocks of VIT in float64, with a factor per head and a shift after each block."""
    for layer in range(2):
        own = jax.tree.map(lambda leaf, layer=layer: exact(leaf)[layer], params['blocks'])
        x = dense(norm(tokens, own['norm_1']), own['attention']['qkv'])
        q, k, v = np.split(x, 3, axis=-1)
        split = [part.reshape(*part.shape[:2], grid_heads, -1) for part in (q, k, v)]
        heads = reference_attention(*split) * heads_factor[layer][:, None]
        x = dense(heads.reshape(*heads.shape[:2], -1), own['attention']['projection'])
        tokens = tokens + own['scale_1']['scale'] * x
        x = gelu(dense(norm(tokens, own['norm_2']), own['mlp']['hidden']))
        x = dense(x, own['mlp']['output'])
        tokens = tokens + own['scale_2']['scale'] * x + shift[layer]
    token = norm(tokens[:, 0], jax.tree.map(exact, params['norm']))
    return dense(token, jax.tree.map(exact, params['head']['output']))


def times(x, factor):
    return x * factor


def test_edits_match_an_unrolled_model_at_all_layers():
    model = VIT.clone(depth=2)
    params = random_params(model, IMAGES)
    logits, found = capture(model, params, IMAGES, keep='embed')
    rng = np.random.default_rng(3)
    factor = rng.normal(size=(2, 2)).astype(np.float32)
    shift = rng.normal(size=(2, 1, 1, 8)).astype(np.float32)
    embed = exact(found['embed'])
    assert_close(logits, unrolled(params, embed, np.ones((2, 2)), np.zeros(2)))
    edits = {
        HEADS: Edit(value=factor[:, None, None, :, None], how=times),
        'blocks': Edit(value=shift, how=add),
    }
    wanted = unrolled(params, embed, factor, shift)
    assert_close(intervene(model, params, IMAGES, edits)[0], wanted)
    for layer in range(2):  # one at a time, and where alone says the layer
        only = np.arange(2) == layer
        here = places(model, IMAGES, HEADS, layers=layer)
        edit = {HEADS: Edit(here, edits[HEADS].value, times)}
        factors = np.where(only[:, None], factor, 1)
        wanted = unrolled(params, embed, factors, np.zeros(2))
        assert_close(intervene(model, params, IMAGES, edit)[0], wanted)


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, CAIT], ids=['vit', 'cait'])
def test_cut_keys_have_no_influence(model):
    """The gradient at a cut patch's pixels is zero, to rounding in float64."""
    with jax.enable_x64(True):
        model = model.clone(dtype='float64')
        params = jax.tree.map(np.float64, random_params(model, IMAGES))
        images: Any = np.float64(IMAGES)
        edits = {}
        for path in (name for name in paths(model, images) if 'weights' in name):
            last = paths(model, images)[path][-1] - 1  # the patch in the lower right corner
            if path.endswith('/mixed_weights'):
                edits[path] = Edit(places(model, images, path, keys=last))
            else:
                cut = np.zeros((1, 1, 1, 1, last + 1), bool)
                cut[..., last] = True
                edits[path] = Edit(value=cut, how=renormalise)

        def answer(pixels, edits):
            return jnp.sin(intervene(model, params, pixels, edits)[0]).sum()

        plain = jax.grad(answer)(images, {})[:, 4:, 8:]
        cut = jax.grad(answer)(images, edits)[:, 4:, 8:]
        assert np.abs(plain).max() > 1e-3 and np.abs(cut).max() < 1e-12
        _, found = intervene(model, params, images, edits, keep='.*/weights')
        for value in found.values():
            np.testing.assert_allclose(value.sum(-1), 1, rtol=1e-12)
            assert not np.any(value[..., -1])


@pytest.mark.slow
def test_gradients_through_edits_match_finite_differences():
    with jax.enable_x64(True):
        model = CAIT.clone(dtype='float64', remat=True, depth=2, class_depth=1)
        params = jax.tree.map(np.float64, random_params(model, IMAGES))
        rng = np.random.default_rng(4)
        known = paths(model, IMAGES)
        edited = ('blocks/attention/mixed_weights', HEADS, 'blocks', 'class_blocks', 'embed')
        where = {path: rng.random(known[path]) < 0.5 for path in edited}
        values = {path: rng.normal(size=known[path]) for path in edited}

        def score(values):
            edits = {path: Edit(where[path], value) for path, value in values.items()}
            return jnp.sin(intervene(model, params, IMAGES, edits)[0]).sum()

        grads, step = jax.grad(score)(values), 1e-5
        for path in edited:
            grad, toward = grads[path], rng.normal(size=known[path])
            assert not np.any(grad[~where[path]]) and np.any(grad[where[path]])
            up, down = ({**values, path: values[path] + s * toward} for s in (step, -step))
            change = (score(up) - score(down)) / (2 * step)
            np.testing.assert_allclose((grad * toward).sum(), change, rtol=1e-6)


def each_head(model, path):
    depth, heads = paths(model, IMAGES)[path][::3]
    one = [
        [places(model, IMAGES, path, layers=layer, heads=head) for head in range(heads)]
        for layer in range(depth)
    ]
    return np.array(one)  # [layers, heads, layers, 1, 1, heads, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('model', 'path'),
    [
        (VIT, HEADS),
        (CAIT, HEADS),
        (CAIT, f'class_{HEADS}'),
        (POOLED, f'class_{HEADS}'),
        (MULTI, f'class_{HEADS}'),
    ],
    ids=['vit', 'cait', 'cait class', 'pooled class', 'multi class'],
)
def test_sweeps_and_maps_over_edits_equal_single_edits(model, path):
    params, where = random_params(model, IMAGES), each_head(model, path)
    depth, heads = where.shape[:2]
    mean = normal(depth, 1, 1, heads, 4, seed=5)
    run = functools.partial(intervene, model, params, IMAGES, keep='norm')
    wanted = [[run({path: Edit(w, mean)}) for w in row] for row in where]
    logits = np.array([[one[0] for one in row] for row in wanted])
    features = np.array([[one[1]['norm'] for one in row] for row in wanted])
    assert np.ptp(logits, (0, 1)).min() > 1e-4

    flat = where.reshape(-1, *where.shape[2:])
    mapped, found = jax.vmap(lambda w: run({path: Edit(w, mean)}))(flat)
    assert_close(mapped.reshape(logits.shape), logits)

    variants = np.eye(heads, dtype=bool)[None, :, None, None, :, None]
    edit = {path: Edit(variants, mean[:, None])}
    for at_once in (1, 2):
        swept, found = sweep(model, params, IMAGES, edit, keep='norm', at_once=at_once)
        assert_close(swept, logits)
        assert_close(found['norm'], features)
    some, _ = sweep(model, params, IMAGES, edit, layers=[depth - 1])
    assert_close(some, logits[-1:])


def test_sweeps_can_span_several_layers():
    params = random_params(VIT, IMAGES)
    edit = {'blocks': Edit(np.eye(8, dtype=bool)[None, :3, None, :, None])}
    swept, _ = sweep(VIT, params, IMAGES, edit, span=2)
    for layer, variant in ((0, 0), (1, 2), (2, 1)):
        both = [i for i in (layer, layer + 1) if i < 3]
        one = Edit(places(VIT, IMAGES, 'blocks', layers=both, tokens=variant))
        assert_close(swept[layer, variant], intervene(VIT, params, IMAGES, {'blocks': one})[0])


@pytest.mark.slow
def test_eight_devices_match_one():
    images = normal(8, 8, 12, 3, seed=6)
    params = random_params(VIT, images)
    value = normal(3, 8, 8, 2, 4, seed=7)
    where = places(VIT, images, HEADS, layers=[0, 2], heads=1)
    run = jax.jit(lambda x, v: intervene(VIT, params, x, {HEADS: Edit(where, v)}, keep=HEADS))
    logits, found = run(images, value)
    mesh = jax.make_mesh((8,), ('batch',), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec('batch'))
    over = NamedSharding(mesh, PartitionSpec(None, 'batch'))
    spread, elsewhere = run(jax.device_put(images, split), jax.device_put(value, over))
    assert len(spread.sharding.device_set) == 8
    assert_close(spread, logits)
    assert_close(elsewhere[HEADS], found[HEADS])
    edit = {HEADS: Edit(np.eye(2, dtype=bool)[None, :, None, None, :, None])}
    swept, _ = sweep(VIT, params, images, edit)
    spread, _ = sweep(VIT, params, jax.device_put(images, split), edit)
    assert_close(spread, swept)


def test_without_edits_the_compiled_model_is_unchanged():
    params = random_params(CAIT, IMAGES)
    logits, found = capture(CAIT, params, IMAGES, keep='norm')
    got, kept = intervene(CAIT, params, IMAGES, {}, keep='norm')
    assert_equal((got, kept), (logits, found))


class Foreign(nn.Module):
    """Module that sows an array itself, which no edit can reach."""

    @nn.compact
    def __call__(self, images, train=False):
        self.sow('intermediates', 'seen', images.mean((1, 2)))
        return nn.Dense(3, name='dense')(images.mean((1, 2)))


def test_impossible_edits_are_refused():
    params = random_params(VIT, IMAGES)

    def ask(edits, message, model: Any = VIT, params=params, run: Any = intervene, **options):
        with pytest.raises(ValueError, match=message):
            run(model, params, IMAGES, edits, **options)

    ask(
        {'blocks/atention': Edit()}, r"ViT has no path 'blocks/atention' to edit; it has blocks, .*"
    )
    fits = r'blocks must be a number or have each axis as long as what is captured there or 1: '
    ask(
        {'blocks': Edit(value=np.zeros((2, 8, 8)))},
        fits + r'\[2, 8, 8\] does not fit \[3, 2, 8, 8\]',
    )
    ask({'blocks': Edit(np.ones((3, 2, 7, 8), bool))}, fits + r'\[3, 2, 7, 8\] does not')
    ask({'blocks': Edit()}, r"'none' matches none of", keep='none')
    ask({'blocks': Edit(np.ones((2, 1, 1, 1, 1)))}, r'\[2, 1, 1, 1, 1\] does not fit', run=sweep)
    ask({'norm': Edit()}, 'over the layers of blocks or class_blocks: got norm', run=sweep)
    ask({'blocks': Edit()}, 'layers of blocks are 0 to 2: got 3', run=sweep, layers=[1, 3])
    foreign = random_params(Foreign(), IMAGES)
    ask({'seen': Edit()}, 'seen can be captured but not edited', Foreign(), foreign)
    for chosen, message in (
        ({'heads': 2}, f'heads of {HEADS} are 0 to 1: got 2'),
        ({'layers': [0, -1]}, f'layers of {HEADS} are 0 to 2: got -1'),
        (
            {'keys': 0},
            r"has no axis 'keys'; it has layers \(3\), images \(2\), tokens \(8\), heads",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            places(VIT, IMAGES, HEADS, **chosen)
    with pytest.raises(ValueError, match='need a stack `blocks`: ConvNet has none'):
        sweep(CONVNET, random_params(CONVNET, LARGER), LARGER, {'conv_1': Edit()})


def test_sweeps_can_edit_every_pass():
    """Whole layers of another path, before, at and after the swept layer."""
    params = random_params(VIT, IMAGES)
    variants = np.eye(2, dtype=bool)[None, :, None, None, :, None]
    shift = normal(3, 1, 8, 8, seed=8)
    always = {'blocks': Edit(value=shift, how=add), 'blocks/mlp': Edit(value=0.5, how=times)}
    swept, _ = sweep(VIT, params, IMAGES, {HEADS: Edit(variants)}, always=always)
    for layer, head in ((0, 1), (1, 0), (2, 1)):
        edit = Edit(places(VIT, IMAGES, HEADS, layers=layer, heads=head))
        wanted, _ = intervene(VIT, params, IMAGES, {HEADS: edit, **always})
        assert_close(swept[layer, head], wanted)
    for wrong in (HEADS, 'norm'):
        with pytest.raises(ValueError, match=f'than the swept ones: got {wrong}'):
            sweep(VIT, params, IMAGES, {HEADS: Edit(variants)}, always={wrong: Edit()})
