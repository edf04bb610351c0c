import numpy as np
import pytest
from helpers import normal

from vitjax.analysis import effects, probe


def test_drops_of_answers_and_rises_of_losses():
    clean, logits = normal(4, 3), normal(2, 4, 3, seed=1)
    labels, rows = np.array([0, 2, 1, 1]), np.arange(4)
    best = clean.argmax(1)
    wanted = clean[rows, best] - logits[:, rows, best]
    np.testing.assert_allclose(effects.answer_drop(logits, clean), wanted, rtol=1e-5)

    def loss(x):
        return np.log(np.exp(x).sum(-1)) - np.take_along_axis(
            x, np.broadcast_to(labels[:, None], (*x.shape[:-1], 1)), -1
        )[..., 0]  # fmt: skip

    found = effects.loss_rise(logits, clean, labels)
    np.testing.assert_allclose(found, loss(logits) - loss(clean), rtol=1e-4, atol=1e-6)
    scaled = effects.answer_drop(0.25 * clean[None], clean, classes=False)
    np.testing.assert_allclose(scaled, 0.75 + np.zeros((1, 4)), rtol=1e-6)
    np.testing.assert_allclose(effects.token_turn(-3 * clean[None], clean), 2, rtol=1e-6)


@pytest.mark.parametrize('count', [2, 3, 4, 8, 16, 19, 20, 50])
@pytest.mark.parametrize('interval', [effects.bootstrap, effects.student])
def test_intervals_of_means_cover_as_often_as_they_say(interval, count):
    rng = np.random.default_rng(count)
    mean, low, high = interval(values := rng.normal(3, 2, (3000, count)))
    np.testing.assert_allclose(mean, values.mean(1))
    # Three deviations of 3,000 draws are 0.012.
    assert 0.938 < np.mean((low < 3) & (3 < high)) < 0.962
    np.testing.assert_array_equal(low, interval(values)[1])
    _, low, high = interval(rng.exponential(size=(3000, count)))  # as skewed as effects are
    assert np.mean((low < 1) & (1 < high)) > 0.87


@pytest.mark.parametrize('count', [3, 4, 8, 16, 20, 50])
@pytest.mark.parametrize('share', [0.5, 0.9, 0.98])
def test_intervals_of_fractions_over_seeds_cover_as_often_as_they_say(count, share):
    rng = np.random.default_rng(count)
    drawn = rng.beta(200 * share, 200 * (1 - share), (3000, count))
    _, low, high = effects.student_share(drawn)
    assert 0.93 < np.mean((low < share) & (share < high)) < 0.97


@pytest.mark.parametrize('count', [2, 3, 4, 8, 16, 20, 50])
def test_intervals_of_fractions_of_images_cover_as_often_as_they_say(count):
    """Wilson's does so on average over fractions: one of n images moves in steps of 1/n."""
    rng = np.random.default_rng(count)
    share = rng.uniform(size=20_000)
    low, high = probe.wilson(rng.binomial(count, share) / count, count)
    assert 0.94 < np.mean((low < share) & (share < high)) < 0.97


@pytest.mark.parametrize(
    ('interval', 'least'),
    [(effects.bootstrap, 2), (effects.student, 2), (effects.student_share, 3)],
)
def test_fewer_values_than_an_interval_takes_have_none(interval, least):
    values = np.random.default_rng(0).uniform(size=(5, least))
    assert np.isfinite(interval(values)).all()
    mean, low, high = interval(values[:, 1:])
    assert np.isfinite(mean).all() and np.isnan(low).all() and np.isnan(high).all()


def test_an_interval_is_called_what_it_is():
    said = [effects.over_images(count) for count in (1, 2, 19, 20)]
    student = "Student's t over images, 95%"
    assert said == ['no interval, one image', student, student, 'bootstrap over images, 95%']


def test_rank_correlation_is_of_order_alone():
    values = np.arange(1.0, 7).reshape(3, 2, 1)
    assert effects.rank_correlation(values, -(values**3)) == 1
    assert effects.rank_correlation(values, 1 / values) == -1
    assert np.isnan(effects.rank_correlation(values[:1], values[:1]))
