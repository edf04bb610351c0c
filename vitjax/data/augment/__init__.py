"""Augmentation on the device, inside the step: uint8 images to float images and soft labels."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vitjax.base.keys import purpose
from vitjax.base.ranges import Range, Rate, Share, Side
from vitjax.data.augment import operations, policy
from vitjax.data.augment.crop import ASPECTS, central

Padding = Annotated[int, Range(0, 16_384)]
Strength = Annotated[float, Range(0, 1_000_000)]  # beyond which float32 only overflows
Policy = Annotated[str, policy.Named()]


@dataclasses.dataclass(frozen=True)
class Augment:
    """Augmentation of training images; a strength of 0 is off.

    Attributes:
        size: side in pixels of the model's input.
        enlarge: side in pixels that images are resized to before a random crop to `size`; None is
            `size`, no crop.
        area: smallest fraction of an image's area that is cropped at random and resized to `size`,
            with an aspect of 3/4 to 4/3 (Szegedy et al. 2015, arXiv:1409.4842), as torchvision
            draws it; 0 crops none. Images that stream (`data.memory`) are cropped from the whole,
            others from the central square.
        padding: pixels of zeros around the resized image before the random crop.
        flip: probability of a horizontal flip.
        shift: largest translation as a fraction of the side, each way.
        rotation: largest rotation in turns, each way (0.02 is 7.2 degrees).
        zoom: largest relative change of scale, each way.
        contrast: largest relative change of contrast, each way.
        brightness: largest change of brightness, pixels in 0..1.
        policy: operations of `vitjax.data.augment.policy` drawn for each image: RandAugment as timm
            writes it (`rand-m9-mstd0.5-inc1`), or `three` for 3-Augment.
        jitter: largest relative change of brightness, contrast and saturation, in random order.
        erase: probability that a box of noise takes 1/50 to 1/3 of an image (Zhong et al. 2020,
            arXiv:1708.04896).
        cutout: side of the erased square as a fraction of the image's.
        mixup: alpha of mixup's Beta distribution (Zhang et al. 2018).
        cutmix: alpha of CutMix's Beta distribution (Yun et al. 2019).
        smoothing: label smoothing.
    """

    size: Side = 8
    enlarge: Side | None = None
    area: Share = 0.0
    padding: Padding = 0
    flip: Share = 0.0
    shift: Share = 0.0
    rotation: Share = 0.0
    zoom: Rate = 0.0
    contrast: Share = 0.0
    brightness: Share = 0.0
    policy: Policy = ''
    jitter: Strength = 0.0
    erase: Share = 0.0
    cutout: Share = 0.0
    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    smoothing: Rate = 0.0


def augment(
    settings: Augment, normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    num_classes: int, key: jax.Array, images: jax.Array, labels: jax.Array, index: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """A training batch: images [B, S, S, 3] float32, normalised, and soft labels [B, num_classes].

    Every image's variation is a function of `key` and its `index` alone, so a batch comes out the
    same on any number of devices. Images that are not square lose all but their central square, as
    at evaluation. The crop by `area` has a resample of its own. After it, one bilinear resample
    resizes, crops, flips, shifts, rotates and zooms; it reflects at the image's edges, or is black
    beyond them if `padding` is set. (Evaluation resizes bicubically: see `vitjax.data.preprocess`.)
    Mixup and CutMix pair the neighbours 2i and 2i+1; with both, each pair draws one of them. The
    policy and the jitter work on whole numbers 0..255, as Pillow does. Erasing and cutout follow
    normalisation.

    >>> pixels = jnp.zeros((2, 12, 8, 3), jnp.uint8)
    >>> normalisation, labels = ((0.5,) * 3, (0.25,) * 3), jnp.array([0, 3])
    >>> settings = Augment(size=8, flip=0.5, smoothing=0.5)
    >>> x, soft = augment(
    ...     settings, normalisation, 4, jax.random.key(0), pixels, labels, jnp.arange(2)
    ... )
    >>> x.shape, soft.tolist()
    ((2, 8, 8, 3), [[0.625, 0.125, 0.125, 0.125], [0.125, 0.125, 0.125, 0.625]])

    Args:
        settings: strengths; all 0 is a plain bilinear resize. Traced strengths count as on at any
            value: one compiled program serves all of them.
        normalisation: mean and deviation per channel, of pixels in 0..1.
        num_classes: length of a soft label.
        key: the step's key.
        images: [B, H, W, 3] uint8.
        labels: [B] integers.
        index: [B] position of each image in the global batch.

    Raises:
        ValueError: if mixup or CutMix gets an odd number of images, or `area` is set besides
            another crop.
    """
    require_one_crop(settings)
    s, keys = settings, jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    mean, deviation = (jnp.asarray(v, jnp.float32) for v in normalisation)

    def each(x: jax.Array, change: Callable[..., jax.Array], *strengths: Any) -> jax.Array:
        """Changes every image, unless all strengths are off."""
        on = any(map(_on, strengths))
        return jax.vmap(functools.partial(change, settings))(keys, x) if on else x

    x = _central_square(images).astype(jnp.float32) / 255
    x = each(x, _crop, s.area)
    x = _resample(settings, keys, x)
    x = each(x, _recolour, s.contrast, s.brightness)
    x = each(x, functools.partial(_operate, mean=mean), s.policy, s.jitter)
    x = each((x - mean) / deviation, _erase, s.erase)
    x = each(x, _cutout, s.cutout)
    soft = jax.nn.one_hot(labels, num_classes) * (1 - s.smoothing) + s.smoothing / num_classes
    if _on(s.mixup) or _on(s.cutmix):
        if len(images) % 2:
            need = 'mixup and cutmix pair images, so each device needs an even number'
            raise ValueError(f'{need}: got {len(images)}.')
        x, soft = _mix(settings, keys[::2], x, soft)
    return x, soft


def require_one_crop(settings: Augment) -> None:
    """Checks that `area` is the only crop.

    Raises:
        ValueError: if another crop is set, naming it.
    """
    if _on(settings.area):
        for name in ('shift', 'padding', 'enlarge'):
            if value := getattr(settings, name):
                raise ValueError(f'augment.area crops instead of augment.{name}: {value}.')


def _on(strength: float | str | jax.Array) -> bool:
    return isinstance(strength, jax.Array) or bool(strength)


def _central_square(images: jax.Array) -> jax.Array:
    side = min(images.shape[1:3])
    top, left = (round((extent - side) / 2) for extent in images.shape[1:3])
    return images[:, top : top + side, left : left + side]


def _resize(x: jax.Array, size: int) -> jax.Array:
    if x.shape[1:3] == (size, size):
        return x
    return jax.image.resize(x, (x.shape[0], size, size, x.shape[3]), 'bilinear')


def _resample(s: Augment, keys: jax.Array, x: jax.Array) -> jax.Array:
    """Resize, crop, flip, shift, rotation and zoom in one bilinear resample."""
    full = s.enlarge or s.size
    if full == s.size and not any(map(_on, (s.padding, s.flip, s.shift, s.rotation, s.zoom))):
        return _resize(x, s.size)
    if min(x.shape[1:3]) > full:
        x = _resize(x, full)  # shrinking needs the antialiasing of a plain resize
    place = operations.sample if _on(s.rotation) else operations.sample_upright
    fill = 0.0 if s.padding else None

    def sample(key: jax.Array, image: jax.Array) -> jax.Array:
        return place(image, (s.size, s.size), *_affine(s, image.shape[:2], key), fill)

    return jax.vmap(sample)(keys, x)


def _affine(
    settings: Augment, shape: tuple[int, ...], key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Matrix and offset of an output pixel's source: `matrix @ position + offset`.

    Positions are (row, column), counted from the centre of the output and of the input. Composed
    from the output inwards: the crop's corner and the shift move it within the resized image of
    `full` pixels; flip, rotation and zoom act there; `scale` takes it to the input's pixels.
    """
    full = settings.enlarge or settings.size
    names = 'flip', 'shift', 'turn', 'zoom', 'crop'
    flip, shift, turn, zoom, crop = (purpose(key, name) for name in names)
    angle = jax.random.uniform(turn, (), minval=-1) * settings.rotation * 2 * math.pi
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.array([[cos, -sin], [sin, cos]])
    matrix *= 1 + settings.zoom * jax.random.uniform(zoom, (2,), minval=-1)[:, None]
    mirrored = jnp.where(jax.random.uniform(flip) < settings.flip, -1.0, 1.0)
    matrix *= jnp.stack([jnp.ones(()), mirrored])  # a step to the right goes left
    scale = jnp.array(shape) / full  # input pixels per pixel of the resized image
    # A crop starts at a whole pixel. From centre to centre that is a whole number of pixels if the
    # room around the crop is even, and half a pixel more if it is odd.
    room = (full - settings.size) / 2 + settings.padding
    low = -(full - settings.size) // 2 - settings.padding + (full - settings.size) % 2 / 2
    corner = jax.random.randint(crop, (2,), 0, round(2 * room) + 1) + low
    corner += settings.shift * full * jax.random.uniform(shift, (2,), minval=-1)
    return matrix * scale[:, None], (matrix @ corner) * scale


