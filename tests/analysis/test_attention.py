"""Attention's analysis against float64 references in NumPy and against properties."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close as close

from vitjax import models
from vitjax.analysis import attention
from vitjax.inside.capture import capture, gradients

GRID, PREFIX = (3, 4), 2
TOKENS = PREFIX + GRID[0] * GRID[1]


def stochastic(*shape, seed=0) -> Any:
    values = np.random.default_rng(seed).gamma(0.5, size=shape)
    return (values / values.sum(-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope='module')
def weights():
    return stochastic(3, 2, 4, TOKENS, TOKENS)


@pytest.fixture(scope='module')
def class_weights():
    return stochastic(2, 2, 4, 1, 1 + TOKENS, seed=1)


def test_head_maps_are_the_query_row_on_the_grid(weights):
    maps = attention.head_maps(weights, grid=GRID, prefix=PREFIX, query=0)
    assert maps.shape == (3, 2, 4, *GRID)
    for row, column in ((0, 0), (1, 3), (2, 1)):
        key = PREFIX + row * GRID[1] + column
        np.testing.assert_array_equal(maps[..., row, column], weights[..., 0, key])


def test_head_maps_without_a_query_average_the_patches(weights):
    maps = attention.head_maps(weights, grid=GRID, prefix=PREFIX)
    wanted = weights[..., PREFIX:, PREFIX:].astype(np.float64).mean(-2)
    close(maps.reshape(*maps.shape[:-2], -1), wanted)


def test_head_maps_refuse_what_does_not_fit(weights, class_weights):
    with pytest.raises(ValueError, match=r'2 \+ 3x3: got 14'):
        attention.head_maps(weights, grid=(3, 3), prefix=PREFIX, query=0)
    with pytest.raises(ValueError, match='one of the 14 queries.*query=14'):
        attention.head_maps(weights, grid=GRID, prefix=PREFIX, query=14)
    with pytest.raises(ValueError, match='as many queries as keys: got 1 and 15'):
        attention.head_maps(class_weights, grid=GRID, prefix=3)


def test_saliency_is_the_first_class_layer_stretched():
    weights = stochastic(2, 3, 4, 1, 13)
    maps = attention.saliency(weights, grid=GRID)
    for image in range(3):
        mean = weights[0, image, :, 0, 1:].astype(np.float64).mean(0).reshape(GRID)
        close(maps[image], (mean - mean.min()) / (mean.max() - mean.min()), 1e-5)
    per_class = attention.saliency(weights[:, :, :, :, 1:], grid=GRID)
    np.testing.assert_array_equal(per_class, maps)


def reference_rollout(weights, discard=0.0):
    """Abnar and Zuidema's equation 1, one image and one layer at a time, in float64."""
    layers, images, _, tokens, _ = weights.shape
    out = np.zeros((layers, images, tokens, tokens))
    for image in range(images):
        rolled = np.eye(tokens)
        for layer in range(layers):
            mean = weights[layer, image].astype(np.float64).mean(0)
            smallest = np.argsort(mean, axis=None)[: int(discard * tokens**2)]
            mean.flat[smallest] = 0
            mean = mean + np.eye(tokens)
            rolled = (mean / mean.sum(1)[:, None]) @ rolled
            out[layer, image] = rolled
    return out


@pytest.mark.parametrize('discard', [0.0, 0.5, 0.9])
def test_rollout_is_the_papers(weights, discard):
    rolled = attention.rollout(weights, discard=discard)
    close(rolled, reference_rollout(weights, discard))
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-5)


def test_rollout_of_identities_is_identity():
    identity = jnp.broadcast_to(jnp.eye(5), (4, 1, 2, 5, 5))
    np.testing.assert_array_equal(
        attention.rollout(identity), np.broadcast_to(np.eye(5), (4, 1, 5, 5))
    )


def test_rollout_refuses_to_discard_everything(weights):
    with pytest.raises(ValueError, match=r'below 1: discard=1\.0'):
        attention.rollout(weights, discard=1.0)


