"""Every tensor that the published implementations gave for fixed weights and images."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from vitjax import models, pretrained
from vitjax.inside.capture import capture

GOLDEN = pathlib.Path(__file__).parent / 'golden'
SMALL: Any = {'width': 32, 'depth': 3, 'num_classes': 7}
MODELS = {
    'vit': models.ViT(patch_size=8, num_heads=4, **SMALL),
    'cait': models.CaiT(patch_size=8, num_heads=4, **SMALL),
    'patchconvnet': models.PatchConvNet(**SMALL),
}
PATHS = {  # a reference's name for what it shows -> ours
    'weights': 'attention/weights',
    'logits_mixed': 'attention/mixed_logits',
    'weights_mixed': 'attention/mixed_weights',
}


def ours(name: str, found: dict, logits) -> np.ndarray:
    if name == 'logits':
        return logits
    if name == 'stem':
        return found['embed']
    stack, layer, *what = name.split('.')
    path = {'blocks': 'blocks', 'blocks_token_only': 'class_blocks'}[stack]
    return found['/'.join([path, *(PATHS[w] for w in what)])][int(layer)]


@pytest.fixture(scope='module', params=MODELS)
def case(request):
    model = MODELS[request.param]
    wanted = dict(np.load(GOLDEN / f'{request.param}.npz'))
    images = jnp.asarray(wanted.pop('images'))
    weights = load_file(GOLDEN / f'{request.param}.safetensors')
    said = []
    params = pretrained.convert(weights, model, images.shape[1], report=said.append)
    assert said == []
    return request.param, model, params, images, wanted


def test_every_golden_tensor(case):
    kind, model, params, images, wanted = case
    logits, found = capture(model, params, images)
    assert len(wanted) == {'vit': 7, 'cait': 17, 'patchconvnet': 6}[kind]
    for name, value in wanted.items():
        if kind == 'cait' and name.startswith('blocks.') and value.shape[1:3] == (36, 36):
            value = np.moveaxis(value, -1, 1)  # the reference has the heads last
        got = np.asarray(ours(name, found, logits))
        assert got.shape == value.shape, name
        assert np.abs(got - value).max() <= 1e-5 * np.abs(value).max(), name


def test_golden_logits_as_a_user_runs_the_model(case):
    _, model, params, images, wanted = case
    assert model.attention == 'auto'
    logits = jax.jit(model.apply)({'params': params}, images)
    assert np.abs(logits - wanted['logits']).max() <= 1e-5 * np.abs(wanted['logits']).max()
