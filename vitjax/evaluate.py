"""Predictions for every image of a split, and their accuracy."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax.base.types import Module, Params
from vitjax.data import preprocess
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, read_ahead
from vitjax.runs import Loaded
from vitjax.training.step import eval_step


def predict(
    model: Module, params: Params, data: Data, preprocessing: Preprocessing, batch_size: int,
    devices: Sequence[Any] | None = None, *, report: Callable[[int], object] = lambda done: None,
    together: bool = False,
) -> np.ndarray:  # fmt: skip
    """Logits [N, num_classes] float32 of every image once, over this process's devices.

    Images that do not fit in memory are read and decoded a batch ahead.

    Args:
        model: any model.
        params: its parameters.
        data: images, as their source has them or prepared for this model.
        preprocessing: the model's.
        batch_size: images at a time, over all devices.
        devices: which to use; None takes all of this process.
        report: takes how many images are done, after every batch.
        together: whether all processes of the run are here: each then takes its share of the
            images, and all get all logits.

    Raises:
        ValueError: if images were prepared for another model.
    """
    devices = jax.local_devices() if devices is None else devices
    devices = [d for d in devices if d.process_index == jax.process_index()]
    processes = jax.process_count() if together else 1
    share = -(-len(data) // processes)  # the last one filled up with the last image
    rows = np.arange(share) + (jax.process_index() * share if together else 0)
    rows = np.minimum(rows, len(data) - 1)
    batch_size = -(-min(batch_size, share) // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), ('batch',), axis_types=(AxisType.Auto,), devices=devices)
    params = jax.device_put(on_host(params), NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec('batch'))
    forward = _forward(model, preprocessing, data.prepared)
    out, done = [], 0
    parts = [rows[start : start + batch_size] for start in range(0, share, batch_size)]
    for images in read_ahead(data.images, parts):
        count = len(images)
        if count < batch_size:  # the last batch is padded, and the padding dropped
            images = np.concatenate([images, np.repeat(images[:1], batch_size - count, axis=0)])
        out.append(np.asarray(forward(params, jax.device_put(images, split)))[:count])
        done += count
        report(done)
    logits = np.concatenate(out)
    if processes == 1:
        return logits
    shares = np.asarray(multihost_utils.process_allgather(logits))
    return shares.reshape(-1, logits.shape[1])[: len(data)]


@functools.lru_cache(maxsize=8)
def _forward(model: Module, preprocessing: Preprocessing, prepared: Preprocessing | None) -> Any:
    def forward(params: Params, pixels: jax.Array) -> jax.Array:
        return eval_step(params, preprocess.finish(pixels, preprocessing, prepared), model=model)

    return jax.jit(forward)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`loss` (cross-entropy in nats), `accuracy` and `top5` of logits [N, K] against labels [N].

    Of classes with equal logits the first is the likelier one, here as in training.

    Raises:
        ValueError: for logits that are not finite, whose ranks would mean nothing.

    Example:
        >>> scores(np.array([[2.0, 0.0], [2.0, 2.0]]), np.array([0, 1]))['accuracy']
        0.5
    """
    require_finite(logits)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    right = np.take_along_axis(shifted, labels[:, None], 1)
    loss = (np.log(np.exp(shifted).sum(1)) - right[:, 0]).mean()
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = (shifted > right).sum(1) + ((shifted == right) & before).sum(1)
    return {
        'loss': float(loss),
        'accuracy': float((rank == 0).mean()),
        'top5': float((rank < 5).mean()),
    }


