"""Predictions for every image of a split, and their accuracy."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vitjax.base.console import Progress, silent
from vitjax.base.types import Module, Params
from vitjax.data import preprocess
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, read_ahead
from vitjax.runs import Loaded
from vitjax.training.step import eval_step


def predict(
    model: Module, params: Params, data: Data, preprocessing: Preprocessing, batch_size: int,
    devices: Sequence[Any] | None = None, *, report: Progress = silent, together: bool = False,
) -> np.ndarray:  # fmt: skip
    """Logits [N, num_classes] float32 of every image, each computed once.

    Images that do not fit in memory are read and decoded one batch ahead.

    Args:
        model: any model.
        params: its parameters.
        data: images as their source has them, or prepared for this model.
        preprocessing: the model's preprocessing.
        batch_size: images per batch, over all devices of this process.
        devices: devices to use, of which only those of this process count; None takes them all.
        report: takes the number of finished images after every batch.
        together: split the images over all processes of the run; each returns all logits. Every
            process must call this.

    Raises:
        ValueError: if the images were prepared for another model.
    """
    processes, process = (jax.process_count(), jax.process_index()) if together else (1, 0)
    devices = [d for d in devices or jax.devices() if d.process_index == jax.process_index()]
    share = -(-len(data) // processes)  # images per process; the last image pads the last share
    rows = np.minimum(process * share + np.arange(share), len(data) - 1)
    batch_size = -(-min(batch_size, share) // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), ('batch',), axis_types=(AxisType.Auto,), devices=devices)
    params = jax.device_put(on_host(params), NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, PartitionSpec('batch'))
    forward = _forward(model, preprocessing, data.prepared)
    out, done = [], 0
    batches = [rows[start : start + batch_size] for start in range(0, share, batch_size)]
    for images in read_ahead(data.images, batches):
        count = len(images)
        if count < batch_size:  # one shape, one compiled program
            images = np.concatenate([images, np.repeat(images[:1], batch_size - count, axis=0)])
        out.append(np.asarray(forward(params, jax.device_put(images, split)))[:count])
        done += count
        report(done)
    logits = np.concatenate(out)
    if processes == 1:
        return logits
    gathered = np.asarray(multihost_utils.process_allgather(logits))
    return gathered.reshape(-1, logits.shape[1])[: len(data)]


@functools.lru_cache(maxsize=8)  # as many compiled programs stay in memory
def _forward(model: Module, preprocessing: Preprocessing, prepared: Preprocessing | None) -> Any:
    def forward(params: Params, pixels: jax.Array) -> jax.Array:
        return eval_step(params, preprocess.finish(pixels, preprocessing, prepared), model=model)

    return jax.jit(forward)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Cross-entropy `loss` in nats, `accuracy` and `top5` of logits [N, K] for labels [N].

    Equal logits rank in the order of their classes, as in training.

    Raises:
        ValueError: if a logit is not finite, because ranks would be meaningless.

    Example:
        >>> scores(np.array([[2.0, 0.0], [2.0, 2.0]]), np.array([0, 1]))['accuracy']
        0.5
    """
    require_finite(logits)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    correct = np.take_along_axis(shifted, labels[:, None], 1)
    loss = (np.log(np.exp(shifted).sum(1)) - correct[:, 0]).mean()
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((shifted > correct) | (shifted == correct) & before).sum(1)
    return {
        'loss': float(loss),
        'accuracy': float((rank == 0).mean()),
        'top5': float((rank < 5).mean()),
    }