def _crop(settings: Augment, key: jax.Array, image: jax.Array) -> jax.Array:
    """A random resized crop: a box of an image [H, W, C], resized to `settings.size`."""
    sides, place = jax.random.split(purpose(key, 'area'))
    draws = jax.random.uniform(sides, (2, 10)), jax.random.uniform(place, (2,))
    corner, box = crop_box(image.shape[:2], settings.area, *draws)
    return operations.resize_box(image, corner, box, settings.size)


def crop_box(
    shape: tuple[int, ...], area: float | jax.Array, draws: jax.Array, place: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Corner (top, left) and sides (height, width) in pixels, as `crop.box` has them, traced.

    Args:
        shape: height and width of the image.
        area: smallest fraction of its area.
        draws: [2, 10] uniform in 0..1, for areas and aspects.
        place: [2] uniform in 0..1, for the corner.
    """
    share = area + (1 - area) * draws[0]
    low, high = map(math.log, ASPECTS)
    aspect = jnp.exp(low + (high - low) * draws[1])
    sides = jnp.round(jnp.sqrt(share * math.prod(shape) / jnp.stack([aspect, 1 / aspect])))
    room = jnp.array(shape, sides.dtype)
    fits = ((sides > 0) & (sides <= room[:, None])).all(0)
    box = sides[:, fits.argmax()]
    # A number just below 1 times the room may round up to it.
    corner = jnp.minimum(jnp.floor(place * (room - box + 1)), room - box)
    fallback = jnp.array(central(shape), sides.dtype).reshape(2, 2)
    return tuple(jnp.where(fits.any(), jnp.stack([corner, box]), fallback))


def _operate(settings: Augment, key: jax.Array, image: jax.Array, mean: jax.Array) -> jax.Array:
    image = jnp.round(255 * image)
    if settings.policy:
        fill = jnp.round(255 * mean)
        image = policy.apply(settings.policy, purpose(key, 'policy'), image, fill)
    if _on(settings.jitter):
        image = policy.jitter(purpose(key, 'jitter'), image, settings.jitter)
    return image / 255


def _erase(settings: Augment, key: jax.Array, image: jax.Array) -> jax.Array:
    """A box of standard normal noise, a value for each pixel and channel, in a normalised image.

    As timm's `RandomErasing` in mode `pixel`: the first of ten draws of area and aspect that fits.
    """
    happens, sides, place, noise = jax.random.split(purpose(key, 'erase'), 4)
    share, aspect = jax.random.uniform(sides, (2, 10))
    pixels = settings.size**2 * (0.02 + (1 / 3 - 0.02) * share)
    aspect = jnp.exp((2 * aspect - 1) * math.log(0.3))
    box = jnp.round(jnp.sqrt(pixels * jnp.stack([aspect, 1 / aspect])))
    fits = (box < settings.size).all(0)
    height, width = box[:, fits.argmax()]
    top, left = jax.random.uniform(place, (2,)) * (settings.size - jnp.stack([height, width]) + 1)
    at = jnp.arange(settings.size)
    rows = (at >= jnp.floor(top)) & (at < jnp.floor(top) + height)
    columns = (at >= jnp.floor(left)) & (at < jnp.floor(left) + width)
    inside = rows[:, None] & columns & fits.any()
    inside &= jax.random.uniform(happens) < settings.erase
    return jnp.where(inside[..., None], jax.random.normal(noise, image.shape), image)


def _recolour(settings: Augment, key: jax.Array, image: jax.Array) -> jax.Array:
    factor = 1 + settings.contrast * jax.random.uniform(purpose(key, 'contrast'), (), minval=-1)
    mean = image.mean((0, 1))
    change = settings.brightness * jax.random.uniform(purpose(key, 'brightness'), (), minval=-1)
    return jnp.clip((image - mean) * factor + mean + change, 0, 1)


def _box(key: jax.Array, size: int, side: jax.Array | float) -> jax.Array:
    """[size, size] booleans: True in a square of `side` pixels about a random centre, clipped."""
    centre = jax.random.uniform(key, (2,)) * size
    inside = jnp.abs(jnp.arange(size)[:, None] + 0.5 - centre) < side / 2
    return inside[:, 0, None] & inside[None, :, 1]


def _cutout(settings: Augment, key: jax.Array, image: jax.Array) -> jax.Array:
    box = _box(purpose(key, 'cutout'), settings.size, settings.cutout * settings.size)
    return jnp.where(box[..., None], 0.0, image)  # the mean, once normalised


def _mix(
    settings: Augment, keys: jax.Array, x: jax.Array, soft: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image with its neighbour, by mixup or CutMix; `keys` has one for each pair.

    Both images of a pair are mixed with the same weight, each into the other (`x[::-1]`), so that
    the pair's sum stays.
    """

    def pair(key: jax.Array, x: jax.Array, soft: jax.Array) -> tuple[jax.Array, jax.Array]:
        cut = jnp.asarray(_on(settings.cutmix))
        if _on(settings.mixup) and _on(settings.cutmix):
            cut = jax.random.bernoulli(purpose(key, 'which'))
        # `cut` may be traced: both ways of mixing are written out and one is selected.
        # The sampler divides by alpha. Below 1e-9 shares are 0 or 1 as they are there.
        alpha = jnp.maximum(jnp.where(cut, settings.cutmix, settings.mixup), 1e-9)
        share = jax.random.beta(purpose(key, 'share'), alpha, alpha)
        side = settings.size * jnp.sqrt(1 - share)
        box = _box(purpose(key, 'box'), settings.size, side)
        # The box may reach beyond the image: labels follow the pixels that really stay.
        share = jnp.where(cut, 1 - box.mean(), share)
        stays = jnp.where(cut, ~box, share)[..., None]
        mixed = stays * x + (1 - stays) * x[::-1]
        return mixed, share * soft + (1 - share) * soft[::-1]

    pairs = [a.reshape(len(a) // 2, 2, *a.shape[1:]) for a in (x, soft)]
    x, soft = (a.reshape(-1, *a.shape[2:]) for a in jax.vmap(pair)(keys, *pairs))
    return x, soft
