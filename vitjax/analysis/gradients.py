"""Analyses of gradients: Grad-CAM, filters, preferred inputs of units, receptive fields.

Gradients at captured arrays come from `capture.gradients`. Functions that differentiate with
respect to pixels take the forward pass as a function; compile them with `jax.jit`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from vitjax.analysis.tokens import TINY


def grad_cam(activations: jax.Array, grads: jax.Array) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1-2): [B, *space], 0 or more.

    Channel weights are the gradient's mean over space; the map is the positive part of the
    channels' weighted sum. For maps [B, H, W, C] of a convolutional network, and token grids
    [B, rows, columns, D] (or [B, N, D]) with the prefix sliced off.

    In a ViT that reads only its class token, the patches that leave the last block do not reach the
    logit, so the map there is zero: take the block before. In CaiT and PatchConvNet the last block
    of the trunk reaches it.

    Args:
        activations: array at a captured path, with space between the first axis and the last.
        grads: gradient of the target there; the same shape.
    """
    space = tuple(range(1, activations.ndim - 1))
    weights = grads.mean(space, keepdims=True)
    return jax.nn.relu((weights * activations).sum(-1))


def stretch(pictures: jax.Array) -> jax.Array:
    """Each picture of [B, ...] scaled linearly to 0 to 1; a constant one becomes 0."""
    axes = tuple(range(1, pictures.ndim))
    low, high = pictures.min(axes, keepdims=True), pictures.max(axes, keepdims=True)
    return (pictures - low) / jnp.maximum(high - low, TINY)


def filters(kernel: jax.Array) -> jax.Array:
    """A convolution's kernels as pictures, each stretched to 0 to 1.

    Args:
        kernel: [h, w, C, D]. ViT's patch embedding [P² · C, D] reshapes to it.

    Returns:
        [D, h, w, 3] in colour if C is 3; otherwise every input channel in grey, [D, C, h, w].
    """
    return stretch(jnp.transpose(kernel, (3, 0, 1, 2) if kernel.shape[2] == 3 else (3, 2, 0, 1)))


def filter_components(kernel: jax.Array, count: int) -> jax.Array:
    """Principal components of D filters (Dosovitskiy et al. 2021, figure 7, left).

    Signs make each component's largest entry positive.

    Args:
        kernel: [h, w, C, D], 3 or 1 channels.
        count: number of components, largest variance first; at most D and h · w · C.

    Returns:
        [count, h, w, C], each stretched to 0 to 1.

    Raises:
        ValueError: if there are fewer components than `count`.
    """
    flat = kernel.reshape(-1, kernel.shape[3]).T
    if count > min(flat.shape):
        raise ValueError(f'count must be at most {min(flat.shape)}: {count=}.')
    components = jnp.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:count]
    largest = jnp.argmax(jnp.abs(components), 1, keepdims=True)
    components *= jnp.sign(jnp.take_along_axis(components, largest, 1))
    return stretch(components.reshape(count, *kernel.shape[:3]))


def grey_noise(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Pixels drawn uniformly from 0.4 to 0.6, the start of `maximize`."""
    return jax.random.uniform(key, shape, minval=0.4, maxval=0.6)


def maximize(
    score: Callable[[jax.Array], jax.Array], images: jax.Array, *, steps: int = 30,
    rate: float = 10.0, jitter: int = 0, blur: float = 0.0, key: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Gradient ascent in pixels: images [B, H, W, C] that excite a unit, in the units of `images`.

    The recipe of Chollet 2021 (Deep Learning with Python, section 9.4.2; Erhan et al. 2009): each
    step adds `rate` times the gradient, scaled to length 1 for each image. Works for any model;
    show the result through `tokens.channels`, which standardises it.

    Args:
        score: maps images to one number each, [B]; image b may maximise unit b. `border_left_out`
            makes a score from feature maps.
        images: first images, as `grey_noise`.
        steps: number of steps.
        rate: length of a step.
        jitter: largest number of pixels that a step rolls the image by, in each direction.
        blur: deviation in pixels of a Gaussian blur after each step; 0 is none.
        key: key of the jitter; required with jitter.

    Raises:
        ValueError: for jitter without a key.
    """
    if jitter and key is None:
        raise ValueError(f'jitter needs a key: {jitter=}, {key=}.')
    key = jax.random.key(0) if key is None else key
    ascend = jax.grad(lambda x: score(x).sum())

    def step(images: jax.Array, key: jax.Array):
        shift = jax.random.randint(key, (2,), -jitter, jitter + 1)
        grads = jnp.roll(ascend(jnp.roll(images, shift, (1, 2))), -shift, (1, 2))
        length = jnp.sqrt((grads**2).sum((1, 2, 3), keepdims=True))
        images = images + rate * grads / jnp.maximum(length, TINY)
        return gaussian_blur(images, blur) if blur else images, None

    return jax.lax.scan(step, images, jax.random.split(key, steps))[0]


def border_left_out(maps: jax.Array, *, border: int = 2) -> jax.Array:
    """Channel means of maps [B, H, W, C] without the border, which padding affects: [B, C].

    Maps of up to twice the border lose nothing.
    """
    if min(maps.shape[1:3]) > 2 * border:
        maps = maps[:, border : maps.shape[1] - border, border : maps.shape[2] - border]
    return maps.mean((1, 2))


def gaussian_blur(images: jax.Array, deviation: float) -> jax.Array:
    """Images [B, H, W, C] blurred by a Gaussian of `deviation` pixels, edges repeated."""
    radius = max(1, round(3 * deviation))
    kernel = jnp.exp(-0.5 * (jnp.arange(-radius, radius + 1) / deviation) ** 2)
    kernel = (kernel / kernel.sum()).astype(images.dtype)
    for axis in (1, 2):
        pad = [(radius if i == axis else 0,) * 2 for i in range(images.ndim)]
        padded, size = jnp.pad(images, pad, 'edge'), images.shape[axis]
        shifted = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(len(kernel))]
        images = jnp.tensordot(kernel, jnp.stack(shifted), 1)
    return images


def receptive_field(
    forward: Callable[[jax.Array], jax.Array], images: jax.Array, *,
    token: int, layers: Sequence[int],
) -> jax.Array:  # fmt: skip
    """Effective receptive field of a token at each of `layers`: [len(layers), H, W], 0 or more.

    Absolute gradient of the token's summed channels at every pixel (Luo et al. 2016, section 3),
    summed over colours and averaged over images.

    Args:
        forward: maps images [B, H, W, C] to `blocks` [L, B, N, D].
        images: images to average over.
        token: index among the N tokens; the centre patch is the usual one.
        layers: indices of layers; each costs one backward pass.
    """
    tokens, backward = jax.vjp(forward, images)

    def layer(index: jax.Array) -> jax.Array:
        (grads,) = backward(jnp.zeros_like(tokens).at[index, :, token].set(1))
        return jnp.abs(grads).sum(-1).mean(0)

    return jax.lax.map(layer, jnp.asarray(layers))


def field_size(fields: jax.Array, *, threshold: float = 0.0455) -> jax.Array:
    """Side in pixels of a square with the area of each field of [..., H, W]: [...].

    The area is the number of pixels above `threshold` times the field's maximum: two deviations of
    a Gaussian (Luo et al. 2016, section 3).
    """
    above = fields > threshold * fields.max((-2, -1), keepdims=True)
    return jnp.sqrt(above.sum((-2, -1)))
