"""steer: the difference of two classes' means added at a layer, and how far answers move."""

import numpy as np

from vitjax.base.types import Module
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit, add
from vitjax.inside.sweep import sweep
from vitjax.runs import Loaded
from vitjax.studies.common import Report, Samples, Study, batches, interval_of, said_of, summary

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def steer(
    loaded: Loaded, fitted: Samples, given: Samples, *, source: int, toward: int,
    strengths: tuple[float, ...] = STRENGTHS, memory: float = 3.0, seed: int = 0,
    report: Report = lambda done: None,
) -> Study:  # fmt: skip
    """How many images of one class are answered as another when a direction is added at a layer.

    The direction is the mean token of class `toward` minus that of `source` where it leaves the
    block, of the class token where the trunk has one, else over its patches, and it is added to
    those tokens. `moved` and `margin` (logit of `toward` minus that of `source`) are
    [layers, strengths, images of `source`].

    Args:
        loaded: a model with classes and a stack `blocks`.
        fitted: labelled images that directions are made of.
        given: other labelled images, of which those of `source` are steered.
        source: class from 0.
        toward: another.
        strengths: what directions are multiplied by.
        memory: gigabytes that a pass may take.
        seed: of the bootstrap.
        report: takes how many images are done.

    Raises:
        ValueError: for images without labels or without those classes, and equal classes.
    """
    model: Module = loaded.experiment.model
    capture.require_blocks(model)
    if fitted.labels is None or given.labels is None:
        raise ValueError('steering needs images with labels of the classes of the model: --data.')
    if source == toward:
        raise ValueError(f'--source and --toward must be different classes: both are {source}.')
    chosen = slice(0, 1) if model.trunk.class_token else slice(model.trunk.prefix, None)
    means = []
    for index in (toward, source):
        own = fitted.take(fitted.labels == index)
        steered = given.take(given.labels == index)
        if not len(own.inputs) or not len(steered.inputs):
            raise ValueError(f'there are no images of class {index} among them.')
        total = 0.0
        for rows in batches(model, own, memory, lambda done: None):
            found = capture.capture(model, loaded.params, own.inputs[rows], keep='blocks')[1]
            total = total + np.asarray(found['blocks'][:, :, chosen]).mean(2).sum(1)
        means.append(total / len(own.inputs))
    direction = np.asarray(means[0] - means[1])  # [layers, channels]
    given = given.take(given.labels == source)
    count = capture.paths(model, given.inputs[:1])['blocks'][2]
    where = np.zeros(count, bool)
    where[chosen] = True
    value = np.multiply.outer(np.array(strengths, np.float32), direction).swapaxes(0, 1)
    edit = Edit(where[None, None, None, :, None], value[:, :, None, None], add)
    moved, margin = [], []
    for rows in batches(model, given, memory, report):
        logits = sweep(model, loaded.params, given.inputs[rows], {'blocks': edit})[0]
        moved.append(np.asarray(logits.argmax(-1) == toward))
        margin.append(np.asarray(logits[..., toward] - logits[..., source]))
    arrays = {'moved': np.concatenate(moved, -1) * 1.0, 'margin': np.concatenate(margin, -1)}
    table = summary(arrays, seed)
    lines = [
        {'layer': layer + 1, 'strength': float(strengths[i]),
         **{name: float(column[layer, i]) for name, column in table.items()}}
        for layer, i in np.ndindex(arrays['moved'].shape[:2])
    ]  # fmt: skip
    named = [loaded.experiment.classes[i] for i in (source, toward)]
    figure = figures.steering(
        table['moved'],
        table['moved_low'],
        table['moved_high'],
        strengths,
        toward=named[1],
        title=f'{named[0]} to {named[1]}: '
        + said_of(given, interval_of(['moved'], len(given.inputs))),
    )
    at = 'the class token' if model.trunk.class_token else 'all patches'
    policy = f'mean of {named[1]} minus mean of {named[0]}, times a strength, added to {at}'
    extra = {'direction': direction, 'strengths': np.array(strengths)}
    measure = f'answered as {named[1]}'
    interval = interval_of([*arrays], len(given.inputs))
    return Study('steer', {**arrays, **extra}, lines, figure, policy, interval, measure=measure)
