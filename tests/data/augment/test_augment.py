import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.base import fields
from vitjax.data.augment import Augment, augment, crop, crop_box

NORMAL = ((0.5, 0.4, 0.6), (0.2, 0.3, 0.25))
FULL = Augment(
    size=24, enlarge=26, flip=0.5, shift=0.1, rotation=0.05, zoom=0.2, contrast=0.3,
    brightness=0.1, policy='rand-m9-mstd0.5-inc1', jitter=0.3, erase=0.5, cutout=0.3, mixup=0.4,
    cutmix=1.0, smoothing=0.1,
)  # fmt: skip


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)


def resize(images, size, normal):
    """Augmentation without strength: a plain bilinear resize, normalised."""
    x = jnp.asarray(images, jnp.float32) / 255
    if x.shape[1] != size:
        x = jax.image.resize(x, (len(x), size, size, 3), 'bilinear')
    return (x - jnp.asarray(normal[0])) / jnp.asarray(normal[1])


@functools.cache
def compiled(settings):
    return jax.jit(functools.partial(augment, settings, NORMAL, 10))


def run(settings, images, index=None, seed=0):
    index = np.arange(len(images)) if index is None else index
    labels = jnp.asarray(index) % 10
    return compiled(settings)(jax.random.key(seed), images, labels, jnp.asarray(index))


def pixels(x):
    """Normalised images back in 0..1."""
    return np.asarray(x) * NORMAL[1] + NORMAL[0]


@pytest.mark.parametrize('size', [8, 16, 40])
def test_strength_zero_is_plain_resize(images, size):
    x, soft = run(Augment(size=size), images)
    np.testing.assert_allclose(x, resize(jnp.asarray(images), size, NORMAL), atol=1e-6)
    np.testing.assert_array_equal(soft, jax.nn.one_hot(np.arange(16) % 10, 10))


@pytest.mark.parametrize('size', [8, 16, 40])
def test_the_resample_of_the_identity_is_plain_resize(images, size):
    # A flip that never happens sends images through the affine resample.
    x, _ = run(Augment(size=size, flip=1e-9), images)
    np.testing.assert_allclose(x, resize(jnp.asarray(images), size, NORMAL), atol=3e-5)


@pytest.mark.slow
def test_the_same_images_come_out_on_any_number_of_devices(images):
    whole, labels = run(FULL, images)
    for start in (0, 4, 12):
        part, soft = run(FULL, images[start : start + 4], np.arange(start, start + 4))
        np.testing.assert_allclose(part, whole[start : start + 4], atol=1e-6)
        np.testing.assert_allclose(soft, labels[start : start + 4], atol=1e-6)


def test_keys_and_positions_vary_the_images(images):
    same = np.repeat(images[:1], 8, axis=0)
    x, _ = run(Augment(size=16, shift=0.3, rotation=0.1), same)
    assert np.abs(np.diff(x, axis=0)).max((1, 2, 3)).min() > 0.1
    other, _ = run(Augment(size=16, shift=0.3, rotation=0.1), same, seed=1)
    assert np.abs(other - x).max() > 0.1


def test_flip_mirrors_columns_half_of_the_time(images):
    many = np.tile(images[:1], (256, 1, 1, 1))
    x = pixels(run(Augment(size=16, flip=0.5), many)[0])
    plain = images[0] / 255
    flipped = np.abs(x - plain[:, ::-1]).max((1, 2, 3)) < 1e-4
    straight = np.abs(x - plain).max((1, 2, 3)) < 1e-4
    assert (flipped ^ straight).all()
    assert 90 < flipped.sum() < 166  # 128 +- 4.75 standard deviations


def test_padding_crops_a_black_border(images):
    x = pixels(run(Augment(size=16, padding=3), images)[0])
    padded = np.pad(images / 255, ((0, 0), (3, 3), (3, 3), (0, 0)))
    offsets = set()
    for got, want in zip(x, padded, strict=True):
        matches = [
            (r, c)
            for r in range(7)
            for c in range(7)
            if np.abs(got - want[r : r + 16, c : c + 16]).max() < 1e-4
        ]
        assert len(matches) == 1
        offsets |= set(matches)
    assert len(offsets) > 8


