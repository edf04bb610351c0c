"""Probes of representations: k-NN, ridge and linear classifiers at every layer.

They fit layers `[L, n, f]` of labelled examples and return accuracies `[L]` on layers `[L, m, f]`
of other examples.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from vitjax.analysis import nearest
from vitjax.base.types import Array, PyTree

Labels: TypeAlias = Array | Sequence[int]


def knn(
    train: Array, labels: Labels, test: Array, truth: Labels, *,
    k: int = 20, temperature: float = 0.07,
) -> np.ndarray:  # fmt: skip
    """Accuracy [L] of a weighted k-nearest-neighbour vote (Wu et al. 2018, sec. 3.4).

    Each of the k nearest examples by cosine s votes for its class with weight `exp(s /
    temperature)`, as DINO is evaluated (Caron et al. 2021: k = 20, temperature 0.07). Nothing is
    fitted. Cost: n m f a layer; memory: a few hundred rows of n similarities.

    >>> right, up = [2, 0.1], [0.1, 2]
    >>> train = np.array([[right, up, [3, 0], [0, 3]]])  # one layer of four examples
    >>> knn(train, [0, 1, 0, 1], np.array([[right, up]]), [0, 0], k=2)
    array([0.5])

    Args:
        train: features to fit, [L, n, f].
        labels: their labels, [n] integers from 0.
        test: features to classify, [L, m, f].
        truth: their labels, [m] integers from 0.
        k: number of neighbours that vote, at most n.
        temperature: temperature of the weights; a smaller one favours the nearest.

    Raises:
        ValueError: if shapes do not match, features are not finite, or k is outside 1 to n.
    """
    if not 1 <= k <= len(labels):
        raise ValueError(f'k must be from 1 to the examples: {k=}, {len(labels)} examples.')

    def votes(known: Array, labels: Array, others: Array, classes: int) -> jax.Array:
        return _votes(*nearest.by_cosine(known, others, k=k), labels, classes, temperature)

    return _accuracy(votes, train, labels, test, truth)


def ridge(
    train: Array, labels: Labels, test: Array, truth: Labels, *, penalty: float = 1e-3
) -> np.ndarray:
    """Accuracy [L] of ridge regression onto one-hot labels (Hoerl and Kennard 1970).

    `W = (XᵀX / n + λ I)⁻¹ Xᵀ (Y - ȳ) / n` on standardised features, `λ` being `penalty`; the class
    of the largest of `x W + ȳ`. The intercept ȳ is each class's fraction of the labels and is not
    penalised. Exact, no iteration. Cost: n f² + f³ a layer.

    Args:
        train: as in `knn`.
        labels: as in `knn`.
        test: as in `knn`.
        truth: as in `knn`.
        penalty: λ, above 0; relative to a feature's variance, which is 1.

    Raises:
        ValueError: as `knn`, and for a penalty of 0 or less.
    """
    if penalty <= 0:
        raise ValueError(f'penalty must be above 0: {penalty=}.')
    return _accuracy(functools.partial(_ridge, penalty=penalty), train, labels, test, truth)


def linear(
    train: Array, labels: Labels, test: Array, truth: Labels, *,
    penalty: float = 1e-3, steps: int = 100,
) -> np.ndarray:  # fmt: skip
    """Accuracy [L] of a linear probe: multinomial logistic regression (Alain and Bengio 2017).

    Mean cross-entropy plus `penalty / 2 |W|²` on standardised features, minimised by `steps` steps
    of L-BFGS from zero: deterministic. Cost: about n f classes a step and layer, twice.

    Args:
        train: as in `knn`.
        labels: as in `knn`.
        test: as in `knn`.
        truth: as in `knn`.
        penalty: weight of the penalty, 0 or more.
        steps: number of steps.

    Raises:
        ValueError: as `knn`, and for a negative penalty.
    """
    if penalty < 0:
        raise ValueError(f'penalty must be 0 or more: {penalty=}.')
    scores = functools.partial(_linear, penalty=penalty, steps=steps)
    return _accuracy(scores, train, labels, test, truth)


def wilson(accuracy: ArrayLike, examples: int, *, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval `(low, high)` of a fraction of `examples` examples (Wilson 1927).

    Args:
        accuracy: fractions, 0 to 1, any shape.
        examples: number of examples of each.
        z: standard deviations of a normal; 1.96 is 95%.
    """
    share, spread = np.asarray(accuracy), z * z / examples
    middle = (share + spread / 2) / (1 + spread)
    reach = z * np.sqrt(share * (1 - share) / examples + spread / (4 * examples)) / (1 + spread)
    return middle - reach, middle + reach


