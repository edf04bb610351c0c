from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import as_users_do, assert_close, exact, random_params
from tiny_models import CAIT, CONVNET, MULTI, PATCHCONVNET, VIT

from vitjax.inside.capture import capture, gradients, paths
from vitjax.layers import attention
from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.layers.block import Block, ClassBlock, Mlp
from vitjax.layers.embed import TokenEmbed
from vitjax.layers.norm import LayerNorm
from vitjax.plan.flops import model_flops

IMAGES: Any = np.float32(np.random.default_rng(1).normal(size=(2, 8, 12, 3)))
LARGER: Any = np.float32(np.random.default_rng(1).normal(size=(2, 16, 12, 3)))


def total(logits):
    return jnp.sin(logits).sum()


@pytest.mark.parametrize(
    ('model', 'expected'),  # 6 patches
    [
        (
            VIT,
            {
                'embed': (2, 8, 8),
                'blocks': (3, 2, 8, 8),
                'blocks/attention': (3, 2, 8, 8),
                'blocks/attention/weights': (3, 2, 2, 8, 8),
                'blocks/attention/heads': (3, 2, 8, 2, 4),
                'blocks/mlp': (3, 2, 8, 8),
                'blocks/mlp/hidden': (3, 2, 8, 32),
                'blocks/mlp/output': (3, 2, 8, 8),
                'norm': (2, 8),
                'head': (2, 5),
            },
        ),
        (
            CAIT,
            {
                'embed': (2, 6, 8),
                'blocks': (3, 2, 6, 8),
                'blocks/attention/mixed_logits': (3, 2, 2, 6, 6),
                'blocks/attention/weights': (3, 2, 2, 6, 6),
                'blocks/attention/mixed_weights': (3, 2, 2, 6, 6),
                'blocks/attention/heads': (3, 2, 6, 2, 4),
                'class_blocks': (2, 2, 1, 8),
                'class_blocks/attention/weights': (2, 2, 2, 1, 7),
                'class_blocks/attention/heads': (2, 2, 1, 2, 4),
                'norm': (2, 8),
            },
        ),
        (
            PATCHCONVNET,
            {
                'embed': (2, 6, 8),
                'blocks': (3, 2, 6, 8),
                'class_blocks': (1, 2, 1, 8),
                'class_blocks/attention/weights': (1, 2, 2, 1, 7),
                'norm': (2, 8),
            },
        ),
        (
            MULTI,
            {
                'class_blocks': (1, 2, 5, 8),
                'class_blocks/attention/weights': (1, 2, 2, 5, 6),
                'class_blocks/attention/heads': (1, 2, 5, 2, 4),
            },
        ),
    ],
)
def test_all_models_share_their_paths_with_depth_in_front(model, expected):
    found = paths(model, IMAGES)
    assert {path: found.get(path) for path in expected} == expected
    assert not any('__call__' in path or 'mix_' in path for path in found)


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, CAIT, MULTI])
def test_capture_does_not_change_the_logits(model):
    params = random_params(model, IMAGES)
    logits, found = capture(model.clone(attention='chunked'), params, IMAGES)
    for path in found:
        if path.endswith('/weights'):
            np.testing.assert_allclose(found[path].sum(-1), 1, rtol=1e-5)
    for name in ('explicit', 'chunked'):
        plain = jax.jit(model.clone(attention=name).apply)({'params': params}, IMAGES)
        np.testing.assert_allclose(logits, plain, rtol=1e-5, atol=1e-5)
        if name == 'explicit':
            np.testing.assert_array_equal(logits, plain)


