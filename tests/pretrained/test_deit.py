"""DeiT III and distilled DeiT, against their published forward passes in float64."""

import math

import jax
import numpy as np
import published
import pytest
from tiny_vit import TINY, assert_equal_trees, quiet

from vitjax import pretrained

DEIT3 = TINY.clone(layer_scale=1e-4)
DISTILLED = TINY.clone(pool='distilled')
IMAGES = np.random.default_rng(7).standard_normal((2, 12, 12, 3)).astype(np.float32)

erf = np.vectorize(math.erf)


def weights_of(shapes, seed=0):
    """Random tensors, norms around 1, so that the logits are neither 0 nor far from each other."""
    noise = published.noise(shapes, seed)
    return {n: 0.3 * value + ('norm' in n and n.endswith('weight')) for n, value in noise.items()}


def reference(weights, images, heads=3, patch=4):
    """Logits as `deit.py` of timm and of the authors computes them, from the tensors of a file."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def linear(name, x):
        return x @ w[f'{name}.weight'].T + w[f'{name}.bias']

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * w[f'{name}.weight'] + w[f'{name}.bias']

    def attention(name, x):
        rows, width = x.shape
        q, k, v = linear(f'{name}.qkv', x).reshape(rows, 3, heads, -1).transpose(1, 2, 0, 3)
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(width / heads)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out = (scores / scores.sum(-1, keepdims=True)) @ v
        return linear(f'{name}.proj', out.swapaxes(0, 1).reshape(rows, width))

    def mlp(name, x):
        x = linear(f'{name}.fc1', x)
        return linear(f'{name}.fc2', x * (1 + erf(x / math.sqrt(2))) / 2)

    def scaled(block, n, x):
        for name in (f'{block}.ls{n}.gamma', f'{block}.gamma_{n}'):
            x = x * w.get(name, 1)
        return x

    def one(image):
        kernel = w['patch_embed.proj.weight']
        x = np.stack([
            np.einsum('hwc,dchw->d', image[i : i + patch, j : j + patch], kernel)
            for i in range(0, image.shape[0], patch)
            for j in range(0, image.shape[1], patch)
        ])  # fmt: skip
        x = x + w['patch_embed.proj.bias']
        positions = w['pos_embed'][0]
        first = [w[name][0] for name in ('cls_token', 'dist_token') if name in w]
        if len(positions) == len(x):  # DeiT III adds them before the class token comes
            x = np.concatenate([*first, x + positions])
        else:
            x = np.concatenate([*first, x]) + positions
        for i in range(2):
            block = f'blocks.{i}'
            x = x + scaled(block, 1, attention(f'{block}.attn', norm(f'{block}.norm1', x)))
            x = x + scaled(block, 2, mlp(f'{block}.mlp', norm(f'{block}.norm2', x)))
        x = norm('norm', x)
        if 'dist_token' not in w:
            return linear('head', x[0])
        return (linear('head', x[0]) + linear('head_dist', x[1])) / 2

    return np.stack([one(image.astype(np.float64)) for image in images])


@pytest.mark.parametrize('kind', ['deit', 'deit3', "deit3, its authors' names", 'distilled'])
def test_logits_are_the_published_ones(kind):
    shape = (12, 2, 4, 12)
    model, shapes = {
        'deit': (TINY, published.timm_vit(*shape, classes=5)),
        'deit3': (DEIT3, published.deit3(*shape, classes=5)),
        "deit3, its authors' names": (DEIT3, published.deit3(*shape, classes=5, timm=False)),
        'distilled': (DISTILLED, published.deit_distilled(*shape, classes=5)),
    }[kind]
    weights = weights_of(shapes)
    params = pretrained.convert(weights, model, 12, report=quiet)
    logits = np.asarray(jax.jit(model.apply)({'params': params}, IMAGES))
    expected = reference(weights, IMAGES)
    assert np.ptp(expected) > 1
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def test_deit3_under_both_names_is_the_same():
    weights = weights_of(published.deit3(12, 2, 4, 12, classes=5))
    renamed = {
        name.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'): value
        for name, value in weights.items()
    }
    assert renamed.keys() == published.deit3(12, 2, 4, 12, classes=5, timm=False).keys()
    assert_equal_trees(
        pretrained.convert(weights, DEIT3, 12, report=quiet),
        pretrained.convert(renamed, DEIT3, 12, report=quiet),
    )


def test_another_size_keeps_the_positions_of_both_class_tokens():
    weights = weights_of(published.deit_distilled(12, 2, 4, 12, classes=5))
    said = []
    params = pretrained.convert(weights, DISTILLED, 20, report=said.append)
    assert [change.what for change in said] == ['positions']
    table = params['embed']['position']['table']
    assert table.shape == (2 + 25, 12)
    np.testing.assert_array_equal(table[:2], weights['pos_embed'][0, :2])
    np.testing.assert_allclose(table[2 + 12], weights['pos_embed'][0, 2 + 4], atol=1e-6)  # middle


def test_other_classes_start_both_heads_afresh():
    weights = weights_of(published.deit_distilled(12, 2, 4, 12, classes=5))
    said = []
    model = DISTILLED.clone(num_classes=3)
    params = pretrained.convert(weights, model, 12, report=said.append)
    assert list(map(str, said)) == ['head: fresh, 3 classes; was 5 classes']
    kernels = [params[name]['output']['kernel'] for name in ('head', 'head_distilled')]
    assert kernels[0].shape == kernels[1].shape == (12, 3)
    assert np.abs(kernels[0] - kernels[1]).min() > 0
    headless = pretrained.convert(weights, model.clone(num_classes=0), 12, report=said.append)
    assert str(said[-1]) == 'head: left out; was 5 classes'
    assert not [name for name in headless if name.startswith('head')]


def test_a_distilled_file_is_no_plain_vit_nor_the_other_way_round():
    weights = weights_of(published.deit_distilled(12, 2, 4, 12, classes=5))
    with pytest.raises(ValueError, match='do not fit the model') as error:
        pretrained.convert(weights, TINY, 12)
    assert sorted(str(error.value).splitlines()[1:]) == sorted(
        [
            '+ dist_token [1, 1, 12]',
            '+ head_dist.weight [5, 12]',
            '+ head_dist.bias [5]',
            '  pos_embed: is [1, 11, 12], must be [1, 10, 12]',
        ]
    )
    plain = weights_of(published.timm_vit(12, 2, 4, 12, classes=5))
    with pytest.raises(ValueError, match='do not fit the model') as error:
        pretrained.convert(plain, DISTILLED, 12)
    assert sorted(str(error.value).splitlines()[1:]) == sorted(
        [
            '- dist_token [1, 1, 12]',
            '- head_dist.weight [5, 12]',
            '- head_dist.bias [5]',
            '  pos_embed: is [1, 10, 12], must be [1, 11, 12]',
        ]
    )


def test_a_damaged_table_of_positions_is_an_error_that_tells_its_rows():
    weights = weights_of(published.deit_distilled(12, 2, 4, 12, classes=5))
    weights['pos_embed'] = weights['pos_embed'][:, 1:]
    with pytest.raises(ValueError, match=r'pos_embed: is \[1, 10, 12\], must be \[1, 11, 12\]'):
        pretrained.convert(weights, DISTILLED, 12)
    weights = weights_of(published.deit3(12, 2, 4, 12, classes=5))
    weights['pos_embed'] = weights['pos_embed'][:, 1:]
    with pytest.raises(ValueError, match=r'pos_embed: is \[1, 8, 12\], must be \[1, 10, 12\]'):
        pretrained.convert(weights, DEIT3, 12)
