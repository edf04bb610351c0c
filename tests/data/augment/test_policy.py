import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax.base import fields
from vitjax.data.augment import Augment, augment, policy
from vitjax.data.augment import operations as op
from vitjax.data.preprocess import luma

FILL = jnp.array([10.0, 20, 30])


@functools.cache
def through(name, count=400):
    """One image `count` times through a policy, and that image."""
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.float32)
    image = jnp.asarray(np.kron(image, np.ones((2, 2, 1), np.float32)))
    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(jax.vmap(lambda key: policy.apply(name, key, image, FILL)))
    return np.asarray(run(keys)), image


def share_of(out, want):
    """Fraction of the results that are, to 1 of 255, one picture."""
    return (np.abs(out - np.asarray(want)).max((1, 2, 3)) <= 1).mean()


@pytest.mark.parametrize('name', ['rand', 'rand-m9-mstd0.5-inc1', 'rand-m0-n3-p0.25-inc0', 'three'])
def test_names_that_are_policies(name):
    assert policy.Named().holds(name)


@pytest.mark.parametrize('name', ['Three', 'rand-m11', 'rand-m', 'rand-x1', 'rand-p2', 'rand-n0'])
def test_names_that_are_none(name):
    assert not policy.Named().holds(name)
    with pytest.raises(ValueError, match="policy must be 'three', or RandAugment as in"):
        policy.apply(name, jax.random.key(0), jnp.zeros((2, 2, 3)), FILL)


def test_a_policy_of_a_user_is_checked_and_applied(monkeypatch):
    monkeypatch.setitem(
        policy.POLICIES, 'invert', policy.Policy('invert', "'invert'", lambda n, k, x, f: 255 - x)
    )
    fields.require(Augment(policy='invert'))
    images, labels = jnp.full((1, 4, 4, 3), 55, jnp.uint8), jnp.zeros(1, int)
    plain = ((0.0,) * 3, (1.0,) * 3)
    out, _ = augment(
        Augment(4, policy='invert'), plain, 2, jax.random.key(0), images, labels, jnp.arange(1)
    )
    np.testing.assert_allclose(out, 200 / 255, rtol=1e-6)
    with pytest.raises(ValueError, match="augment.policy must be .*, or 'invert': 'x'"):
        fields.require(Augment(policy='x'), 'augment')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['rand-m9-mstd0.5-inc1', 'rand-m10-p1', 'three'])
def test_results_are_images(name):
    out, _ = through(name)
    assert out.min() >= 0 and out.max() <= 255 and (out == np.round(out)).all()


def test_an_operation_happens_as_often_as_its_probability_says():
    out, image = through('rand-m10-n1-p0.25-inc1')
    assert 0.68 < share_of(out, image) < 0.83  # 0.75 of 400, and what changes nothing


@pytest.mark.slow
def test_every_operation_is_drawn_as_often():
    """At magnitude 10 without deviation each of fifteen is known, but for its sign."""
    out, image = through('rand-m10-n1-p1-inc1', 1500)
    known = {
        'invert or solarize': op.invert(image),
        'posterize': np.zeros_like(image),
        'solarize add': op.solarize_add(image, 110.0),
        'autocontrast': op.autocontrast(image),
    }
    shares = {what: share_of(out, want) * 15 for what, want in known.items()}
    assert shares.pop('invert or solarize') == pytest.approx(2, abs=0.5)
    assert shares == pytest.approx(dict.fromkeys(shares, 1), abs=0.4)
    signed = [
        share_of(out, way(image, 1 + sign * 0.9)) * 30
        for way in (op.colour, op.contrast, op.brightness, op.sharpness)
        for sign in (1, -1)
    ]
    # Each is expected in 50 of the 1,500 draws, with a deviation of 7: 0.6 is four of them.
    np.testing.assert_allclose(signed, 1, atol=0.6)
    filled = (np.abs(out - FILL) < 0.5).all(-1).reshape(1500, -1).any(1).mean()
    assert filled * 15 == pytest.approx(5, abs=0.7)  # the geometric ones


def test_geometric_operations_reach_as_far_as_timm_s():
    spot = np.zeros((40, 40, 3), np.float32)
    spot[19:21, 19:21] = 255
    names = {'rotate': 0, 'shear x': 1, 'shear y': 2, 'translate x': 3, 'translate y': 4}
    found = {}
    for name, which in names.items():
        moved = policy._moved(jnp.asarray(which), jnp.asarray(1.0), jnp.asarray(spot), jnp.zeros(3))
        mass = np.asarray(moved).sum(-1)
        at = np.mgrid[:40, :40] - 19.5
        found[name] = (at * mass).sum((1, 2)) / mass.sum()
    # In pixels; positions are cut to whole values, which moves a centre of mass by a fraction.
    np.testing.assert_allclose(found['rotate'], 0, atol=0.3)
    # A shear reads x + 0.3 y from the upper left corner: the centre, 20 down, comes 6 to the left.
    np.testing.assert_allclose(found['shear x'], [0, -6], atol=0.3)
    np.testing.assert_allclose(found['shear y'], [-6, 0], atol=0.3)
    np.testing.assert_allclose(found['translate x'], [0, -18], atol=0.3)
    np.testing.assert_allclose(found['translate y'], [-18, 0], atol=0.3)


def test_levels_that_do_not_increase_are_tensorflow_s():
    out, image = through('rand-m5-n1-p1', 600)
    assert share_of(out, op.posterize(image, 2)) * 15 == pytest.approx(1, abs=0.5)
    assert share_of(out, op.solarize(image, 128.0)) * 15 == pytest.approx(1, abs=0.5)
    assert share_of(out, image) * 15 == pytest.approx(5, abs=0.9)  # enhanced by 1.0, stretched


def test_three_augment_takes_one_of_three():
    out, image = through('three')
    grey, solarized = share_of(out, luma(image)), share_of(out, op.solarize(image))
    assert 0.25 < grey < 0.42 and 0.25 < solarized < 0.42
    blurred = [x for x in out if np.abs(x - image).max() > 1 and (x != x[..., :1]).any()]
    assert len(blurred) > 200  # solarized or blurred


def test_jitter_changes_three_things_and_keeps_its_limits():
    image = jnp.full((6, 6, 3), 100.0).at[..., 0].set(140)
    keys = jax.random.split(jax.random.key(1), 300)
    out = np.asarray(jax.vmap(lambda key: policy.jitter(key, image, 0.3))(keys))
    light = out.mean((1, 2, 3)) / float(image.mean())
    assert 0.68 < light.min() < 0.75 and 1.25 < light.max() < 1.31
    colour = (out[..., 0] - out[..., 1]).mean((1, 2)) / 40 / light
    assert 0.45 < colour.min() < 0.85 and 1.2 < colour.max() < 1.75  # saturation and contrast
