from typing import Any

import jax
import numpy as np
from helpers import random_params

from vitjax.models import CaiT

MODEL = CaiT(patch_size=4, width=16, depth=2, num_heads=2, num_classes=5, layer_scale=0.5)
IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))


def trunk(params) -> Any:
    _, state = MODEL.apply(
        {'params': params}, IMAGES, mutable='intermediates',
        capture_intermediates=lambda module, _: module.name == 'blocks',
    )  # fmt: skip
    return state['intermediates']['blocks']['__call__'][0][0]


def test_the_class_token_changes_the_logits_and_no_patch_token():
    params = random_params(MODEL, IMAGES)

    def both(params):
        logits: Any = MODEL.apply({'params': params}, IMAGES)
        return trunk(params).sum(), logits.sum()

    slopes = jax.jit(jax.jacobian(both))(params)
    moved = [
        {name for name in tree if any(np.any(x) for x in jax.tree.leaves(tree[name]))}
        for tree in slopes
    ]
    assert moved[0] == {'embed', 'blocks'}
    assert moved[1] == {'embed', 'blocks', 'class_token', 'class_blocks', 'norm', 'head'}


def test_every_patch_sees_every_other():
    params = random_params(MODEL, IMAGES)

    def tokens(table):
        embed = params['embed'] | {'position': {'table': table}}
        return trunk(params | {'embed': embed})[-1, 0].sum(-1)

    reach = jax.jit(jax.jacobian(tokens))(params['embed']['position']['table'])
    assert np.abs(reach).sum(-1).min() > 1e-6  # [token, token]
