"""The table of published sizes, and what holds for every model."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_params, shapes_of

import vitjax
from vitjax import models
from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT, named
from vitjax.models.base import parameter_shapes
from vitjax.plan.flops import flops, flops_by_scope

SHAPE: dict[str, Any] = {'patch_size': 4, 'width': 16, 'depth': 2, 'num_classes': 5}
TRANSFORMER: dict[str, Any] = SHAPE | {'num_heads': 2}
TINY: dict[str, Any] = {
    'vit': ViT(**TRANSFORMER, registers=1, layer_scale=0.5),
    'vit_tutorial': ViT(
        **TRANSFORMER, head_width=16, mlp_ratio=2, mlp_last_gelu=True, pool='flatten', head=(12, 6)
    ),
    'vit_mean': ViT(**TRANSFORMER, pool='mean', position='sincos'),
    'vit_distilled': ViT(**TRANSFORMER, pool='distilled', registers=1),
    'cait': CaiT(**TRANSFORMER, layer_scale=0.5),
    'patchconvnet': PatchConvNet(**SHAPE, layer_scale=0.5),
    'patchconvnet_multi': PatchConvNet(**SHAPE, layer_scale=0.5, class_tokens_per_class=True),
    'convnet': ConvNet(widths=(4, 6), hidden=7, num_classes=5),
}
WITH_TRUNK = [name for name in TINY if name != 'convnet']
IMAGES = jax.random.normal(jax.random.key(0), (3, 16, 20, 3))


def logits(model, params, train=False, **rngs):
    return jax.jit(lambda p, x: model.apply({'params': p}, x, train, rngs=rngs))(params, IMAGES)


def count(model, size):
    return sum(x.size for x in jax.tree.leaves(parameter_shapes(model, size)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        ('vit_tiny_patch16', 224, 5_717_416),
        ('vit_small_patch32', 224, 22_878_952),
        ('vit_base_patch8', 224, 86_576_872),
        ('deit_base_patch16', 224, 86_567_656),
        ('deit_tiny_distilled_patch16', 224, 5_910_800),
        ('deit_base_distilled_patch16', 224, 87_338_192),
        ('vit_large_patch16', 224, 304_326_632),
        ('vit_huge_patch14', 224, 632_045_800),
        ('vit_small_patch14_dinov2', 518, 22_056_192),
        ('vit_base_patch14_dinov2', 518, 86_579_712),
        ('cait_xxs24', 224, 11_956_264),
        ('cait_xxs36', 224, 17_299_720),
        ('cait_xs24', 384, 26_670_088),
        ('cait_s24', 224, 46_916_200),
        ('cait_s36', 384, 68_366_632),
        ('cait_m36', 384, 271_221_352),
        ('cait_m48', 448, 356_460_520),
        ('patchconvnet_s60', 224, 25_231_096),
        ('vgg16', 224, 138_357_544),
        ('convnet', 150, 3_453_121),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(name, size, expected):
    assert count(named(name), size) == expected


@pytest.mark.parametrize(
    ('name', 'millions'),  # Touvron et al. 2021b, table 3
    [('s120', 47.7), ('b60', 99.4), ('b120', 188.6)],
)
def test_patchconvnets_have_the_published_millions_of_parameters(name, millions):
    assert round(count(named(f'patchconvnet_{name}'), 224) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('small_patch16', 22_059_496),
        ('medium_patch16', 38_849_512),
        ('base_patch16', 86_585_320),
        ('large_patch16', 304_374_760),
        ('huge_patch14', 632_126_440),
    ],
)
def test_deit3_has_the_published_parameters_and_a_position_of_the_class_token(name, expected):
    model = named(f'deit3_{name}')
    assert count(model, 224) == expected + model.width


def test_a_model_is_two_names_away():
    assert vitjax.models.named('cait_xxs24', num_classes=10).num_classes == 10
    with pytest.raises(AttributeError, match="no attribute 'model'"):
        _ = vitjax.model


def test_registers_cost_four_tokens():
    for size in ('small', 'base', 'large'):
        plain, more = (named(f'vit_{size}_patch14_{kind}dinov2') for kind in ('', 'reg4_'))
        assert count(more, 224) - count(plain, 224) == 4 * plain.width


def test_the_tutorials_are_settings():
    vit = ViT(
        patch_size=6, width=64, depth=8, num_heads=4, head_width=64, mlp_ratio=2,
        mlp_last_gelu=True, num_classes=100, pool='flatten', head=(2048, 1024),
        dropout=0.1, head_dropout=0.5,
    )  # fmt: skip
    assert count(vit, 72) == 21_759_012
    width, hidden = 256, 256 // 8
    patchconvnet = PatchConvNet(
        patch_size=4, width=width, depth=2, num_classes=10, stem_bias=True, stem_last_gelu=True,
        depthwise=False, se_ratio=8, se_bias=False, layer_scale=None, mlp_ratio=1.0,
    )  # fmt: skip
    square, norm = width * width + width, 2 * width
    stem = 9 * 3 * 128 + 128 + 9 * 128 * width + width
    trunk = norm + 2 * square + 9 * width * width + width + 2 * width * hidden
    pooling = width + 4 * square + 2 * square + 3 * norm
    assert count(patchconvnet, 48) == stem + 2 * trunk + pooling + 10 * width + 10


@pytest.mark.slow
def test_every_published_size_can_be_made_and_is_hashable():
    for name in models.NAMES:
        model = named(name)
        assert hash(model) == hash(named(name)) and model == named(name)
        assert count(model, 224) > 1e6


def test_named_replaces_fields_and_refuses_what_is_not_there():
    assert named('cait_xxs24', num_classes=10, depth=3) == dataclasses.replace(
        named('cait_xxs24'), num_classes=10, depth=3
    )
    with pytest.raises(ValueError, match=r"no model is named 'cait_xxs42'; close: cait_xxs24"):
        named('cait_xxs42')
    with pytest.raises(ValueError, match="no field 'heads'; there are head, num_heads"):
        named('vit_tiny_patch16', heads=3)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vit', 'cait', 'patchconvnet_multi', 'convnet'])
def test_bfloat16_is_near_float32_and_gives_float32_logits(name):
    model = TINY[name]
    params = random_params(model, IMAGES)
    half = logits(model.clone(dtype='bfloat16'), params)
    assert half.dtype == jnp.float32 and half.shape == (3, 5)
    full = logits(model, params)
    assert 0 < np.linalg.norm(half - full) < 0.05 * np.linalg.norm(full)
    made = shapes_of(model.clone(dtype='bfloat16'), IMAGES)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(made))


@pytest.mark.slow
@pytest.mark.parametrize('name', WITH_TRUNK)
def test_readout_of_the_trunk_is_the_rest_of_the_model(name):
    model = TINY[name]
    params = random_params(model, IMAGES)

    @jax.jit
    def both(params):
        logits, state = model.apply(
            {'params': params}, IMAGES, mutable='intermediates',
            capture_intermediates=lambda module, _: module.name == 'blocks',
        )  # fmt: skip
        blocks, _ = state['intermediates']['blocks']['__call__'][0]
        tokens = jax.vmap(lambda t: model.apply({'params': params}, t, method='readout'))(
            jnp.stack([blocks[-1], blocks[0]])
        )
        return logits, tokens

    whole, (read, other) = both(params)
    np.testing.assert_allclose(read, whole, rtol=1e-5, atol=1e-5)
    assert np.abs(other - whole).max() > 1e-3


def test_attention_implementations_agree_on_a_whole_model():
    params = random_params(TINY['cait'], IMAGES)

    def run(attention):
        model = TINY['cait'].clone(attention=attention)

        def scalar(p):
            out = model.apply({'params': p}, IMAGES)
            return jnp.sin(out).sum(), out

        gradients, out = jax.jit(jax.grad(scalar, has_aux=True))(params)
        return np.ravel(out), np.concatenate([np.ravel(g) for g in jax.tree.leaves(gradients)])

    out, gradients = run('explicit')
    other, others = run('chunked')
    assert np.linalg.norm(other - out) <= 1e-5 * np.linalg.norm(out)
    assert np.linalg.norm(others - gradients) <= 1e-4 * np.linalg.norm(gradients)


@pytest.mark.parametrize('name', ['vit', 'cait'])
def test_images_do_not_influence_each_other(name):
    model = TINY[name]
    params = random_params(model, IMAGES)
    touched = jax.jit(
        jax.grad(lambda images: model.apply({'params': params}, images)[0].sum())
    )(IMAGES)  # fmt: skip
    per_image = np.abs(np.asarray(touched)).sum((1, 2, 3))
    assert per_image[0] > 0 and not per_image[1:].any()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vit', 'cait', 'patchconvnet'])
def test_remat_recomputes_the_trunk_in_the_backward_pass(name):
    model = TINY[name].clone(attention='explicit')
    params = random_params(model, IMAGES)

    def count(model):
        return flops(jax.grad(lambda p: model.apply({'params': p}, IMAGES, True).sum()), params)

    trunk = flops_by_scope(lambda p: model.apply({'params': p}, IMAGES), params)
    again = sum(count for scope, count in trunk.items() if '/blocks/' in scope)
    assert 0.5 * again < count(model.clone(remat=True)) - count(model) <= again


def test_stochastic_depth_rises_with_depth_in_vit_and_is_constant_in_the_others():
    for name, dropped in (('vit', False), ('patchconvnet', True)):
        model = TINY[name].clone(depth=1, drop_path=0.9)
        params = random_params(model, IMAGES)
        train = logits(model, params, True, dropout=jax.random.key(1))
        assert np.allclose(train, logits(model, params), rtol=1e-5, atol=1e-5) != dropped


@pytest.mark.slow
@pytest.mark.parametrize('name', TINY)
def test_training_without_dropout_is_evaluation_and_needs_no_key(name):
    params = random_params(TINY[name], IMAGES)
    programs = [
        jax.make_jaxpr(lambda p, t=train: TINY[name].apply({'params': p}, IMAGES, t))(params)
        for train in (True, False)
    ]
    assert str(programs[0]) == str(programs[1])


@pytest.mark.parametrize('name', ['vit_tutorial', 'patchconvnet', 'convnet'])
def test_dropout_falls_in_training_alone(name):
    model = TINY[name].clone(dropout=0.5)
    params = random_params(model, IMAGES)
    train = jax.jit(
        lambda key: model.apply({'params': params}, IMAGES, True, rngs={'dropout': key})
    )
    first, second = (train(jax.random.key(i)) for i in range(2))
    assert np.abs(first - second).max() > 1e-3
    programs = [
        jax.make_jaxpr(lambda p, m=m: m.apply({'params': p}, IMAGES))(params)
        for m in (model, TINY[name])
    ]
    assert str(programs[0]) == str(programs[1])


@pytest.mark.parametrize('name', ['vit', 'cait'])
def test_no_classes_means_features(name):
    model = TINY[name].clone(num_classes=0)
    features, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), IMAGES)
    assert features.shape == (3, 16) and 'head' not in variables['params']


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (TINY['vit'].clone(patch_size=6), 'patch_size=6, image is 16x20 pixels'),
        (TINY['vit'].clone(num_heads=3), 'num_heads must divide width: num_heads=3, width=16'),
        (TINY['cait'].clone(num_heads=3), 'num_heads must divide width: num_heads=3, width=16'),
        (TINY['patchconvnet'].clone(num_heads=3), 'num_heads must divide width: num_heads=3'),
        (TINY['vit'].clone(pool='max'), "'flatten' or 'map': 'max'"),
        (TINY['vit'].clone(attention='flash'), r"attention must be .*'fused'.*: 'flash'"),
        (TINY['patchconvnet_multi'].clone(num_classes=0), 'needs num_classes of 1 or more: got 0'),
        (TINY['convnet'].clone(widths=(4, 4, 4)), '4 pixels for convolution 3 of 3: 16x20 .* 2'),
        (models.VGG16(), 'VGG16 needs images of 32 pixels or more: got 16x20'),
    ],
)
def test_what_cannot_be_made_is_an_error_that_names_it(model, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), IMAGES)


def test_fused_attention_with_dropout_is_an_error_in_training_only():
    model = TINY['cait'].clone(attention='fused', attention_dropout=0.1)
    params = random_params(model, IMAGES)

    def shape(model, train):
        rngs = {'dropout': jax.random.key(0)}
        return jax.eval_shape(
            lambda p: model.apply({'params': p}, IMAGES, train, rngs=rngs), params
        )

    assert shape(model, False).shape == (3, 5)
    with pytest.raises(ValueError, match="'fused' has no attention dropout"):
        shape(model, True)
    assert shape(model.clone(attention='auto'), True).shape == (3, 5)
