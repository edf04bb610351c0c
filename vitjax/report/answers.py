"""What a run's best parameters say of the images that it is judged by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sklearn.metrics

from vitjax import evaluate, provenance, runs
from vitjax.data.order import evenly
from vitjax.data.sources import Data
from vitjax.experiment import Experiment, require_data
from vitjax.files import first_line
from vitjax.program import load_data
from vitjax.report.found import Run


class Answers(NamedTuple):
    """Of each image of a split its label, the predicted class and its probability, each [N].

    Attributes:
        split: `test` of a finished run, else `validation`.
        labels: classes.
        predicted: classes.
        probability: of the predicted class.
        classes: names of all classes that the model tells apart.
    """

    split: str
    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    classes: tuple[str, ...]

    def confusion(self) -> np.ndarray:
        """Counts [true, predicted]."""
        every = range(len(self.classes))
        return sklearn.metrics.confusion_matrix(self.labels, self.predicted, labels=every)

    def scores(self) -> np.ndarray:
        """Precision, recall, F1 and support of each class, [4, classes]; 0 where not defined."""
        zero: Any = 0
        every, score = range(len(self.classes)), sklearn.metrics.precision_recall_fscore_support
        return np.array(score(self.labels, self.predicted, labels=every, zero_division=zero))

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
    """What a run says of its test images, or, as long as it is not finished, of validation images.

    As it was recorded when the run was tested; without that the best parameters are asked again.

    Raises:
        ValueError: if neither is possible.
    """
    if run.experiment is None:
        raise ValueError('without its experiment a run cannot be asked')
    tested = run.last('test')
    if tested is not None:
        try:
            known = runs.read_predictions(run.path)
            correct = float((known['labels'] == known['predicted']).mean())
            if abs(correct - tested['accuracy']) < 1e-9:
                return _answers(run.experiment, 'test', known)
        except (ValueError, OSError, KeyError):
            pass  # not there, or damaged: they can be had again
    split = 'test' if tested else 'validation'
    experiment, params, _ = runs.load(run.path, report=lambda change: None)
    data, prepared = images(experiment, split), experiment.preprocessing
    assert prepared is not None
    batch = experiment.batch_size
    logits = evaluate.predict(experiment.model, params, data, prepared, batch)
    evaluate.require_finite(logits)
    found = evaluate.answers(logits, data.labels)
    return _answers(experiment, split, {name: np.array(values) for name, values in found.items()})


def changed(run: Run, split: str) -> list[str]:
    """A line if a split's images are not those that the run was trained on, or cannot be read."""
    try:
        assert run.experiment is not None
        said = provenance.remark(run.path, {split: images(run.experiment, split)})
        return [said] if said else []
    except (ValueError, OSError) as error:
        return [f'{run.name}: the {split} images cannot be read: {first_line(error)}']


def images(experiment: Experiment, split: str) -> Data:
    """The images of a split, as a run has them."""
    return load_data(require_data(experiment), split, experiment.preprocessing)


def _answers(experiment: Experiment, split: str, found: dict[str, np.ndarray]) -> Answers:
    model: Any = experiment.model
    names = class_names(experiment.classes, model.num_classes)
    labels, predicted, odds = (found[name] for name in ('labels', 'predicted', 'probability'))
    if not all(((0 <= each) & (each < len(names))).all() for each in (labels, predicted)):
        raise ValueError(f'classes must be 0 to {len(names) - 1}: those of {split} images are not')
    return Answers(split, labels, predicted, odds, names)


def class_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of `count` classes, those that have none by their number."""
    return tuple(classes[i] if i < len(classes) else f'class {i}' for i in range(count))