class ClassScores(NamedTuple):
    """Precision, recall and F1 of each class, [K]; 0 if the denominator is 0.

    Attributes:
        precision: fraction of the predictions of a class that are correct.
        recall: fraction of the images of a class that are predicted as such.
        f1: harmonic mean of both.
        support: number of images of each class, int.
        present: bool, True for classes with an image or a prediction.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    present: np.ndarray

    def means(self) -> dict[str, float]:
        """Unweighted means of `precision`, `recall` and `f1` over the classes that are present.

        Equal to the macro averages of scikit-learn's `precision_recall_fscore_support` with
        `zero_division=0`.
        """
        values = {'precision': self.precision, 'recall': self.recall, 'f1': self.f1}
        return {name: float(each[self.present].mean()) for name, each in values.items()}


def class_scores(labels: np.ndarray, predicted: np.ndarray, classes: int) -> ClassScores:
    """Scores of each of `classes` classes from labels [N] and predicted classes [N].

    Raises:
        ValueError: if there are no images, or a class is not in 0 to `classes` - 1.

    Example:
        >>> class_scores(np.array([0, 0, 1]), np.array([0, 2, 1]), 4).means()['recall']
        0.5
    """
    require_classes(np.concatenate([labels, predicted]), classes, 'classes')
    support, positives = (np.bincount(each, minlength=classes) for each in (labels, predicted))
    correct = np.bincount(labels[labels == predicted], minlength=classes)

    def ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
        return np.divide(part, total, out=np.zeros(classes), where=total > 0)

    precision, recall = ratio(correct, positives), ratio(correct, support)
    both = support + positives
    return ClassScores(precision, recall, ratio(2 * correct, both), support, both > 0)


def require_classes(classes: np.ndarray, outputs: int, name: str) -> None:
    """Refuses class indices that a model with so many outputs cannot have.

    Raises:
        ValueError: if there are none, or one is not in 0 to `outputs` - 1.
    """
    if not len(classes) or classes.min() < 0 or classes.max() >= outputs:
        found = f'{classes.min()} to {classes.max()}' if len(classes) else 'there are no images'
        rule = f'{name} must be 0 to {outputs - 1}, outputs of the model'
        raise ValueError(f'{rule}: {found}.')


def predictions(logits: np.ndarray, labels: np.ndarray) -> dict[str, list[Any]]:
    """Prediction for each image from logits [N, K] and labels [N], as JSON values.

    Returns:
        `labels`, the `predicted` class (the first of equal logits), its `probability`, and the
        `probability_of_label`; probabilities to six digits.

    >>> predictions(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([0, 1]))['probability']
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
        ValueError: if a logit is not finite; it counts the images.
    """
    wrong = ~np.isfinite(logits).all(1)
    if wrong.any():
        raise ValueError(
            f'logits must be finite: those of {wrong.sum()} of {len(logits)} images are not.'
        )


def require_same_classes(data: Data, classes: Sequence[str]) -> None:
    """Refuses data with another number of classes than the model.

    Names may differ, as ImageNet's folders are named by number. Classes then match by order, which
    the caller has to report.

    Raises:
        ValueError: if the numbers differ; it names both.
    """
    if len(data.classes) != len(classes):
        theirs, ours = (
            f'{len(names)} ({", ".join(names[:3])}, ...)' if names else 'none'
            for names in (data.classes, classes)
        )
        raise ValueError(
            f"the images must be of the model's classes: they have {theirs}, the model {ours}."
        )


def class_names(classes: Sequence[str], outputs: int) -> tuple[str, ...]:
    """Name of each of a model's outputs; an output without a name has its number.

    >>> class_names(['cat'], 2)
    ('cat', 'class 1')
    """
    return (*classes[:outputs], *(f'class {i}' for i in range(len(classes), outputs)))


def unnamed_outputs(model: Module, classes: Sequence[str]) -> str:
    """Remark on the outputs of a head that stand for no class; empty if there are none.

    Args:
        model: any model.
        classes: names of its classes; empty if they are unknown.
    """
    outputs, count = model.num_classes, len(classes)
    if not count or outputs <= count:
        return ''
    first, last = f'class {count}', f'class {outputs - 1}'
    names = first if first == last else f'{first} to {last}'
    return f'the head has {outputs:,} outputs for {count:,} classes; without a class: {names}'


class Unreadable(ValueError):
    """Image that cannot be read, by name."""


def classify(
    loaded: Loaded, images: Sequence[str | pathlib.Path | np.ndarray], *, top: int = 5
) -> list[list[tuple[str, float]]]:
    """Names and probabilities of each image's likeliest classes, in descending order.

    Args:
        loaded: a model, as `runs.load` opens it.
        images: files, or uint8 arrays [H, W, 3] of any size.
        top: number of classes per image.

    Raises:
        Unreadable: if an image cannot be read.
        ValueError: if the model has no classes, `top` is below 1, or a logit is not finite.
    """
    experiment, params, _ = loaded
    model = experiment.model
    if top < 1:
        raise ValueError(f'top must be 1 or more: {top}.')
    if not model.num_classes:
        raise ValueError('the model has no head, so there are no classes to predict.')
    preprocessing = experiment.preprocessing or Preprocessing()
    try:
        pixels = preprocess.squares(images, preprocessing)
    except ValueError as error:
        raise Unreadable(error) from None
    data = Data(pixels, np.zeros(len(pixels), np.int32), experiment.classes, preprocessing)
    logits = predict(model, params, data, preprocessing, 32)
    require_finite(logits)
    odds = scipy.special.softmax(logits, 1)
    names = class_names(experiment.classes, model.num_classes)
    order = np.argsort(-odds, 1, kind='stable')[:, :top]
    return [
        [(names[i], float(row[i])) for i in best] for row, best in zip(odds, order, strict=True)
    ]


def on_host(params: Params) -> Any:
    """Parameters as host arrays."""
    return jax.tree.map(np.asarray, params)
