import numpy as np
from helpers import normal

from vitjax.analysis import effects


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


def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(400, 60))
    mean, low, high = effects.bootstrap(values)
    np.testing.assert_allclose(mean, values.mean(1))
    assert 0.88 < np.mean((low < 1) & (1 < high)) < 0.98
    again = effects.bootstrap(values)
    np.testing.assert_array_equal(low, again[1])
    assert np.isnan(effects.bootstrap(values[:, :1])[1]).all()


def test_rank_correlation_is_of_order_alone():
    values = np.arange(1.0, 7).reshape(3, 2, 1)
    assert effects.rank_correlation(values, -(values**3)) == 1
    assert effects.rank_correlation(values, 1 / values) == -1
    assert np.isnan(effects.rank_correlation(values[:1], values[:1]))
