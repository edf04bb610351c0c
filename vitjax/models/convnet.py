"""Convolutional baselines of the attention models."""

import functools
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vitjax import ops
from vitjax.base import fields
from vitjax.base.ranges import Classes, Extent, Range, Rate
from vitjax.layers.dense import Conv
from vitjax.layers.dropout import dropout
from vitjax.models.base import Arithmetic, Model, Trunk


class ConvRelu(nn.Module):
    """A 3x3 convolution and ReLU; `capture` offers its output, a feature map."""

    features: int
    padding: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # torchvision's VGG
        conv = Conv(
            self.features, 1, self.padding, dtype=self.dtype, kernel_init=init, name='conv'
        )  # fmt: skip
        return nn.relu(conv(x))


class Pool(nn.Module):
    """2x2 max pooling; `capture` offers its output, a feature map."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.pool(x)


class _Maps(Model):
    """Model of feature maps of unequal shapes."""

    @property
    def trunk(self) -> Trunk:
        """Feature maps alone."""
        return Trunk(None, 0, 'maps', {})


class ConvNet(_Maps):
    """Small network of the lecture: 3x3 valid convolutions, each with 2x2 max pooling, then dense.

    Images [B, H, W, 3] to logits [B, num_classes] (the hidden features when it is 0). Dense layers
    fit the image size that the parameters were made for.

    Attributes:
        widths: channels of the convolutions.
        hidden: units of the dense layer.
        num_classes: logits; 0 returns the hidden features.
        dropout: before the dense layer.
        dtype: compute type; parameters stay float32.
    """

    widths: Annotated[tuple[Extent, ...], Range(1, 16)] = (32, 64, 128, 128)
    hidden: Extent = 512
    num_classes: Classes = 1
    dropout: Rate = 0.0
    dtype: Arithmetic = 'float32'

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        fields.require(self, 'model')
        x = images
        for i, width in enumerate(self.widths):
            if min(x.shape[1:3]) < 4:
                raise ValueError(
                    f'images must leave 4 pixels for convolution {i + 1} of {len(self.widths)}: '
                    f'{images.shape[1]}x{images.shape[2]} pixels leave {min(x.shape[1:3])}.'
                )
            x = ConvRelu(width, 0, self.dtype, name=f'conv_{i + 1}')(x)
            x = Pool(name=f'pool_{i + 1}')(x)
        x = dropout(self, x.reshape(x.shape[0], -1), self.dropout, train)
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name='dense')(x))
        if self.num_classes:
            x = nn.Dense(self.num_classes, dtype=self.dtype, name='head')(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class VGG16(_Maps):
    """VGG-16 (Simonyan and Zisserman 2015, table 1, column D), as torchvision has it.

    Images [B, H, W, 3] of 32 pixels or more to logits [B, num_classes] (features when it is 0).

    Attributes:
        num_classes: logits; 0 returns the 4,096 features.
        dropout: after each dense layer.
        dtype: compute type; parameters stay float32.
    """

    num_classes: Classes = 1000
    dropout: Rate = 0.5
    dtype: Arithmetic = 'float32'

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        fields.require(self, 'model')
        if min(images.shape[1:3]) < 32:
            raise ValueError(
                'VGG16 needs images of 32 pixels or more: '
                f'got {images.shape[1]}x{images.shape[2]} pixels.'
            )
        x, number = images, 0
        for i, (repeats, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
            for _ in range(repeats):
                number += 1
                x = ConvRelu(width, 1, self.dtype, name=f'conv_{number}')(x)
            x = Pool(name=f'pool_{i}')(x)
        x = adaptive_average(x, (7, 7)).reshape(x.shape[0], -1)
        init = nn.initializers.normal(0.01)
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=init)
        for name in ('dense_1', 'dense_2'):
            x = dropout(self, nn.relu(dense(4096, name=name)(x)), self.dropout, train)
        if self.num_classes:
            x = dense(self.num_classes, name='head')(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def adaptive_average(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """PyTorch's adaptive average pooling of maps [B, H, W, C] to [B, *size, C].

    Output cell i is the mean over input rows floor(i H / h) to ceil((i + 1) H / h), likewise for
    columns.
    """
    for axis, new in ((1, size[0]), (2, size[1])):
        old = x.shape[axis]
        if old == new:
            continue
        i, j = np.arange(new)[:, None], np.arange(old)[None]
        inside = (j >= i * old // new) & (j < -(-(i + 1) * old // new))
        matrix = jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


PUBLISHED = {'convnet': ConvNet(), 'vgg16': VGG16()}
