"""Effects of an intervention on predictions, and their confidence intervals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from vitjax.analysis.tokens import TINY, cosines
from vitjax.base.types import Array


def answer_drop(logits: Array, clean: Array, *, classes: bool = True) -> jax.Array:
    """Drop of the predicted class's logit by an edit: [..., B].

    The logit of the class predicted without the edit, before minus after. Without `classes` the
    logits are features, and the drop is 1 minus their component along the clean features, relative
    to the clean features' norm.

    Args:
        logits: logits with the edit, [..., B, K].
        clean: logits without the edit, [B, K].
        classes: False for features.
    """
    logits, clean = jnp.asarray(logits), jnp.asarray(clean)
    if classes:
        chosen = jax.nn.one_hot(clean.argmax(-1), clean.shape[-1], dtype=clean.dtype)
        return (clean * chosen).sum(-1) - (logits * chosen).sum(-1)
    length = jnp.maximum((clean**2).sum(-1), TINY)
    return 1 - (logits * clean).sum(-1) / length


def loss_rise(logits: Array, clean: Array, labels: Array) -> jax.Array:
    """Rise of the cross-entropy of labels [B] in nats: [..., B]; arrays as in `answer_drop`."""

    def loss(logits: Array) -> jax.Array:
        odds = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
        at = jnp.broadcast_to(jnp.asarray(labels)[..., None], (*odds.shape[:-1], 1))
        return -jnp.take_along_axis(odds, at, -1)[..., 0]

    return loss(logits) - loss(clean)


def token_turn(features: Array, clean: Array) -> jax.Array:
    """1 minus the cosine between the head's input [..., B, D] and the clean one [B, D]: 0 to 2."""
    features, clean = jnp.asarray(features), jnp.asarray(clean)
    return 1 - cosines(features, jnp.broadcast_to(clean, features.shape))


FEW = 20  # below so many images the bootstrap's distribution has no tails


def bootstrap(
    values: Array, *, seed: int = 0, draws: int = 1000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over images of values [..., B] and its confidence interval, each [...].

    From `FEW` images on: expanded percentiles of the means of `draws` samples of B images, drawn
    with replacement (Efron 1979; Hesterberg 2015, section 4.5). Plain percentiles are narrower than
    Student's interval: on normal data 95% of them covers 93% with 20 images, 50% with 2. Below
    `FEW` images: `student`. One image has no interval: NaN. `over_images` names the interval.

    >>> mean, low, high = bootstrap(np.arange(100.0))
    >>> float(mean), bool(43 < low < 45), bool(54 < high < 56)
    (49.5, True, True)
    """
    values = np.asarray(values, np.float64)
    count = values.shape[-1]
    if count < FEW:
        return student(values, level)
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=draws) / count
    low, high = np.quantile(values @ drawn.T, expanded(count, level), axis=-1)
    return values.mean(-1), low, high


def expanded(count: int, level: float) -> tuple[float, float]:
    """Quantiles of bootstrap means that give Student's interval on normal data.

    The deviation of bootstrap means of `count` values is too small by `sqrt((count - 1) / count)`,
    and a normal's tails are too thin (Hesterberg 2015, section 4.5).
    """
    reach = scipy.stats.t.ppf((1 + level) / 2, count - 1) * np.sqrt(count / (count - 1))
    low = float(scipy.stats.norm.cdf(-reach))
    return low, 1 - low


def over_images(count: int) -> str:
    """Name of the 95% interval that `bootstrap` returns for `count` images."""
    if count < 2:
        return 'no interval, one image'
    return 'bootstrap over images, 95%' if count >= FEW else "Student's t over images, 95%"


def student(values: Array, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of values [..., n], one per seed, and its Student confidence interval, each [...].

    One value has no interval: NaN.
    """
    values = np.asarray(values, np.float64)
    count, mean = values.shape[-1], values.mean(-1)
    if count < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    quantile = scipy.stats.t.ppf((1 + level) / 2, count - 1)
    half = quantile * values.std(-1, ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def student_share(values: Array, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`student` for fractions as accuracies, with an interval within 0 and 1.

    Student's interval of the mean's logit, its error propagated to first order (R's `svyciprop`
    with `method='logit'`; Korn and Graubard 1998). Fewer than three values have no interval, NaN:
    with two it would be nearly all of 0 to 1. Equal values have an interval of no width.

    >>> mean, low, high = student_share([0.96, 0.97, 0.99])
    >>> round(float(low), 3), round(float(high), 3)
    (0.894, 0.994)
    """
    values = np.asarray(values, np.float64)
    mean, low, high = student(values, level)
    if values.shape[-1] < 3:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    spread = mean * (1 - mean)  # derivative of the mean with respect to its logit
    half = np.divide(high - mean, spread, out=np.zeros_like(mean), where=spread > 0)
    centre = scipy.special.logit(mean)
    return mean, scipy.special.expit(centre - half), scipy.special.expit(centre + half)


def first_order(
    value: Array, other: Array | float, grads: Array, *, over: tuple[int, ...]
) -> Array:
    """Attribution patching (Nanda 2023): estimated drop of a target if `value` becomes `other`.

    The target's gradient times the difference, summed over the axes `over`. For heads and `other`
    0, its absolute value is `prune.head_importance`.
    """
    return ((jnp.asarray(value) - other) * grads).sum(over)


def rank_correlation(exact: Array, estimate: Array) -> float:
    """Spearman correlation over sites of two effects [layers, sites, images].

    Compares their mean absolute values over images. -1 to 1; NaN for fewer than three sites, or
    equal values.
    """
    a, b = (np.abs(np.asarray(x)).mean(-1).ravel() for x in (exact, estimate))
    if len(a) < 3 or min(np.ptp(a), np.ptp(b)) == 0:
        return float('nan')
    found: Any = scipy.stats.spearmanr(a, b)
    return float(found.statistic)