def test_enlarge_crops_the_resized_image(images):
    x = np.asarray(run(Augment(size=20, enlarge=24), images)[0])
    large = np.asarray(resize(jnp.asarray(images), 24, NORMAL))
    for got, want in zip(x, large, strict=True):
        errors = [
            np.abs(got - want[r : r + 20, c : c + 20]).max() for r in range(5) for c in range(5)
        ]
        assert min(errors) < 1e-4


def test_rotation_turns_about_the_centre():
    image = np.zeros((1, 17, 17, 3), np.uint8)
    image[0, 7:10, 10:13] = 255  # a spot whose centre is 3 pixels right of the middle
    x = pixels(run(Augment(size=17, rotation=0.5), np.repeat(image, 64, 0))[0]).mean(-1)
    rows, columns = np.mgrid[-8:9, -8:9]
    mass = x.sum((1, 2))
    row, column = (x * rows).sum((1, 2)) / mass, (x * columns).sum((1, 2)) / mass
    np.testing.assert_allclose(mass, 9, rtol=0.1)
    np.testing.assert_allclose(np.hypot(row, column), 3, atol=0.2)
    angles = np.sort(np.arctan2(row, column))
    assert np.diff(angles).max() < 0.7 and np.ptp(angles) > 5.5  # all the way round


def test_contrast_keeps_each_channel_mean():
    image = np.random.default_rng(1).integers(100, 156, (4, 12, 12, 3), np.uint8)
    x = pixels(run(Augment(size=12, contrast=0.5), image)[0])
    np.testing.assert_allclose(x.mean((1, 2)), image.mean((1, 2)) / 255, atol=1e-4)
    ratio = x.std((1, 2)) / (image.std((1, 2)) / 255)
    assert (np.abs(ratio - 1) <= 0.5).all() and np.ptp(ratio.mean(1)) > 0.1


def test_cutout_erases_a_square_to_the_mean(images):
    x = np.asarray(run(Augment(size=16, cutout=0.5), images)[0])
    erased = (x == 0).all(-1).sum((1, 2))
    assert erased.max() == 64 and erased.min() >= 16  # 8x8, clipped to a quarter at the corners


def test_a_policy_and_a_jitter_keep_pixels_whole(images):
    settings = Augment(size=16, policy='rand-m9-mstd0.5-inc1', jitter=0.3)
    x, plain = 255 * pixels(run(settings, images)[0]), images.astype(np.float32)
    np.testing.assert_allclose(x, np.round(x), atol=1e-3)
    changed = np.abs(x - plain).max((1, 2, 3)) > 1
    assert changed.mean() > 0.9 and x.min() > -1e-3 and x.max() < 255.001
    kept, _ = run(Augment(size=16, jitter=1e-9), images)
    np.testing.assert_allclose(255 * pixels(kept), plain, atol=1.001)  # fractions are cut off


def test_a_crop_covers_its_share_of_the_image_and_keeps_its_aspect():
    """Rows and columns of a ramp say which box was cropped."""
    ramp = np.stack(np.broadcast_arrays(*np.mgrid[:64, :64] * 4, 0), -1).astype(np.uint8)
    x = 255 * pixels(run(Augment(size=16, area=0.25), np.repeat(ramp[None], 400, 0))[0]) / 4
    height = 16 * np.diff(x[:, 2:14, 8, 0], axis=1).mean(1)  # pixels that 16 of the output span
    width = 16 * np.diff(x[:, 8, 2:14, 1], axis=1).mean(1)
    share, aspect = height * width / 64**2, width / height
    assert 0.24 < share.min() < 0.3 and 0.9 < share.max() < 1.03
    assert 0.55 < share.mean() < 0.66  # uniform from 0.25 to 1, less what does not fit
    assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.42  # of whole pixels
    top, left = x[:, 0, 0, 0], x[:, 0, 0, 1]
    assert top.min() < 3 and left.min() < 3 and (top + height).max() > 60
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.9 and np.ptp(top) > 20