@pytest.mark.parametrize(('model', 'count'), [(VIT, 1), (CAIT, 2), (MULTI, 1)])
def test_heads_are_the_inputs_of_the_projection(model, count):
    """In a trunk, under talking heads, in class attention, and with a class token per class."""
    params = random_params(model, IMAGES)
    _, found = capture(model, params, IMAGES, keep='.*attention(/heads)?')
    paths = [path for path in found if path.endswith('/heads')]
    assert len(paths) == count
    for path in paths:
        stack, heads = path.split('/')[0], exact(found[path])
        projection = params[stack]['attention']['projection']
        out = np.einsum('lbnc,lcd->lbnd', heads.reshape(*heads.shape[:3], -1), projection['kernel'])
        assert_close(found[f'{stack}/attention'], out + projection['bias'][:, None, None])


def test_convolutional_networks_have_their_feature_maps():
    params = random_params(CONVNET, LARGER)
    logits, found = capture(CONVNET, params, LARGER, keep=r'conv_\d')
    assert {path: value.shape for path, value in found.items()} == {
        'conv_1': (2, 14, 10, 4), 'conv_2': (2, 5, 3, 6)
    }  # fmt: skip
    assert all(value.min() == 0 for value in found.values())  # after the ReLU
    np.testing.assert_array_equal(logits, jax.jit(CONVNET.apply)({'params': params}, LARGER))


def test_only_whole_paths_match():
    params = random_params(CAIT, IMAGES)
    _, found = capture(CAIT, params, IMAGES, keep='blocks|norm')
    assert set(found) == {'blocks', 'norm'}
    with pytest.raises(ValueError, match=r"path of CaiT: 'block' matches none of blocks, .*, norm"):
        capture(CAIT, params, IMAGES, keep='block')
    with pytest.raises(ValueError, match=r"keep must be a regular expression: '\(': missing \)"):
        capture(CAIT, params, IMAGES, keep='(')
    with pytest.raises(ValueError, match=r"'nothing' matches none of"):
        gradients(CAIT, params, IMAGES, total, keep='nothing')


TRUNK = '(?!class_blocks).*'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('model', 'layers'),
    [(VIT.clone(depth=5, drop_path=0.1), (1, 3)), (CAIT.clone(depth=5), (0, 1, 4)), (MULTI, (1,)),
     (VIT.clone(remat=True, pool='distilled'), (2,))],
    ids=['vit', 'cait', 'multi', 'remat'],
)  # fmt: skip
def test_chosen_layers_equal_those_of_the_whole_capture(model, layers):
    params = random_params(model, IMAGES)
    logits, found = capture(model, params, IMAGES, keep=TRUNK)
    some_logits, some = capture(model, params, IMAGES, keep=TRUNK, layers=layers)
    assert_close(some_logits, logits, 1e-6)
    assert some.keys() == found.keys()
    for path, value in found.items():
        own = value[np.array(layers)] if path.startswith('blocks') else value
        assert_close(some[path], own, 1e-6)


BITS = """
import jax, numpy as np
from helpers import random_params
from inside.test_capture import CAIT, IMAGES, PATCHCONVNET, VIT, capture

for model in (VIT, CAIT, PATCHCONVNET):
    params = random_params(model, IMAGES)
    logits, found = capture(model, params, IMAGES)
    some_logits, some = capture(model, params, IMAGES, keep='(?!class_blocks).*', layers=(0, 2))
    np.testing.assert_array_equal(some_logits, logits)
    for path, value in some.items():
        own = found[path][np.array([0, 2])] if path.startswith('blocks') else found[path]
        np.testing.assert_array_equal(value, own, err_msg=path)
"""


@pytest.mark.slow
def test_chosen_layers_have_the_same_bits():
    """Compiled as users compile: the tests' settings make rounding depend on the whole program."""
    as_users_do(BITS)


def test_layers_of_class_blocks_can_be_chosen():
    params = random_params(CAIT, IMAGES)
    whole = capture(CAIT, params, IMAGES, keep='class_blocks.*')[1]
    for path, value in capture(CAIT, params, IMAGES, keep='class_blocks.*', layers=[1])[1].items():
        assert_close(value, whole[path][1:], 1e-6)


