"""Pruning against the derivative by a gate, and by what no longer matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close as close
from helpers import normal

from vitjax import models
from vitjax.analysis import prune
from vitjax.inside.capture import capture
from vitjax.inside.capture import gradients as capture_gradients


def first_class(logits):
    return logits[:, 0].sum()


def test_head_importance_is_the_derivative_by_a_gate(vit):
    """|Σ A ∂y/∂A| equals the derivative by a number that multiplies a head's output."""
    model, images, params = vit
    images = images[:1]  # the derivative's size is taken for each image
    path = 'blocks/attention/weights'
    _, found, grads = capture_gradients(model, params, images, first_class, keep=path)
    got = prune.head_importance(found[path], grads[path])
    assert got.shape == (3, 4)

    def gated(gate):
        attention = params['blocks']['attention']
        kernel = attention['projection']['kernel']
        kernel = kernel.reshape(3, 4, 4, 16) * gate[:, :, None, None]
        projection = {**attention['projection'], 'kernel': kernel.reshape(3, 16, 16)}
        blocks = {**params['blocks'], 'attention': {**attention, 'projection': projection}}
        return first_class(model.apply({'params': {**params, 'blocks': blocks}}, images))

    close(got, np.abs(np.asarray(jax.jit(jax.grad(gated))(jnp.ones((3, 4))), np.float64)), 1e-4)


def test_head_importance_sums_signed_products_before_the_size():
    weights, grads = normal(2, 3, 4, 5, 6), normal(2, 3, 4, 5, 6, seed=1)
    wanted = np.abs((weights.astype(np.float64) * grads).sum((3, 4))).mean(1)
    close(prune.head_importance(weights, grads), wanted)


@pytest.mark.slow
def test_a_removed_head_adds_nothing(random_params):
    model = models.CaiT(8, 16, 3, 1, 4, num_classes=3)
    images = jnp.asarray(normal(2, 16, 16, 3))
    params = random_params(model, images)
    nothing = prune.remove_heads(params, jnp.zeros((3, 4), bool))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, nothing))

    removed = {
        'blocks': jnp.zeros((3, 4), bool).at[1, 2].set(True),
        'class_blocks': jnp.zeros((1, 4), bool).at[0, 3].set(True),
    }
    for stack, heads in removed.items():
        params = prune.remove_heads(params, heads, stack=stack)
    paths = {
        'blocks': 'blocks/attention/mixed_weights',
        'class_blocks': 'class_blocks/attention/weights',
    }
    keep = '|'.join(paths.values())
    _, _, grads = capture_gradients(model, params, images, first_class, keep=keep)
    for stack, path in paths.items():  # what its heads look at no longer matters
        largest = np.abs(grads[path]).max((1, 3, 4))
        np.testing.assert_array_equal(largest == 0, removed[stack])


def test_a_shorter_stack_keeps_the_layers_it_is_told(vit):
    model, images, params = vit
    _, found = capture(model, params, images, keep='blocks')
    short = prune.keep_layers(params, (0, 1))
    _, cut = capture(model.clone(depth=2), short, images, keep='blocks')
    close(cut['blocks'], np.asarray(found['blocks'][:2], np.float64), 1e-5)
    swapped = prune.keep_layers(params, (2, 0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params['blocks']):
        other = swapped['blocks']
        for key in path:
            other = other[key.key]
        np.testing.assert_array_equal(other, leaf[jnp.array([2, 0])])