def boxes_by_rule(shape, area, draws):
    """Top, left, height and width, as torchvision's documentation of RandomResizedCrop has them.

    Ten draws of area and aspect, then where the box is, from uniform numbers in 0..1.
    """
    height, width = shape
    for share, aspect in draws[:20].reshape(2, 10).T:
        pixels = (area + (1 - area) * share) * height * width
        ratio = np.exp(np.log(3 / 4) + np.log(16 / 9) * aspect)
        wide, tall = (round(np.sqrt(pixels * r)) for r in (ratio, 1 / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            down, right = draws[20:]
            return int(down * (height - tall + 1)), int(right * (width - wide + 1)), tall, wide
    if width / height < 3 / 4:
        tall, wide = round(width / (3 / 4)), width
    elif width / height > 4 / 3:
        tall, wide = height, round(height * 4 / 3)
    else:
        tall, wide = height, width
    return (height - tall) // 2, (width - wide) // 2, tall, wide


@pytest.mark.parametrize('shape', [(8, 8), (1, 1), (2, 3), (500, 100), (100, 500), (37, 30)])
def test_boxes_are_torchvision_s_on_the_device_and_in_a_stream(shape):
    class Drawn:
        def __init__(self, values):
            self.random = lambda count: values[:count]

    draws = np.random.default_rng(0).random((200, 22), np.float32).astype(np.float64)

    @jax.jit
    def on_device(area, draws):
        def one(draws):
            return jnp.concatenate(crop_box(shape, area, draws[:20].reshape(2, 10), draws[20:]))

        return jax.vmap(one)(draws)

    for area in (0.002, 0.08, 0.5, 1.0):
        wanted = np.array([boxes_by_rule(shape, area, each) for each in draws])
        streamed = np.array([crop.box(cast(Any, Drawn(each)), area, shape) for each in draws])
        np.testing.assert_array_equal(streamed, wanted)
        # float32 may round a side the other way.
        assert (np.asarray(on_device(area, draws)) != wanted).any(1).mean() <= 0.01


STRENGTHS = {
    'area': (1e-6, 1.0), 'padding': (9,), 'shift': (1.0,), 'rotation': (1.0,), 'zoom': (0.999999,),
    'contrast': (1.0,), 'jitter': (1.0, 1e6), 'erase': (1.0, 1.0), 'cutout': (1.0,),
    'mixup': (1e-38, 1e6), 'cutmix': (1e-38, 1e6), 'smoothing': (0.999999,),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('name', STRENGTHS)
def test_strengths_at_their_ends_leave_images_and_labels_whole(name):
    images = np.random.default_rng(0).integers(0, 256, (32, 5, 7, 3), np.uint8)
    for strength, size in zip(STRENGTHS[name], (8, 1), strict=False):
        settings = dataclasses.replace(Augment(size=size), **{name: strength})
        fields.require(settings)
        x, soft = map(np.asarray, run(settings, images))
        assert x.shape == (32, size, size, 3) and np.isfinite(x).all()
        assert name == 'erase' or (pixels(x).min() > -1e-4 and pixels(x).max() < 1 + 1e-4)
        np.testing.assert_allclose(soft.sum(1), 1, atol=1e-5)
        assert soft.min() >= 0


@pytest.mark.parametrize('name', ['jitter', 'mixup', 'cutmix'])
def test_strengths_beyond_float32_are_refused(name):
    with pytest.raises(ValueError, match=f'{name} must be .*1,000,000'):
        fields.require(dataclasses.replace(Augment(), **{name: 1e39}))


def test_a_crop_stands_alone(images):
    for other in ({'shift': 0.1}, {'padding': 2}, {'enlarge': 20}):
        with pytest.raises(ValueError, match='augment.area crops instead of augment'):
            run(dataclasses.replace(Augment(size=16, area=0.1), **other), images)


def test_erasing_puts_noise_in_a_box_of_some_images():
    image = np.full((400, 32, 32, 3), 128, np.uint8)
    settings = Augment(size=32, erase=0.25)
    x, plain = np.asarray(run(settings, image)[0]), resize(image[:1], 32, NORMAL)[0]
    noise: Any = (np.abs(x - plain) > 1e-6).any(-1)
    share = noise.mean((1, 2))
    assert 0.18 < (share > 0).mean() < 0.33
    assert 0.015 < share[share > 0].min() < 0.06 and 0.28 < share.max() < 0.36
    for inside in noise:
        rows, columns = inside.any(1), inside.any(0)
        assert (inside == rows[:, None] & columns).all()  # a box
    values = x[noise]
    assert abs(values.mean()) < 0.03 and abs(values.std() - 1) < 0.03
    ratio = np.array([n.any(1).sum() / n.any(0).sum() for n in noise if n.any()])
    assert 0.25 < ratio.min() < 0.6 and 1.7 < ratio.max() < 3.8


@pytest.mark.parametrize('name', ['mixup', 'cutmix'])
def test_mixing_pairs_neighbours_and_their_labels(images, name):
    x, soft = run(dataclasses.replace(Augment(size=16), **{name: 1.0}), images)
    plain = np.asarray(resize(jnp.asarray(images), 16, NORMAL)).reshape(8, 2, -1)
    x, soft = np.asarray(x).reshape(8, 2, -1), np.asarray(soft).reshape(8, 2, 10)
    np.testing.assert_allclose(x.sum(1), plain.sum(1), atol=1e-5)  # what one loses the other gets
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-6)
    for pair in range(8):
        share = soft[pair, 0, 2 * pair % 10]
        assert soft[pair, 1, (2 * pair + 1) % 10] == pytest.approx(share, abs=1e-6)
        if name == 'mixup':
            want = share * plain[pair, 0] + (1 - share) * plain[pair, 1]
            np.testing.assert_allclose(x[pair, 0], want, atol=1e-5)
        else:
            kept = np.isclose(x[pair, 0], plain[pair, 0], atol=1e-5).mean()
            assert kept == pytest.approx(share, abs=0.01)  # neighbours may share a pixel's value


def test_mixing_needs_pairs(images):
    with pytest.raises(ValueError, match='even number.*15'):
        run(Augment(size=16, mixup=1.0), images[:15])


def test_smoothing_spreads_evenly(images):
    _, soft = run(Augment(size=16, smoothing=0.2), images)
    np.testing.assert_allclose(np.sort(soft)[:, -1], 0.82, atol=1e-6)
    np.testing.assert_allclose(np.sort(soft)[:, 0], 0.02, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(16, 24), (30, 17)])
def test_the_central_square_of_other_shapes_is_what_varies(shape):
    images = np.random.default_rng(2).integers(0, 256, (4, *shape, 3), np.uint8)
    side = min(shape)
    top, left = (round((extent - side) / 2) for extent in shape)
    squares = images[:, top : top + side, left : left + side]
    for settings in (Augment(size=12), FULL):
        np.testing.assert_array_equal(run(settings, images)[0], run(settings, squares)[0])


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['three', 'rand-m9-mstd0.5-inc1'])
def test_grey_images_stay_grey(images, policy):
    """Or a run on grey images would learn from colour that its preprocessing takes away."""
    grey = np.repeat(images[..., :1], 3, -1)
    normal = ((0.4,) * 3, (0.25,) * 3)
    settings = dataclasses.replace(FULL, policy=policy, erase=0.0)  # whose noise is no image
    function = jax.jit(functools.partial(augment, settings, normal, 10))
    for seed in range(4):
        x, _ = function(jax.random.key(seed), grey, jnp.zeros(16, int), jnp.arange(16))
        np.testing.assert_allclose(x, np.repeat(np.asarray(x)[..., :1], 3, -1), atol=1e-5)
