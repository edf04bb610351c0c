"""Policies that draw operations for each image: RandAugment and 3-Augment.

RandAugment (Cubuk et al. 2020, arXiv:1909.13719) has many published forms. This is timm's, under
timm's names: `rand-m9-mstd0.5-inc1`, with a dash before each of

    m9       magnitude, 0 to 10; default 10
    n2       operations for each image, drawn from fifteen with replacement; default 2
    p0.5     probability that a drawn operation is applied; default 0.5
    mstd0.5  deviation of each operation's magnitude, normally distributed; default 0
    inc1     posterize, solarize and the four enhancements grow with the magnitude; with the
             default 0 some shrink, as in the code for TensorFlow

Unlike timm's, geometric operations always interpolate bilinearly; timm draws bilinear or bicubic.
big_vision's `randaug(2, 10)` is `rand-m10-n2-p1` and a sixteenth operation, Cutout.

`three` is 3-Augment (Touvron et al. 2022, arXiv:2204.07118): each image becomes grey, solarized or
blurred.

A policy of your own is an entry of `POLICIES`, made in your experiment file:

    POLICIES['invert'] = Policy('invert', "'invert'", lambda name, key, image, fill: 255 - image)
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vitjax.data.augment import operations as op
from vitjax.data.preprocess import luma

_GEOMETRIC = ('rotate', 'shear x', 'shear y', 'translate x', 'translate y')
_TRANSLATE = 0.45  # of the side, at magnitude 10


class RandAugment(NamedTuple):
    """Settings in the name of a policy, described above."""

    magnitude: float = 10.0
    layers: int = 2
    share: float = 0.5
    deviation: float = 0.0
    increasing: bool = False


def parse(name: str) -> RandAugment:
    """The settings in a name as timm writes them.

    >>> parse('rand-m9-mstd0.5-inc1')
    RandAugment(magnitude=9.0, layers=2, share=0.5, deviation=0.5, increasing=True)
    """
    kinds = dict(m='magnitude', n='layers', p='share', mstd='deviation', inc='increasing')
    given: dict[str, Any] = {}
    for part in name.split('-')[1:]:
        key, value = re.split(r'(?=[\d.])', part, maxsplit=1)
        given[kinds[key]] = float(value)
    known = RandAugment()._replace(**given)
    return known._replace(layers=int(known.layers), increasing=bool(known.increasing))


def _rand(name: str, key: jax.Array, image: jax.Array, fill: jax.Array) -> jax.Array:
    settings = parse(name)
    for i in range(settings.layers):
        image = _one(settings, jax.random.fold_in(key, i), image, fill)
    return image


def _one(settings: RandAugment, key: jax.Array, image: jax.Array, fill: jax.Array) -> jax.Array:
    """Applies one operation of fifteen."""
    which, happens, strength, side = jax.random.split(key, 4)
    level = settings.magnitude + settings.deviation * jax.random.normal(strength)
    level = jnp.clip(level, 0, 10) / 10
    sign = jax.random.rademacher(side, (), jnp.float32)
    # Under vmap every operation is computed and one is selected, so all geometric ones are one.
    plain = _plain(level, sign, settings.increasing)
    drawn = jax.random.randint(which, (), 0, len(plain) + len(_GEOMETRIC))
    ways = [*plain, lambda x: _moved(drawn - len(plain), level * sign, x, fill)]
    changed = jax.lax.switch(jnp.minimum(drawn, len(plain)), ways, image)
    return jnp.where(jax.random.uniform(happens) < settings.share, changed, image)


def _plain(level: jax.Array, sign: jax.Array, increasing: bool) -> list:
    """The ten operations that move no pixels, at a level of 0 to 1."""
    bits, threshold = jnp.floor(4 * level), jnp.minimum(jnp.floor(256 * level), 256)
    factor = 0.1 + 1.8 * level
    if increasing:
        bits, threshold = 4 - bits, 256 - threshold
        factor = jnp.maximum(0.1, 1 + 0.9 * level * sign)
    return [
        op.autocontrast,
        op.equalize,
        op.invert,
        lambda x: op.posterize(x, bits),
        lambda x: op.solarize(x, threshold),
        lambda x: op.solarize_add(x, jnp.floor(110 * level)),
        lambda x: op.colour(x, factor),
        lambda x: op.contrast(x, factor),
        lambda x: op.brightness(x, factor),
        lambda x: op.sharpness(x, factor),
    ]


def _moved(which: jax.Array, level: jax.Array, image: jax.Array, fill: jax.Array) -> jax.Array:
    """Applies one of `_GEOMETRIC` at a level of -1 to 1; shears keep the upper left corner."""
    side = image.shape[0]
    angle = jnp.deg2rad(30 * level)
    cos, sin, shear = jnp.cos(angle), jnp.sin(angle), 0.3 * level
    zero, one, shift = jnp.zeros(()), jnp.ones(()), _TRANSLATE * side * level
    row_by_row = [  # matrix of (row, column), then offset
        (cos, -sin, sin, cos, zero, zero),
        (one, zero, shear, one, zero, shear * side / 2),
        (one, shear, zero, one, shear * side / 2, zero),
        (one, zero, zero, one, zero, shift),
        (one, zero, zero, one, shift, zero),
    ]
    chosen = jnp.array(row_by_row)[jnp.clip(which, 0, len(row_by_row) - 1)]
    return op.transform(image, chosen[:4].reshape(2, 2), chosen[4:], fill)


def _three(name: str, key: jax.Array, image: jax.Array, fill: jax.Array) -> jax.Array:
    which, width = jax.random.split(key)
    deviation = jax.random.uniform(width, (), minval=0.1, maxval=2.0)
    ways = (luma, op.solarize, lambda x: op.blur(x, deviation, 2.0))
    return jax.lax.switch(jax.random.randint(which, (), 0, 3), ways, image)


def jitter(key: jax.Array, image: jax.Array, strength: jax.Array | float) -> jax.Array:
    """Brightness, contrast and saturation by factors of 1 ± `strength`, in random order.

    The colour jitter of torchvision on Pillow's images, without hue.
    """
    order, *keys = jax.random.split(key, 4)
    low = jnp.maximum(0, 1 - jnp.asarray(strength))
    factors = [jax.random.uniform(k, (), minval=low, maxval=1 + strength) for k in keys]
    ways = [
        lambda x, factor=factor, way=way: way(x, factor)
        for factor, way in zip(factors, (op.brightness, op.contrast, op.colour), strict=True)
    ]
    for which in jax.random.permutation(order, 3):
        image = jax.lax.switch(which, ways, image)
    return image


# ---- Registry ----------------------------------------------------------------------------------


class Policy(NamedTuple):
    """Augmentation that an experiment asks for by name.

    Attributes:
        pattern: regular expression that its names match.
        words: its names in words, for messages.
        apply: takes a name, an image's key, the image [S, S, 3] of whole numbers 0..255, and the
            fill [3] for places beyond the image; returns an image of the same kind. Maps over a
            batch.
    """

    pattern: str
    words: str
    apply: Callable[[str, jax.Array, jax.Array, jax.Array], jax.Array]


_SETTING = r'-(m(10|\d(\.\d+)?)|n[1-9]|p(1|0?\.\d+)|mstd\d{1,2}(\.\d+)?|inc[01])'
POLICIES = {
    'three': Policy('three', "'three'", _three),
    'rand': Policy(f'rand({_SETTING})*', "RandAugment as in 'rand-m9-mstd0.5-inc1'", _rand),
}


def find(name: str) -> Policy | None:
    """The policy that has a name."""
    return next((each for each in POLICIES.values() if re.fullmatch(each.pattern, name)), None)


class Named:
    """Rule for the name of a policy, or '' for none."""

    def holds(self, value: str) -> bool:
        """Returns True for '' and the names of `POLICIES`."""
        return not value or find(value) is not None

    def __str__(self) -> str:
        return ', or '.join(each.words for each in POLICIES.values())


def apply(name: str, key: jax.Array, image: jax.Array, fill: jax.Array) -> jax.Array:
    """An image [S, S, 3] of whole numbers 0..255 after a policy.

    Args:
        name: the policy's name.
        key: the image's key, on which alone the draws depend.
        image: a square image.
        fill: [3], colour that geometric operations put beyond the image.
    """
    policy = find(name)
    if policy is None:
        raise ValueError(f'policy must be {Named()}: {name!r}.')
    return policy.apply(name, key, image, fill)
