"""Token analysis against float64 references in NumPy and against properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close as close
from helpers import normal

from vitjax import models
from vitjax.analysis import tokens
from vitjax.inside.capture import capture
from vitjax.layers.embed import patchify, sincos_positions, unpatchify
from vitjax.layers.resample import resample_positions


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a @ b) / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize('kind', ['learned', 'interpolated', 'sincos'])
def test_position_similarity(kind):
    table = {
        'learned': lambda: normal(1 + 6, 8),
        'interpolated': lambda: resample_positions(normal(1 + 12, 8), (3, 4), (2, 3), prefix=1),
        'sincos': lambda: sincos_positions((2, 3), 8),
    }[kind]()
    prefix = 0 if kind == 'sincos' else 1
    similar = tokens.position_similarity(jnp.asarray(table), prefix=prefix)
    rows = np.asarray(table)[prefix:]
    close(similar, np.array([[cosine(a, b) for b in rows] for a in rows]))
    np.testing.assert_allclose(np.diag(similar), 1, atol=1e-6)


def test_sincos_similarity_depends_on_the_offset_alone():
    similar = np.asarray(tokens.position_similarity(sincos_positions((4, 5), 32)))
    similar = similar.reshape(4, 5, 4, 5)
    np.testing.assert_allclose(similar[0, 0, 2, 1], similar[1, 3, 3, 4], atol=1e-6)


def test_evolution():
    steps = normal(4, 3, 6)
    norm, similar = tokens.evolution(steps)
    close(norm, np.sqrt((steps.astype(np.float64) ** 2).sum(-1)))
    close(similar, np.array([[cosine(s, f) for s, f in zip(x, steps[-1])] for x in steps]))  # noqa: B905
    np.testing.assert_allclose(similar[-1], 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    'model',
    [
        models.ViT(8, 16, 3, 2, num_classes=5, pool='flatten', head=(12,)),
        models.CaiT(8, 16, 3, 2, 2, num_classes=5, layer_scale=1.0),
        models.PatchConvNet(8, 16, 3, num_classes=5, class_tokens_per_class=True),
    ],
    ids=['vit', 'cait', 'patchconvnet-multi'],
)
def test_lens_at_the_last_layer_is_the_logits(random_params, model):
    images = jnp.asarray(normal(2, 16, 24, 3))
    params = random_params(model, images)
    logits, found = capture(model, params, images, keep='blocks')
    seen = tokens.lens(
        lambda t: model.apply({'params': params}, t, method='readout'), found['blocks']
    )
    assert seen.shape == (3, 2, 5)
    close(seen[-1], np.asarray(logits, np.float64))
    cut = {**params, 'blocks': jax.tree.map(lambda leaf: leaf[:1], params['blocks'])}
    early = jax.jit(model.clone(depth=1).apply)({'params': cut}, images)
    close(seen[0], np.asarray(early, np.float64), 1e-5)


def test_decided_is_the_layer_from_which_the_final_class_stays():
    top = np.array([[0, 2, 1], [1, 2, 1], [0, 2, 0], [0, 2, 1]])  # [layers, images]
    logits = jax.nn.one_hot(top, 3)
    np.testing.assert_array_equal(tokens.decided(logits), [2, 0, 3])


def test_effective_rank():
    matrix = normal(2, 7, 5)
    for got, one in zip(tokens.effective_rank(matrix), matrix, strict=True):
        values = np.linalg.svd(one.astype(np.float64), compute_uv=False)
        share = values / values.sum()
        np.testing.assert_allclose(got, np.exp(-(share * np.log(share)).sum()), rtol=1e-5)
    np.testing.assert_allclose(tokens.effective_rank(jnp.eye(5) * 3), 5, rtol=1e-5)
    same = jnp.ones((6, 1)) * normal(1, 4)
    np.testing.assert_allclose(tokens.effective_rank(same), 1, rtol=1e-4)
    assert tokens.effective_rank(jnp.zeros((3, 4))) == 1
    rotation = np.linalg.qr(normal(5, 5, seed=1))[0]
    close(tokens.effective_rank(matrix @ rotation), np.asarray(tokens.effective_rank(matrix)), 1e-5)


def test_as_many_tokens_as_an_early_feature_map_has():
    """VGG16's first maps at 224 pixels: a square matrix of them would take 10 GB."""
    maps = normal(224 * 224, 3)
    close(tokens.effective_rank(maps), np.asarray(tokens.effective_rank(maps.T)), 1e-5)
    unit = maps / np.linalg.norm(maps, axis=1, keepdims=True)
    expected = (np.square(unit.sum(0, dtype=np.float64)).sum() - 224**2) / (224**4 - 224**2)
    assert abs(tokens.patch_cosine(maps) - expected) < 1e-6


def test_sixteen_bits_are_widened_and_zeros_divide_nothing():
    half = (300 * normal(2, 5, 4)).astype(np.float16)  # the square of 300 is beyond float16
    half[0, 0] = 0
    wide = half.astype(np.float32)
    for function in (tokens.norms, tokens.patch_cosine, tokens.effective_rank):
        got = np.asarray(jax.jit(function)(half))
        assert got.dtype == np.float32
        close(got, np.asarray(function(wide), np.float64))
    assert np.all(np.isfinite(tokens.channels(jnp.zeros((4, 4, 2)))))


def test_patch_cosine():
    patches = normal(3, 6, 4)
    wanted = [
        np.mean([cosine(x[i], x[j]) for i in range(6) for j in range(6) if i != j]) for x in patches
    ]
    np.testing.assert_allclose(tokens.patch_cosine(patches), wanted, atol=1e-6)
    np.testing.assert_allclose(tokens.patch_cosine(jnp.ones((6, 4))), 1, atol=1e-6)
    np.testing.assert_allclose(tokens.patch_cosine(jnp.eye(4)), 0, atol=1e-6)
    np.testing.assert_allclose(tokens.patch_cosine(jnp.array([[1.0], [-1.0]])), -1, atol=1e-6)


def test_norms():
    close(tokens.norms(normal(2, 5, 3)), np.linalg.norm(normal(2, 5, 3).astype(np.float64), axis=2))


def test_channels_are_standardised_64_around_128():
    maps = normal(2, 6, 7, 3) * 5 + 2
    maps[0, ..., 1] = 4
    grey = np.asarray(tokens.channels(jnp.asarray(maps)))
    assert grey.dtype == np.uint8
    exact = maps.astype(np.float64)
    mean, deviation = exact.mean((1, 2), keepdims=True), exact.std((1, 2), keepdims=True)
    wanted = np.clip(128 + 64 * (exact - mean) / np.maximum(deviation, 1e-30), 0, 255)
    assert np.abs(grey - wanted).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(grey[0, ..., 1], 128)


def test_an_image_is_rebuilt_from_its_patches():
    images = jnp.asarray(normal(1, 12, 18, 3))
    np.testing.assert_array_equal(unpatchify(patchify(images, 6), (2, 3)), images)


def test_all_compile():
    patches = normal(2, 3, 6, 4)
    for function in (
        tokens.norms,
        tokens.patch_cosine,
        tokens.effective_rank,
        tokens.channels,
        lambda x: tokens.evolution(x[:, :, 0])[1],
    ):
        close(jax.jit(function)(patches), np.asarray(function(patches), np.float64), 1e-5)
