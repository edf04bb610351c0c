"""Predictions of a run's best parameters for the images that it is judged by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vitjax import evaluate, runs
from vitjax.base.files import first_line
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.experiment import Experiment, require_data
from vitjax.report.found import Run
from vitjax.runs import provenance
from vitjax.training.resolve import load_data


class Answers(NamedTuple):
    """Label, predicted class and its probability for every image of a split, each [N].

    Attributes:
        split: `test` for a finished run, else `validation`.
        labels: classes [N] int.
        predicted: classes [N] int.
        probability: probability of the predicted class [N], 0 to 1.
        classes: names of the model's outputs.
    """

    split: str
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    classes: tuple[str, ...]

    def scores(self) -> evaluate.ByClass:
        """Precision, recall, F1 and support of each class."""
        return evaluate.by_class(self.labels, self.predicted, len(self.classes))

    def confusion(self, chosen: np.ndarray) -> np.ndarray:
        """Counts [true, predicted] of the images of `chosen` classes with such predictions."""
        place = np.full(len(self.classes), -1)
        place[chosen] = np.arange(len(chosen))
        true, predicted = place[self.labels], place[self.predicted]
        there = (true >= 0) & (predicted >= 0)
        out = np.zeros((len(chosen), len(chosen)), int)
        np.add.at(out, (true[there], predicted[there]), 1)
        return out

    def confused(self) -> list[tuple[int, int, int]]:
        """True class, another that is predicted, and number of images; the most often first."""
        wrong = self.labels != self.predicted
        pairs = np.stack([self.labels[wrong], self.predicted[wrong]], 1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        order = np.argsort(-counts, kind='stable')
        return [(int(found[i, 0]), int(found[i, 1]), int(counts[i])) for i in order]

    def worst(self, count: int) -> np.ndarray:
        """The mistakes with the highest probability: indices of images, the worst first."""
        order = np.argsort(-self.probability, kind='stable')
        return order[self.labels[order] != self.predicted[order]][:count]

    def right(self, count: int) -> np.ndarray:
        """Images that it gets right, of as many classes as there can be: indices, in order."""
        rows = np.flatnonzero(self.labels == self.predicted)
        _, first = np.unique(self.labels[rows], return_index=True)
        return np.sort(rows[first[evenly(len(first), count)]])


def answers(run: Run) -> Answers:
    """Predictions of a run for its test images, or for validation images if it is not finished.

    They are those recorded when the run was tested; without a record the best parameters predict
    again.

    Raises:
        ValueError: if neither is possible, or the images have classes that the model lacks.
    """
    if run.experiment is None:
        raise ValueError('without its experiment a run cannot be asked')
    tested = run.last('test')
    if tested is not None:
        try:
            known = runs.read_predictions(run.path)
            _require_numbers(known)
            correct = float((known['labels'] == known['predicted']).mean())
            if abs(correct - tested['accuracy']) < 1e-9:
                return _answers(run.experiment, 'test', known)
        except (ValueError, OSError, KeyError):
            pass  # not there, or damaged: they can be had again
    split = 'test' if tested else 'validation'
    experiment, params, _ = runs.load(run.path, report=lambda change: None)
    data, prepared = images(experiment, split), experiment.preprocessing
    batch = experiment.batch_size
    logits = evaluate.predict(experiment.model, params, data, prepared, batch)
    evaluate.require_finite(logits)
    _require_classes(data.labels, logits.shape[1], split)
    found = evaluate.answers(logits, data.labels)
    return _answers(experiment, split, {name: np.array(values) for name, values in found.items()})


def changed(run: Run, split: str) -> list[str]:
    """A line if images are not those that the run was trained on, or a split's cannot be read."""
    try:
        assert run.experiment is not None
        read = {split: images(run.experiment, split)}
        source = require_data(run.experiment)
        said = provenance.remark(run.path, provenance.with_others(source, read))
        return [said] if said else []
    except (ValueError, OSError) as error:
        return [f'{run.name}: the {split} images cannot be read: {first_line(error)}']


def images(experiment: Experiment, split: str) -> Data:
    """The images of a split, with the run's own validation split."""
    return load_data(require_data(experiment), split, experiment.preprocessing)


def _answers(experiment: Experiment, split: str, found: dict[str, np.ndarray]) -> Answers:
    model: Any = experiment.model
    names = class_names(experiment.classes, model.num_classes)
    labels, predicted, odds = (found[name] for name in ('labels', 'predicted', 'probability'))
    for each in (labels, predicted):
        _require_classes(each, len(names), split)
    return Answers(split, labels, predicted, odds, names)


def _require_classes(classes: np.ndarray, outputs: int, split: str) -> None:
    if not len(classes) or classes.min() < 0 or classes.max() >= outputs:
        found = f'{classes.min()} to {classes.max()}' if len(classes) else 'there are none'
        rule = f'classes of {split} images must be 0 to {outputs - 1}, outputs of the model'
        raise ValueError(f'{rule}: {found}.')


def _require_numbers(found: dict[str, np.ndarray]) -> None:
    """Refuses predictions that are not numbers, as a damaged file may hold."""
    kinds = {'labels': 'iu', 'predicted': 'iu', 'probability': 'f'}
    for name, kind in kinds.items():
        if found[name].dtype.kind not in kind or not np.isfinite(found[name]).all():
            raise ValueError(f'{name} must be finite numbers: {found[name].dtype}.')


def class_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of `count` classes; a class without a name has its number."""
    return tuple(classes[i] if i < len(classes) else f'class {i}' for i in range(count))
