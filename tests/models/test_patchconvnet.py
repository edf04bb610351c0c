from typing import Any

import jax
import numpy as np
from helpers import random_params

from vitjax.models import PatchConvNet

IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 16, 3))


def test_one_class_token_per_class_gives_each_class_its_own_output():
    model = PatchConvNet(
        patch_size=2, width=8, depth=2, num_classes=3, layer_scale=0.5, class_tokens_per_class=True
    )
    params = random_params(model, IMAGES)
    assert params['class_token'].shape == (3, 8)
    assert params['head']['kernel'].shape == (3, 8) and params['head']['bias'].shape == (3,)

    def logits(token):
        out: Any = model.apply({'params': params | {'class_token': token}}, IMAGES)
        return out.sum(0)

    reach = np.abs(jax.jit(jax.jacobian(logits))(params['class_token'])).sum(-1)  # [class, token]
    np.testing.assert_array_equal(reach > 1e-6, np.eye(3, dtype=bool))


def test_a_token_sees_its_neighbours_and_the_means_of_all():
    """One block: the 3x3 convolution reaches one token around, squeeze-excite every token."""
    model = PatchConvNet(patch_size=2, width=8, depth=1, num_classes=3, layer_scale=1.0)
    params = random_params(model, IMAGES)
    params['blocks']['se']['reduce']['bias'] += 5  # no ReLU is shut

    def tokens(images) -> Any:
        _, state = model.apply(
            {'params': params}, images, mutable='intermediates',
            capture_intermediates=lambda module, _: module.name == 'blocks',
        )  # fmt: skip
        return state['intermediates']['blocks']['__call__'][0][0][0]

    corner = jax.jit(jax.grad(lambda images: tokens(images)[0, 0].sum()))(IMAGES)
    reach = np.abs(np.asarray(corner[0])).sum(-1).reshape(4, 2, 8, 2).sum((1, 3))
    assert reach.min() > 0  # through squeeze-excite
    assert reach[:2, :2].min() > 3 * reach[2:, 2:].max()