@pytest.mark.parametrize('trunk', ['attention', 'convolutional'])
def test_class_rollout_is_the_recurrence(weights, class_weights, trunk):
    """c <- c / 2 + (a_class c + a_patches R) / 2 on [class, patches], in float64."""
    patches, given = np.stack([np.eye(TOKENS)] * 2), None
    if trunk == 'attention':
        patches = reference_rollout(weights)[-1]
        given = jnp.asarray(patches, jnp.float32)
    rolled = attention.class_rollout(class_weights, given)
    for image in range(2):
        rows = np.eye(1 + TOKENS)[:1]
        for layer in range(2):
            mean = class_weights[layer, image].astype(np.float64).mean(0)[0]
            past = np.zeros(1 + TOKENS)
            past[1:] = mean[1:] @ patches[image]
            rows = 0.5 * rows + 0.5 * (mean[0] * rows + past)
            close(rolled[layer, image], rows)
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-5)


def test_class_rollout_with_one_token_per_class_and_a_convolutional_trunk():
    weights = stochastic(1, 2, 3, 5, 12)
    rolled = attention.class_rollout(weights)
    assert rolled.shape == (1, 2, 5, 13)
    close(rolled[0, ..., 1:], weights[0].astype(np.float64).mean(1) / 2)
    np.testing.assert_array_equal(rolled[..., 0], 0.5)


def reference_relevance(weights, grads):
    layers, images, heads, tokens, _ = weights.shape
    out = np.zeros((images, tokens, tokens))
    for image in range(images):
        relevant = np.eye(tokens)
        for layer in range(layers):
            mean = np.zeros((tokens, tokens))
            for head in range(heads):
                product = weights[layer, image, head].astype(np.float64) * grads[layer, image, head]
                mean += np.where(product > 0, product, 0) / heads
            relevant = relevant + mean @ relevant
        out[image] = relevant
    return out


def test_relevance_is_the_papers(weights):
    grads = np.random.default_rng(2).normal(size=weights.shape).astype(np.float32)
    close(attention.relevance(weights, grads), reference_relevance(weights, grads))


def test_relevance_without_positive_gradients_is_identity(weights):
    relevant = attention.relevance(weights, -jnp.abs(weights))
    np.testing.assert_array_equal(relevant, np.broadcast_to(np.eye(TOKENS), relevant.shape))


