"""DeiT's distillation token (Touvron et al. 2021): a second class token with a head of its own."""

import jax
import numpy as np

from vitjax.models import ViT

MODEL = ViT(patch_size=4, width=16, depth=2, num_heads=2, num_classes=5, pool='distilled')
PLAIN = MODEL.clone(pool='class')
IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))


def parameters(model):
    """Parameters with nothing at its initial value, so that no term goes unseen."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)['params']
    return jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape, scale=0.3)), shapes)


def logits(model, params):
    return np.asarray(jax.jit(model.apply)({'params': params}, IMAGES))


def test_what_it_says_of_itself():
    assert MODEL.trunk.prefix == MODEL.prefix_tokens == 2
    assert MODEL.clone(registers=3).trunk.prefix == 5
    assert MODEL.trunk.reads == 'class' and MODEL.trunk.class_token


def test_the_answer_is_the_mean_of_two_heads_on_two_tokens():
    """As a ViT whose class token is one of the two, and whose register is the other.

    A register is a token without a position: its value here is the token plus its position.
    """
    params = parameters(MODEL)
    embed = params['embed']
    table, tokens = embed['position']['table'], embed['class_token']
    each = []
    for own, other, head in ((0, 1, 'head'), (1, 0, 'head_distilled')):
        rows = np.concatenate([table[own : own + 1], table[2:]])
        as_plain = {
            'patch': embed['patch'],
            'class_token': tokens[own : own + 1],
            'registers': tokens[other : other + 1] + table[other],
            'position': {'table': rows},
        }
        same = {name: params[name] for name in ('blocks', 'norm')}
        plain = {'embed': as_plain, **same, 'head': params[head]}
        each.append(logits(PLAIN.clone(registers=1), plain))
    assert np.linalg.norm(each[0] - each[1]) > 0.1 * np.linalg.norm(each[0])
    expected = (each[0] + each[1]) / 2
    found = logits(MODEL, params)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_features_are_the_mean_of_both_tokens():
    params = parameters(MODEL)
    trunk = {name: value for name, value in params.items() if not name.startswith('head')}
    found = logits(MODEL.clone(num_classes=0), trunk)
    identity = {'output': {'kernel': np.eye(16, dtype=np.float32), 'bias': np.zeros(16, 'float32')}}
    heads = {'head': identity, 'head_distilled': identity}
    expected = logits(MODEL.clone(num_classes=16), params | heads)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