class ByClass(NamedTuple):
    """Precision, recall and F1 of each class; 0 where the denominator is 0.

    Attributes:
        precision: [K].
        recall: [K].
        f1: [K].
        support: images of each class, [K] int.
        counted: [K] bool, classes with an image or a prediction; the means are over these.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    counted: np.ndarray

    def means(self) -> dict[str, float]:
        """Unweighted means of `precision`, `recall` and `f1` over the classes that are counted.

        These are the macro averages of scikit-learn's `precision_recall_fscore_support` with
        `zero_division=0`. A class without images and predictions has no part in them.
        """
        each = {'precision': self.precision, 'recall': self.recall, 'f1': self.f1}
        return {name: float(values[self.counted].mean()) for name, values in each.items()}


def by_class(labels: np.ndarray, predicted: np.ndarray, classes: int) -> ByClass:
    """Scores of each of `classes` classes, from the labels [N] and predicted classes [N].

    Raises:
        ValueError: if there are no images, or a class is not in 0 to `classes` - 1.

    Example:
        >>> by_class(np.array([0, 0, 1]), np.array([0, 2, 1]), 4).means()['recall']
        0.5
    """
    found = np.concatenate([labels, predicted])
    if not len(found) or found.min() < 0 or found.max() >= classes:
        said = f'{found.min()} to {found.max()}' if len(found) else 'there are no images'
        raise ValueError(f'classes must be 0 to {classes - 1}: {said}.')
    support, given = (np.bincount(each, minlength=classes) for each in (labels, predicted))
    right = np.bincount(labels[labels == predicted], minlength=classes)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(classes), where=whole > 0)

    precision, recall = share(right, given), share(right, support)
    return ByClass(precision, recall, share(2 * right, support + given), support,
                   support + given > 0)  # fmt: skip


def answers(logits: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
    """What a model says of each image, of logits [N, K] and labels [N], as JSON values.

    Returns:
        `labels`, the `predicted` class (of equal logits the first), its `probability`, and the
        `probability_of_label`; probabilities to six digits.

    >>> answers(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([0, 1]))['probability']
    [0.880797, 0.5]
    """
    odds, predicted = scipy.special.softmax(logits.astype(np.float64), 1), logits.argmax(1)
    rows = np.arange(len(labels))
    return {
        'labels': labels.tolist(),
        'predicted': predicted.tolist(),
        'probability': odds[rows, predicted].round(6).tolist(),
        'probability_of_label': odds[rows, labels].round(6).tolist(),
    }


def require_finite(logits: np.ndarray) -> None:
    """Refuses logits [N, K] of a model that is damaged or has diverged.

    Raises:
        ValueError: with how many images have such.
    """
    wrong = ~np.isfinite(logits).all(1)
    if wrong.any():
        raise ValueError(
            f'logits must be finite: those of {wrong.sum()} of {len(logits)} images are not.'
        )


def require_same_classes(data: Data, classes: Sequence[str]) -> None:
    """Refuses to score a model against the labels of another number of classes.

    Names may differ, as ImageNet's folders are named by number: classes are then taken in order,
    which the caller has to say.

    Raises:
        ValueError: with both.
    """
    if len(data.classes) != len(classes):
        theirs, ours = (
            f'{len(names)} ({", ".join(names[:3])}, ...)' if names else 'none'
            for names in (data.classes, classes)
        )
        raise ValueError(
            f"the images must be of the model's classes: they have {theirs}, the model {ours}."
        )


def surplus(model: Any, classes: Sequence[str]) -> str:
    """A line about the outputs of a head that stand for no class; empty if there are none.

    Args:
        model: with its `num_classes`.
        classes: names of its classes; none if they are not known.
    """
    outputs, count = model.num_classes, len(classes)
    if not count or outputs <= count:
        return ''
    first, last = f'class {count}', f'class {outputs - 1}'
    names = first if first == last else f'{first} to {last}'
    return f'the head has {outputs:,} outputs for {count:,} classes; without a class: {names}'


class Unreadable(ValueError):
    """An image that cannot be read, by name."""


def classify(
    loaded: Loaded, images: Sequence[str | pathlib.Path | np.ndarray], *, top: int = 5
) -> list[list[tuple[str, float]]]:
    """Names and probabilities of each image's likeliest classes, the likeliest first.

    Args:
        loaded: a model, as `runs.load` opens it.
        images: files, or uint8 arrays [H, W, 3] of any size.
        top: number of classes per image.

    Raises:
        Unreadable: for an image that cannot be read.
        ValueError: for a model without classes, a `top` below 1, and logits that are not finite.
    """
    experiment, params, _ = loaded
    model: Module = experiment.model
    if top < 1:
        raise ValueError(f'top must be 1 or more: {top}.')
    if not model.num_classes:
        raise ValueError('the model has no head, so there are no classes to predict.')
    prepared = experiment.preprocessing or Preprocessing()
    try:
        pixels = preprocess.squares(images, prepared)
    except ValueError as error:
        raise Unreadable(error) from None
    data = Data(pixels, np.zeros(len(pixels), np.int32), experiment.classes, prepared)
    logits = predict(model, params, data, prepared, 32)
    require_finite(logits)
    odds = scipy.special.softmax(logits, 1)
    known = experiment.classes
    names = [known[i] if i < len(known) else f'class {i}' for i in range(model.num_classes)]
    order = np.argsort(-odds, 1, kind='stable')[:, :top]
    return [
        [(names[i], float(row[i])) for i in best] for row, best in zip(odds, order, strict=True)
    ]


def on_host(params: Params) -> Any:
    """Parameters as host arrays, wherever they lie."""
    return jax.tree.map(np.asarray, params)