def _accuracy(
    scores: Callable[..., jax.Array], train: Array, labels: Labels, test: Array, truth: Labels
) -> np.ndarray:
    """Accuracy [L] of the class with each layer's largest score.

    Args:
        scores: maps a layer [n, f], its labels, other examples [m, f] and the number of classes to
            scores [m, classes].
        train: as in `knn`.
        labels: as in `knn`.
        test: as in `knn`.
        truth: as in `knn`.

    Raises:
        ValueError: if shapes do not match, or a layer is not finite.
    """
    labels, truth = np.asarray(labels), np.asarray(truth)
    fits = train.ndim == test.ndim == 3 and train.shape[::2] == test.shape[::2]
    if not fits or len(labels) != train.shape[1] or len(truth) != test.shape[1]:
        raise ValueError(
            'a probe needs [layers, examples, features] and a label for each example: '
            f'train {train.shape} with {len(labels)}, test {test.shape} with {len(truth)}.'
        )
    if min(labels.min(), truth.min()) < 0:
        raise ValueError('a probe needs labels from 0: got a negative one.')
    for name, stack in (('train', train), ('test', test)):
        for i, layer in enumerate(stack):
            if not np.isfinite(layer).all():
                raise ValueError(f'layer {i} of {name} has features that are NaN or infinite.')
    classes = int(max(labels.max(), truth.max())) + 1
    found = (scores(a, labels, b, classes) for a, b in zip(train, test, strict=True))
    return np.array([(np.asarray(layer).argmax(1) == truth).mean() for layer in found])


@functools.partial(jax.jit, static_argnames='classes')
def _votes(
    less: jax.Array, index: jax.Array, labels: jax.Array, classes: int, temperature: float
) -> jax.Array:
    # Relative to the nearest, so that no weight overflows at a low temperature.
    weights, rows = jnp.exp(less / temperature), jnp.arange(len(index))[:, None]
    return jnp.zeros((len(index), classes)).at[rows, labels[index]].add(weights)


def _standardised(train: Array, test: Array) -> tuple[Array, Array]:
    """Both, standardised by the mean and deviation of `train`; a constant feature becomes 0."""
    train, test = train.astype(jnp.float32), test.astype(jnp.float32)
    mean, deviation = train.mean(0), train.std(0)
    scale = jnp.where(deviation > 1e-6 * jnp.abs(mean), 1 / deviation, 0)
    return (train - mean) * scale, (test - mean) * scale


@functools.partial(jax.jit, static_argnames='classes')
def _ridge(train: Array, labels: Array, test: Array, classes: int, penalty: float) -> jax.Array:
    x, z = _standardised(train, test)
    y = jax.nn.one_hot(labels, classes)
    covariance = jnp.matmul(x.T, x, precision='highest') / len(x) + penalty * jnp.eye(x.shape[1])
    cross = jnp.matmul(x.T, y - y.mean(0), precision='highest') / len(x)
    weights = jax.scipy.linalg.solve(covariance, cross, assume_a='pos')
    return jnp.matmul(z, weights, precision='highest') + y.mean(0)


@functools.partial(jax.jit, static_argnames=('classes', 'steps'))
def _linear(
    train: Array, labels: Array, test: Array, classes: int, penalty: float, steps: int
) -> jax.Array:
    x, z = _standardised(train, test)

    def loss(params: tuple[jax.Array, jax.Array]) -> jax.Array:
        weights, bias = params
        logits = jnp.matmul(x, weights, precision='highest') + bias
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return entropy.mean() + penalty / 2 * (weights**2).sum()

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(_: int, carry: PyTree) -> PyTree:
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = optimizer.update(
            grad, state, params, value=value, grad=grad, value_fn=loss
        )
        return optax.apply_updates(params, updates), state

    start = jnp.zeros((x.shape[1], classes)), jnp.zeros(classes)
    (weights, bias), _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
    return jnp.matmul(z, weights, precision='highest') + bias
