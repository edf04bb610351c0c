import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import exact, normal, random_params, shapes_of

from vitjax.models import VGG16, ConvNet
from vitjax.models.convnet import Pool, adaptive_average


@pytest.mark.parametrize('size', [(7, 7), (3, 10), (14, 9), (1, 8)])
def test_adaptive_average_is_the_mean_of_each_cells_rows_and_columns(size):
    x = normal(2, *size, 3)
    found = np.asarray(adaptive_average(jnp.asarray(x), (7, 4)))
    assert found.shape == (2, 7, 4, 3)
    for i in range(7):
        for j in range(4):
            rows = slice(i * size[0] // 7, -(-(i + 1) * size[0] // 7))
            columns = slice(j * size[1] // 4, -(-(j + 1) * size[1] // 4))
            expected = exact(x)[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (2, 3)])
def test_the_gradient_of_pooling_reaches_the_largest_of_each_four(size):
    x, pool = normal(2, *size, 3), Pool()
    out, back = jax.vjp(lambda x: pool.apply({}, x), jnp.asarray(x))
    found = np.asarray(out)
    assert found.shape == (2, size[0] // 2, size[1] // 2, 3)
    grad = normal(*found.shape, seed=1)
    expected = np.zeros_like(x)
    for b, i, j, c in np.ndindex(found.shape):
        four = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        row, column = np.unravel_index(four.argmax(), (2, 2))
        assert found[b, i, j, c] == four[row, column]
        expected[b, 2 * i + row, 2 * j + column, c] = grad[b, i, j, c]
    np.testing.assert_array_equal(back(grad)[0], expected)


def test_the_lectures_network_is_convolutions_pools_and_dense_layers():
    model = ConvNet(widths=(2, 3), hidden=4, num_classes=2)
    images = normal(2, 11, 10, 3)
    params = random_params(model, images, scale=1.0)
    x = exact(images)
    for name in ('conv_1', 'conv_2'):
        kernel, bias = (exact(params[name]['conv'][k]) for k in ('kernel', 'bias'))
        height, width = x.shape[1] - 2, x.shape[2] - 2
        y = sum(
            x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        )
        y = np.maximum(y + bias, 0)[:, : height // 2 * 2, : width // 2 * 2]
        x = y.reshape(2, height // 2, 2, width // 2, 2, -1).max((2, 4))
    x = x.reshape(2, -1)
    x = np.maximum(x @ exact(params['dense']['kernel']) + params['dense']['bias'], 0)
    expected = x @ exact(params['head']['kernel']) + params['head']['bias']
    found = jax.jit(lambda p: model.apply({'params': p}, images))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_vgg16_takes_any_image_of_32_pixels_or_more_with_the_same_parameters():
    model = VGG16(num_classes=3)
    small, large = (jnp.zeros((1, size, size + 5, 3)) for size in (32, 75))
    shapes = [shapes_of(model, x) for x in (small, large)]
    assert shapes[0] == shapes[1]
    assert jax.eval_shape(model.apply, {'params': shapes[0]}, large).shape == (1, 3)
    features = jax.eval_shape(VGG16(num_classes=0).init_with_output, jax.random.key(0), small)[0]
    assert features.shape == (1, 4096)
