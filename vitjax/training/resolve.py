"""From an experiment to what it trains on: its data, its initial weights and its teacher."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from vitjax import runs
from vitjax.base import fields
from vitjax.base.ranges import Steps
from vitjax.base.types import Module, Params
from vitjax.data import kinds
from vitjax.data.order import steps_per_epoch
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data
from vitjax.data.statistics import is_grey, moments
from vitjax.experiment import (
    Experiment,
    Prepared,
    Resolved,
    from_json,
    require_data,
    resolved,
    sized_by_data,
    to_json,
)
from vitjax.models.base import parameter_shapes
from vitjax.runs import checkpoint
from vitjax.training.step import require_gradients

Normal = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of pixels in 0..1

load_data = functools.lru_cache(maxsize=6)(kinds.load)  # the cells of an ablation share images


class Teacher(NamedTuple):
    """A trained model that another learns from.

    Attributes:
        model: its model.
        normal: mean and deviation of its images' pixels.
        params: its parameters.
    """

    model: Module
    normal: Normal
    params: Params


def resolve(
    experiment: Experiment, report: Callable[[Any], object] = print
) -> tuple[Resolved, Data, Params | None, Teacher | None]:
    """Reads an experiment's training images, its initial weights and its teacher.

    Args:
        experiment: any. Without `preprocessing` and `classes`, they come from the training images
            or with the weights.
        report: takes each change made to the head or to weights on the way.

    Returns:
        The resolved experiment, the training images, initial parameters (None for fresh ones), and
        the teacher (None if the experiment has none).

    Raises:
        ValueError: if the experiment does not fit its data, or its weights the model.
    """
    from_json(to_json(experiment))  # what could not be read again is not worth training
    require_gradients(experiment.model)
    data = load_data(require_data(experiment), 'train')
    total_steps(experiment, len(data))
    experiment = sized(experiment, data, report)
    size, model = experiment.augment.size, experiment.model
    outputs = model.num_classes
    if outputs < len(data.classes):
        raise ValueError(
            f'the head must have an output for each class: --model.num-classes {outputs}, '
            f'{require_data(experiment).name} has {len(data.classes)} classes.'
        )
    if experiment.loss == 'binary' and experiment.augment.smoothing:
        rule = "loss 'binary' counts every share of a label: augment.smoothing must be 0"
        raise ValueError(f'{rule}: {experiment.augment.smoothing}.')
    params, given = None, experiment.preprocessing
    if experiment.weights is not None:
        loaded = runs.load(experiment.weights, image_size=size, num_classes=outputs, report=report)
        # Weights go with the normalization that they were trained with.
        known, params = loaded.experiment.preprocessing, loaded.params
        given = dataclasses.replace(known, crop=given.crop if given else 1.0, squash=False)
        checkpoint.require_equal(experiment.weights, params, parameter_shapes(model, size))
        _require_settings(loaded, model, experiment.weights)
    elif given is None:
        mean, deviation = moments(data)
        given = Preprocessing(size, crop=1.0, mean=mean, deviation=deviation)
    # The training images decide about grey: a model that saw no colour keeps its initial weights
    # for it.
    prepared = dataclasses.replace(given, size=size, grey=is_grey(data))
    found = resolved(experiment, prepared, data.classes)
    return found, data, params, teacher(found, report)


def sized(
    experiment: Experiment, data: Data, report: Callable[[Any], object] = lambda line: None
) -> Experiment:
    """An experiment whose head has an output for each class of its data.

    Args:
        experiment: any; its head stays unless the data decide about it (`sized_by_data`).
        data: a split of its images.
        report: takes a line if the number of outputs changes.
    """
    model = experiment.model
    classes, known = len(data.classes), model.num_classes
    if known == classes or not sized_by_data(model):
        return experiment
    report(f"head: {classes:,} outputs, one for each class ({known:,} is the model's default)")
    return dataclasses.replace(experiment, model=model.clone(num_classes=classes))


def _require_settings(loaded: runs.Loaded, model: Module, path: str) -> None:
    """Refuses weights of a model with equal shapes and other arithmetic."""
    assumed = any(change.what == 'assumed' and ' heads' in change.text for change in loaded.changes)
    theirs, ours = vars(loaded.experiment.model), vars(model)
    for field in ('num_heads', 'norm_epsilon', 'position_grid'):
        known, asked = theirs.get(field), ours.get(field)
        if known != asked and not (assumed and field == 'num_heads'):
            raise ValueError(
                f'a model must compute what its weights are for: {path} has {field}={known}, '
                f'model.{field}={asked}.'
            )


def teacher(
    experiment: Prepared, report: Callable[[Any], object] = lambda line: None
) -> Teacher | None:
    """The teacher that an experiment names; None without one.

    Raises:
        ValueError: if it cannot be opened, or does not fit the student's classes or images.
    """
    path = experiment.distill.teacher
    if path is None:
        return None
    loaded = runs.load(path, image_size=experiment.augment.size, report=report)
    model, prepared = loaded.experiment.model, loaded.experiment.preprocessing
    ours, theirs = (m.num_classes for m in (experiment.model, model))
    if ours != theirs:
        rule = 'a teacher must have as many classes as its student'
        raise ValueError(f'{rule}: {path} has {theirs}, model.num_classes={ours}.')
    if prepared.grey and not experiment.preprocessing.grey:
        raise ValueError(
            f'a teacher of grey images cannot teach on images in colour: {path} has '
            'preprocessing.grey=true.'
        )
    return Teacher(model, (prepared.mean, prepared.deviation), loaded.params)


def total_steps(experiment: Experiment, count: int) -> int:
    """Number of training steps of an experiment on `count` images.

    Raises:
        ValueError: unless exactly one of `epochs` and `steps` is given, and is positive.
    """
    epochs, steps = experiment.epochs, experiment.steps
    if (epochs is None) == (steps is None):
        raise ValueError(f'give epochs or steps, one of them: {epochs=}, {steps=}.')
    per_epoch = steps_per_epoch(count, experiment.batch_size)
    total = steps if steps is not None else round((epochs or 0) * per_epoch)
    if total < 1:
        raise ValueError(f'a run must have at least one step: {epochs=}, {steps=}.')
    fields.check(total, Steps, f'the steps of {epochs} epochs')
    return total
