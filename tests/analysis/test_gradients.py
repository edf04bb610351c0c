"""Gradient analysis against float64 references in NumPy, closed forms and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close as close
from helpers import normal

from vitjax import models
from vitjax.analysis import gradients
from vitjax.inside.capture import capture
from vitjax.inside.capture import gradients as capture_gradients


def first_class(logits):
    return logits[:, 0].sum()


@pytest.mark.parametrize('shape', [(2, 5, 3), (2, 4, 5, 3)], ids=['tokens', 'maps'])
def test_grad_cam_of_a_linear_model_is_its_closed_form(shape):
    """For y = mean over space of activations @ w, the map is relu(activations @ w) / places."""
    activations, weight = normal(*shape), normal(3, seed=1)
    space = tuple(range(1, len(shape) - 1))
    grads = jax.grad(lambda a: (a.mean(space) @ weight).sum())(jnp.asarray(activations))
    places = np.prod(shape[1:-1])
    wanted = np.maximum(activations.astype(np.float64) @ weight, 0) / places
    close(gradients.grad_cam(activations, grads), wanted)


def test_grad_cam_is_the_papers():
    activations, grads = normal(2, 4, 5, 3), normal(2, 4, 5, 3, seed=1)
    got = gradients.grad_cam(activations, grads)
    for image in range(2):
        total = np.zeros((4, 5))
        for channel in range(3):
            alpha = grads[image, :, :, channel].astype(np.float64).mean()
            total += alpha * activations[image, :, :, channel]
        close(got[image], np.maximum(total, 0))


def test_grad_cam_is_zero_if_patches_do_not_reach_the_logit(vit):
    model, images, params = vit
    _, found, grads = capture_gradients(model, params, images, first_class, keep='blocks')
    maps = [
        gradients.grad_cam(found['blocks'][i, :, 1:], grads['blocks'][i, :, 1:]) for i in (1, 2)
    ]
    assert maps[0].max() > 0
    np.testing.assert_array_equal(maps[1], 0)


def test_stretch():
    pictures = normal(3, 4, 5) * 7 - 2
    got = gradients.stretch(jnp.asarray(pictures))
    for one, picture in zip(got, pictures.astype(np.float64), strict=True):
        close(one, (picture - picture.min()) / (picture.max() - picture.min()))
    np.testing.assert_array_equal(gradients.stretch(jnp.full((1, 2, 2), 3.0)), 0)


def test_filters_are_kernels_as_pictures():
    kernel = normal(4, 5, 3, 6)
    colour = gradients.filters(kernel)
    assert colour.shape == (6, 4, 5, 3)
    close(colour[2], np.asarray(gradients.stretch(kernel[None, ..., 2]))[0])
    grey = gradients.filters(normal(3, 3, 2, 6))
    assert grey.shape == (6, 2, 3, 3)
    assert grey.min() == 0 and grey.max() == 1


def test_filter_components_are_principal_components():
    kernel = normal(2, 3, 3, 40)
    got = gradients.filter_components(kernel, 4)
    flat = kernel.reshape(18, 40).T.astype(np.float64)
    _, vectors = np.linalg.eigh(np.cov(flat.T))
    for i in range(4):
        vector = vectors[:, -1 - i]
        vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
        wanted = (vector - vector.min()) / (vector.max() - vector.min())
        close(np.ravel(got[i]), wanted, 1e-4)
    with pytest.raises(ValueError, match='at most 18: count=19'):
        gradients.filter_components(kernel, 19)


def test_maximize_climbs_a_linear_score_along_its_gradient():
    """With score = <w, x> each step adds rate * w / |w|: after n steps, n * rate of it."""
    weight = normal(2, 4, 4, 3).astype(np.float64)
    start = normal(2, 4, 4, 3, seed=1)
    score = lambda x: (x * weight.astype(np.float32)).sum((1, 2, 3))  # noqa: E731
    got = gradients.maximize(score, jnp.asarray(start), steps=5, rate=2.0)
    unit = weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True))
    close(got, start + 10 * unit, 1e-5)


def test_maximize_raises_what_it_climbs(random_params):
    model = models.ConvNet(widths=(4, 6), hidden=8, num_classes=3)
    start = gradients.grey_noise(jax.random.key(0), (2, 24, 24, 3))
    assert 0.4 <= start.min() and start.max() <= 0.6
    params = random_params(model, start)

    def score(images):
        maps = capture(model, params, images, keep='conv_2')[1]['conv_2']
        return gradients.border_left_out(maps)[jnp.arange(2), alive]

    maps = capture(model, params, start, keep='conv_2')[1]['conv_2']
    alive = jnp.argsort(-maps.mean((0, 1, 2)))[:2]
    for options in ({}, {'jitter': 2, 'blur': 0.5, 'key': jax.random.key(2)}):
        better = gradients.maximize(score, start, steps=8, **options)
        assert np.all(np.asarray(score(better)) > 2 * np.asarray(score(start)))
    with pytest.raises(ValueError, match='jitter=2'):
        gradients.maximize(score, start, jitter=2)


def test_maximize_leaves_an_image_without_gradient_as_it_is():
    start = gradients.grey_noise(jax.random.key(0), (2, 4, 4, 3))
    climb = jax.jit(lambda x: gradients.maximize(lambda x: x.sum((1, 2, 3)) * jnp.array([0, 1]), x))
    better = climb(start)
    np.testing.assert_array_equal(better[0], start[0])
    assert np.all(better[1] > start[1])


def test_border_left_out():
    maps = normal(2, 7, 6, 3)
    close(gradients.border_left_out(maps), maps[:, 2:5, 2:4].astype(np.float64).mean((1, 2)))
    small = normal(2, 4, 6, 3)
    close(gradients.border_left_out(small), small.astype(np.float64).mean((1, 2)))


def test_blur_is_a_gaussian_and_keeps_constants():
    impulse = jnp.zeros((1, 21, 21, 1)).at[0, 10, 10, 0].set(1)
    blurred = np.asarray(gradients.gaussian_blur(impulse, 2.0), np.float64)[0, :, :, 0]
    y, x = np.mgrid[-10:11, -10:11]
    wanted = np.exp(-(x**2 + y**2) / 8.0) * (np.maximum(abs(x), abs(y)) <= 6)
    close(blurred, wanted / wanted.sum(), 1e-6)
    np.testing.assert_allclose(gradients.gaussian_blur(jnp.ones((1, 5, 4, 2)), 1.5), 1, rtol=1e-6)


def test_receptive_field_of_stacked_convolutions():
    """k valid 3x3 convolutions of ones: support of side 2k + 1, weights of repeated boxes."""
    ones = jnp.ones((3, 3, 1, 1))

    def forward(images):
        out, x = [], images
        for _ in range(3):
            x = jax.lax.conv_general_dilated(
                x, ones, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
            )
            out.append(x.reshape(x.shape[0], -1, 1))
        return jnp.stack(out)

    images = jnp.asarray(normal(2, 11, 11, 1))
    fields = gradients.receptive_field(forward, images, token=5 * 11 + 5, layers=(0, 2))
    assert fields.shape == (2, 11, 11)
    box = np.ones(3)
    line = np.convolve(np.convolve(box, box), box)
    wanted = np.zeros((11, 11))
    wanted[2:9, 2:9] = np.outer(line, line)
    close(fields[1], wanted)
    np.testing.assert_allclose(gradients.field_size(fields)[0], 3)
    above = (wanted > 0.0455 * wanted.max()).sum()
    np.testing.assert_allclose(gradients.field_size(fields)[1], np.sqrt(above), rtol=1e-6)


def test_receptive_field_through_capture_is_the_tokens_own_gradient(vit):
    model, images, params = vit

    def forward(x):
        return capture(model, params, x, keep='blocks')[1]['blocks']

    fields = jax.jit(lambda x: gradients.receptive_field(forward, x, token=3, layers=(0, 2)))(
        images
    )
    own = jax.jit(jax.grad(lambda x: forward(x)[2, :, 3].sum()))(images)
    close(fields[1], np.abs(np.asarray(own, np.float64)).sum(-1).mean(0), 1e-5)
    assert fields.min() > 0  # attention reaches every pixel from the first block on