def test_unknown_layers_are_refused():
    params = random_params(CAIT, IMAGES)
    for layers, message in (
        ((0, 3), r'layers of blocks are 0 to 2: got \(0, 3\)'),
        ((-1,), r'layers of blocks are 0 to 2: got \(-1,\)'),
        ((1, 0), r'one or more, each once, in order: got \(1, 0\)'),
        ((), r'one or more, each once, in order: got \(\)'),
    ):
        with pytest.raises(ValueError, match=message):
            capture(CAIT, params, IMAGES, keep='blocks', layers=layers)
    with pytest.raises(ValueError, match=r'layers need a stack `blocks`: ConvNet has none'):
        capture(CONVNET, random_params(CONVNET, LARGER), LARGER, keep='conv_1', layers=(0,))


@pytest.mark.slow
def test_one_layer_costs_one_layers_memory_and_no_copy_of_the_parameters():
    model = CAIT.clone(depth=24, width=64)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)['params']

    def needs(layers):
        keep = 'blocks/attention/weights'
        run = jax.jit(lambda p, x: capture(model, p, x, keep=keep, layers=layers))
        memory: Any = run.lower(params, images).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    blocks = sum(4 * leaf.size for leaf in jax.tree.leaves(params['blocks']))
    layer = 4 * 2 * 2 * 256**2
    assert needs(None) > 24 * layer
    assert needs((11,)) < blocks + layer


def test_paths_that_do_not_match_are_not_stored():
    model = CAIT.clone(depth=24)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)['params']

    def needs(keep):
        run = jax.jit(lambda p, x: capture(model, p, x, keep=keep))
        memory: Any = run.lower(params, images).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    weights = 4 * 24 * 2 * 2 * 256**2
    assert needs('blocks/attention/weights') > weights
    assert needs('norm') < 0.5 * weights


def unrolled(params, deltas, monkeypatch):
    """CAIT in float64 as loops over its blocks, with `deltas` added at captured paths."""
    norm = LayerNorm(dtype='float64')
    here = {}
    monkeypatch.setattr(
        attention, 'tap', lambda module: lambda name, x: x + here.get(f'attention/{name}', 0)
    )

    def add(path, value):
        return value + deltas.get(path, 0)

    def stack(name, block, x, *args):
        for i in range(len(params[name]['norm_1']['scale'])):
            here.clear()
            prefix = f'{name}/'
            here.update({k[len(prefix) :]: d[i] for k, d in deltas.items() if k.startswith(prefix)})
            layer = jax.tree.map(lambda p, i=i: p[i], params[name])
            x = block.apply({'params': layer}, x, *args, False)[0]
            x = x + deltas[name][i] if name in deltas else x
        return x

    options: dict[str, Any] = {'implementation': 'explicit', 'dtype': 'float64'}
    mlp = Mlp(dtype='float64')
    trunk = Block(MultiHeadAttention(2, head_width=4, talking=True, **options), mlp, 0.5, 'float64')
    pooling = ClassBlock(ClassAttention(2, **options), mlp, 0.5, 'float64')
    tokens = TokenEmbed(4, 8, dtype='float64').apply({'params': params['embed']}, IMAGES)
    tokens = stack('blocks', trunk, add('embed', tokens), None)
    token = jnp.broadcast_to(params['class_token'], (2, 1, 8))
    token = stack('class_blocks', pooling, token, tokens)
    features = add('norm', norm.apply({'params': params['norm']}, token[:, 0]))
    return features @ params['head']['output']['kernel'] + params['head']['output']['bias']


