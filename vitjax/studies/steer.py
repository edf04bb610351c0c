"""steer: the difference of two classes' means added at a layer, and the predictions it moves."""

import dataclasses

import numpy as np

from vitjax.base.types import Array
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit, add
from vitjax.inside.sweep import sweep
from vitjax.studies.runner import Runner, Study, summary, tabulate
from vitjax.studies.samples import Samples

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)


def steer(
    runner: Runner, *, fitted: Samples, source: int, toward: int,
    strengths: tuple[float, ...] = STRENGTHS,
) -> Study:  # fmt: skip
    """Fraction of one class's images predicted as another if a direction is added at a layer.

    The direction is the mean token of class `toward` minus that of `source` as they leave the
    block. The tokens are class tokens if the trunk has them, else its patches; the direction is
    added to those. `moved` and `margin` (logit of `toward` minus that of `source`) are
    [layers, strengths, images of `source`].

    Args:
        runner: a model with classes and a stack `blocks`, and labelled images, of which those of
            `source` are steered.
        fitted: other labelled images, from which directions are made.
        source: class from 0.
        toward: another class.
        strengths: factors of the direction.

    Raises:
        ValueError: for images without labels or without those classes, and equal classes.
    """
    model, params, given = runner.model, runner.params, runner.samples
    capture.require_blocks(model)
    if fitted.labels is None or given.labels is None:
        raise ValueError('steering needs images with labels of the classes of the model: --data.')
    if source == toward:
        raise ValueError(f'--source and --toward must be different classes: both are {source}.')
    chosen = slice(0, 1) if model.trunk.class_token else slice(model.trunk.prefix, None)
    means = []
    for index in (toward, source):
        own = fitted.take(fitted.labels == index)
        if not len(own) or index not in given.labels:
            raise ValueError(f'there are no images of class {index} among them.')
        means.append(_mean(dataclasses.replace(runner, samples=own), chosen))
    direction = means[0] - means[1]  # [layers, channels]
    runner = dataclasses.replace(runner, samples=given.take(given.labels == source))
    where = np.zeros(runner.shapes['blocks'][2], bool)
    where[chosen] = True
    value = np.multiply.outer(np.array(strengths, np.float32), direction).swapaxes(0, 1)
    edit = Edit(where[None, None, None, :, None], value[:, :, None, None], add)

    def measure(rows: slice, batch: Samples) -> dict[str, Array]:
        logits = sweep(model, params, batch.inputs, {'blocks': edit})[0]
        moved = np.asarray(logits.argmax(-1) == toward) * 1.0
        return {'moved': moved, 'margin': logits[..., toward] - logits[..., source]}

    arrays = runner.collect(measure)
    table = summary(arrays, runner.seed)
    keys = [
        {'layer': layer + 1, 'strength': float(strengths[i])}
        for layer, i in np.ndindex(arrays['moved'].shape[:2])
    ]
    of, to = (runner.loaded.experiment.classes[i] for i in (source, toward))
    figure = figures.steering(
        table['moved'], table['moved_low'], table['moved_high'], strengths, toward=to,
        title=f'{of} to {to}: {runner.title(runner.interval(["moved"]))}',
    )  # fmt: skip
    at = 'the class token' if model.trunk.class_token else 'all patches'
    return Study(
        'steer', {**arrays, 'direction': direction, 'strengths': np.array(strengths)},
        tabulate(table, keys), figure,
        f'mean of {to} minus mean of {of}, times a strength, added to {at}',
        runner.interval(arrays), measure=f'predicted as {to}',
    )  # fmt: skip


def _mean(runner: Runner, chosen: slice) -> np.ndarray:
    """The chosen tokens' mean over tokens and images as they leave each block, [L, D]."""
    total = 0.0
    for _, batch in runner.batches():
        found = capture.capture(runner.model, runner.params, batch.inputs, keep='blocks')[1]
        total = total + np.asarray(found['blocks'][:, :, chosen]).mean(2).sum(1)
    return np.asarray(total / len(runner.samples))