def test_class_relevance_is_relevance_of_the_joint_matrix(weights, class_weights):
    """The class stage as self-attention over [class, patches] whose patch rows have no gradient."""
    rng = np.random.default_rng(3)
    grads = rng.normal(size=weights.shape).astype(np.float32)
    class_grads = rng.normal(size=class_weights.shape).astype(np.float32)
    patches = reference_relevance(weights, grads)
    got = attention.class_relevance(class_weights, class_grads, jnp.asarray(patches, jnp.float32))
    size = 1 + TOKENS
    for image in range(2):
        joint = np.eye(size)
        joint[1:, 1:] = patches[image]
        for layer in range(2):
            step = np.zeros((size, size))
            product = class_weights[layer, image, :, 0].astype(np.float64)
            product = product * class_grads[layer, image, :, 0]
            step[0] = np.maximum(product, 0).mean(0)
            joint = joint + step @ joint
        close(got[image, 0], joint[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    'model',
    [
        models.CaiT(8, 16, 2, 2, 2, num_classes=3, layer_scale=1.0),
        models.PatchConvNet(8, 16, 2, num_classes=3, layer_scale=1.0, class_tokens_per_class=True),
    ],
    ids=['cait', 'patchconvnet'],
)
def test_class_functions_take_what_capture_gives(random_params, model):
    images = jax.random.normal(jax.random.key(0), (2, 24, 32, 3))
    params = random_params(model, images)
    _, found, grads = gradients(
        model, params, images, first_class, keep='(class_)?blocks/attention/weights'
    )
    rolled = relevant = None
    if 'blocks/attention/weights' in found:
        trunk, trunk_grads = found['blocks/attention/weights'], grads['blocks/attention/weights']
        rolled, relevant = attention.rollout(trunk)[-1], attention.relevance(trunk, trunk_grads)
    weights = found['class_blocks/attention/weights']
    class_rolled = attention.class_rollout(weights, rolled)
    np.testing.assert_allclose(class_rolled.sum(-1), 1, atol=1e-5)
    row = attention.class_relevance(weights, grads['class_blocks/attention/weights'], relevant)
    assert row.shape == class_rolled.shape[1:]
    assert row.min() >= 0 and row[:, 0, 1:].max() > 0
    if isinstance(model, models.PatchConvNet):
        np.testing.assert_array_equal(row[:, 1:, 1:], 0)  # class 0's logit reads token 0 alone
    maps = attention.saliency(weights, grid=(3, 4))
    assert (maps.min(), maps.max()) == (0, 1)


def first_class(logits):
    return logits[:, 0].sum()


def test_mean_distance_is_the_reference(weights):
    got = attention.mean_distance(weights, grid=GRID, patch_size=8, prefix=PREFIX)
    scaled = attention.mean_distance(
        weights, grid=GRID, patch_size=8, prefix=PREFIX, renormalize=True
    )
    centres = [(8 * r + 4, 8 * c + 4) for r in range(GRID[0]) for c in range(GRID[1])]
    wanted, renormalized = np.zeros((2, 3, 2, 4))
    for index in np.ndindex(3, 2, 4):
        for q, (qy, qx) in enumerate(centres):
            row = weights[index][PREFIX + q, PREFIX:].astype(np.float64)
            far = sum(w * np.hypot(qy - y, qx - x) for w, (y, x) in zip(row, centres, strict=True))
            wanted[index] += far / len(centres)
            renormalized[index] += far / row.sum() / len(centres)
    close(got, wanted)
    close(scaled, renormalized)


def test_mean_distance_of_uniform_attention_has_a_closed_form():
    """On one row of n patches the mean of |i - j| is (n² - 1) / 3n."""
    n, patch = 7, 16
    uniform = jnp.full((1, n, n), 1 / n)
    got = attention.mean_distance(uniform, grid=(1, n), patch_size=patch)
    np.testing.assert_allclose(got, patch * (n**2 - 1) / (3 * n), rtol=1e-6)
    identity = jnp.eye(n)[None]
    assert attention.mean_distance(identity, grid=(1, n), patch_size=patch) == 0


def test_mean_distance_with_everything_on_the_class_token_is_zero():
    weights = jnp.zeros((1, 5, 5)).at[..., 0].set(1)
    for renormalize in (False, True):
        distance = attention.mean_distance(
            weights, grid=(2, 2), patch_size=4, prefix=1, renormalize=renormalize
        )
        assert distance == 0


def test_entropy_runs_from_zero_to_the_log_of_the_keys(weights):
    exact = weights.astype(np.float64)
    close(attention.entropy(weights), -(exact * np.log(exact)).sum(-1).mean(-1))
    np.testing.assert_array_equal(attention.entropy(jnp.eye(6)[None]), 0)
    np.testing.assert_allclose(attention.entropy(jnp.full((1, 6, 6), 1 / 6)), np.log(6), rtol=1e-6)


def test_all_compile_and_give_the_same(weights, class_weights):
    grads = weights - weights.mean()
    patches = attention.rollout(weights)[-1]
    for function, *args in (
        (functools.partial(attention.head_maps, grid=GRID, prefix=PREFIX, query=1), weights),
        (functools.partial(attention.rollout, discard=0.3), weights),
        (attention.class_rollout, class_weights, patches),
        (attention.relevance, weights, grads),
        (attention.class_relevance, class_weights, class_weights, patches),
        (
            functools.partial(attention.mean_distance, grid=GRID, patch_size=4, prefix=PREFIX),
            weights,
        ),
        (attention.entropy, weights),
    ):
        close(jax.jit(function)(*args), np.asarray(function(*args), np.float64), 1e-6)


class Gated(nn.Module):
    """One layer whose only attention weights are a parameter, so that its rollout is known."""

    @nn.compact
    def __call__(self, images, train=False):
        scores = self.param('scores', nn.initializers.normal(1), (1, 1, 4, 4))
        self.sow('intermediates', 'weights', jax.nn.softmax(scores))
        return images


def test_rollout_of_a_known_layer_through_capture():
    model, images = Gated(), jnp.zeros((1, 2, 2, 3))
    params = jax.jit(model.init)(jax.random.key(0), images)['params']
    _, found = capture(model, params, images, keep='weights')
    rolled = attention.rollout(found['weights'][None])[-1, 0]
    close(rolled, (jax.nn.softmax(params['scores'][0, 0]) + np.eye(4)) / 2)
