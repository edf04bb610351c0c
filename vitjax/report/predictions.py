"""Predictions of a run's best parameters for the split that judges it."""

import dataclasses
from typing import NamedTuple

import numpy as np

from vitjax import evaluate, runs
from vitjax.base.files import first_line
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.experiment import Experiment, require_data
from vitjax.report.run import Run
from vitjax.runs import provenance
from vitjax.training.resolve import load_data


class Predictions(NamedTuple):
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

    def scores(self) -> evaluate.ClassScores:
        """Precision, recall, F1 and support of each class."""
        return evaluate.class_scores(self.labels, self.predicted, len(self.classes))

    def confusion(self) -> np.ndarray:
        """Number of images [true, predicted] over the classes with an image or a prediction."""
        present, places = np.unique([self.labels, self.predicted], return_inverse=True)
        out = np.zeros((len(present), len(present)), int)
        np.add.at(out, tuple(places.reshape(2, -1)), 1)
        return out

    def confused(self) -> list[tuple[int, int, int]]:
        """True class, other class that is predicted, number of images; the most frequent first."""
        wrong = self.labels != self.predicted
        pairs = np.stack([self.labels[wrong], self.predicted[wrong]], 1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        order = np.argsort(-counts, kind='stable')
        return [(int(found[i, 0]), int(found[i, 1]), int(counts[i])) for i in order]

    def worst(self, count: int) -> np.ndarray:
        """Indices of the mistakes with the highest probability, in descending order."""
        order = np.argsort(-self.probability, kind='stable')
        return order[self.labels[order] != self.predicted[order]][:count]

    def correct(self, count: int) -> np.ndarray:
        """Indices of correct images, ascending, of as many classes as possible."""
        rows = np.flatnonzero(self.labels == self.predicted)
        _, first = np.unique(self.labels[rows], return_index=True)
        return np.sort(rows[first[evenly(len(first), count)]])


def predictions_of(run: Run) -> Predictions:
    """Predictions for a run's test images, or for validation images if it is not finished.

    Recorded when the run was tested; without a record the best parameters predict again.

    Raises:
        ValueError: if neither is possible, or the images have classes that the model lacks.
    """
    experiment, tested = run.experiment, run.last('test')
    if experiment is None:
        raise ValueError('a run without its experiment cannot predict')
    if tested is not None:
        try:
            found = runs.records.read_predictions(run.path)
            _require_numbers(found)
            accuracy = float((found['labels'] == found['predicted']).mean())
            if abs(accuracy - tested['accuracy']) < 1e-9:
                return _checked(experiment, 'test', found)
        except (ValueError, OSError, KeyError):
            pass  # missing or damaged: predict again
    split = 'test' if tested else 'validation'
    experiment, params, _ = runs.load(run.path, report=lambda change: None)
    data, preprocessing = images(experiment, split), experiment.preprocessing
    assert preprocessing is not None
    logits = evaluate.predict(experiment.model, params, data, preprocessing, experiment.batch_size)
    evaluate.require_finite(logits)
    evaluate.require_classes(data.labels, logits.shape[1], f'classes of {split} images')
    found = evaluate.predictions(logits, data.labels)
    return _checked(experiment, split, {name: np.array(each) for name, each in found.items()})


def changes(run: Run, split: str) -> list[str]:
    """A line if a split is unreadable, or is not what the run was trained on."""
    try:
        assert run.experiment is not None
        read = {split: images(run.experiment, split)}
        source = require_data(run.experiment)
        remark = provenance.remark(run.path, provenance.with_others(source, read))
        return [remark] if remark else []
    except (ValueError, OSError) as error:
        return [f'{run.name}: the {split} images cannot be read: {first_line(error)}']


def images(experiment: Experiment, split: str) -> Data:
    """Images of a split, with the run's own validation split; decoded when asked for."""
    source = dataclasses.replace(require_data(experiment), memory=0)
    return load_data(source, split, experiment.preprocessing)


def _checked(experiment: Experiment, split: str, found: dict[str, np.ndarray]) -> Predictions:
    names = evaluate.class_names(experiment.classes, experiment.model.num_classes)
    labels, predicted = found['labels'], found['predicted']
    for classes in (labels, predicted):
        evaluate.require_classes(classes, len(names), f'classes of {split} images')
    return Predictions(split, labels, predicted, found['probability'], names)


def _require_numbers(found: dict[str, np.ndarray]) -> None:
    """Refuses predictions that are not numbers, as a damaged file may hold."""
    kinds = {'labels': 'iu', 'predicted': 'iu', 'probability': 'f'}
    for name, kind in kinds.items():
        if found[name].dtype.kind not in kind or not np.isfinite(found[name]).all():
            raise ValueError(f'{name} must be finite numbers: {found[name].dtype}.')