@pytest.mark.slow
def test_gradients_match_finite_differences(monkeypatch):
    keep = 'embed|(class_)?blocks|(class_)?blocks/attention/((mixed_)?(weights|logits)|heads)|norm'
    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, random_params(CAIT, IMAGES))
        model = CAIT.clone(dtype='float64', remat=True)
        logits, found, grads = gradients(model, params, IMAGES, total, keep=keep)
        assert len(found) == 10 and found.keys() == grads.keys()
        run = jax.jit(lambda deltas: total(unrolled(params, deltas, monkeypatch)))
        np.testing.assert_allclose(run({}), total(logits), rtol=1e-10)
        rng = np.random.default_rng(2)
        none = {path: np.zeros(value.shape) for path, value in found.items()}
        for path, value in found.items():
            assert grads[path].dtype == jnp.float64
            toward, step = rng.normal(size=value.shape), 1e-5
            change = run(none | {path: step * toward}) - run(none | {path: -step * toward})
            np.testing.assert_allclose((grads[path] * toward).sum(), change / (2 * step), rtol=1e-6)


@pytest.mark.parametrize('model', [VIT, MULTI])
def test_gradients_come_with_the_captured_arrays(model):
    params = random_params(model, IMAGES)
    keep = '(class_)?blocks|(class_)?blocks/(mlp|attention)/(output|weights)|head|head/output'
    logits, found, grads = gradients(model, params, IMAGES, total, keep=keep)
    plain, captured = capture(model, params, IMAGES, keep=keep)
    np.testing.assert_allclose(logits, plain, rtol=1e-5, atol=1e-5)
    assert found.keys() == grads.keys() == captured.keys()
    for path in found:
        assert grads[path].shape == found[path].shape
        np.testing.assert_allclose(found[path], captured[path], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads['head'], np.cos(logits), rtol=1e-5, atol=1e-5)


def test_gradients_of_one_image_are_zero_at_the_others():
    _, _, grads = gradients(VIT, random_params(VIT, IMAGES), IMAGES, first_image, keep='blocks')
    assert np.any(grads['blocks'][:, 0]) and not np.any(grads['blocks'][:, 1])


def first_image(logits):
    return logits[0].sum()


def test_targets_that_are_not_scalar_are_refused():
    with pytest.raises(ValueError, match=r'target must return a scalar: its shape is \(2,\)'):
        gradients(CONVNET, random_params(CONVNET, LARGER), LARGER, per_image, keep='conv_1')


def per_image(logits):
    return logits.sum(-1)


@pytest.mark.slow
@pytest.mark.parametrize('model', [VIT, CAIT, MULTI], ids=['vit', 'cait', 'multi'])
def test_a_module_called_through_its_base_class_or_twice_has_one_gradient(model):
    """The MLP's last layer calls its base class; a class block calls `norm_1` on two things."""
    _, found, grads = gradients(model, random_params(model, IMAGES), IMAGES, total)
    stack = 'class_blocks' if 'class_blocks' in found else 'blocks'
    np.testing.assert_array_equal(grads[f'{stack}/mlp/output'], grads[f'{stack}/mlp'])
    assert {path: grad.shape for path, grad in grads.items()} == paths(model, IMAGES)


class Foreign(nn.Module):
    """Foreign module, whose `attention` is not the name of an implementation."""

    remat: str = 'kept as it is'

    def attention(self, x):
        self.sow('intermediates', 'weights', jax.nn.softmax(x))
        return x

    @nn.compact
    def __call__(self, images, train=False):
        assert self.remat == 'kept as it is'
        return nn.Dense(3, name='dense')(self.attention(images.mean((1, 2))))


class Holder(nn.Module):
    """Foreign module, whose `attention` is a module."""

    attention: nn.Module

    @nn.compact
    def __call__(self, images, train=False):
        return self.attention(images.mean((1, 2)))


@pytest.mark.parametrize('model', [Foreign(), Holder(nn.Dense(3))], ids=['method', 'module'])
def test_foreign_attention_fields_stay(model):
    params = random_params(model, IMAGES)
    logits, found = capture(model, params, IMAGES)
    np.testing.assert_array_equal(logits, jax.jit(model.apply)({'params': params}, IMAGES))
    assert found.keys() == {'weights', 'dense'} if isinstance(model, Foreign) else {'attention'}
    assert model_flops(model, 8) == 2 * 3 * 3
