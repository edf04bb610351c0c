"""heads: every head of every layer taken away, exactly, beside what gradients estimate."""

import numpy as np

from vitjax.analysis import effects
from vitjax.base.types import Module
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit
from vitjax.inside.path import Path
from vitjax.inside.sweep import sweep
from vitjax.runs import Loaded
from vitjax.studies.common import (
    Report,
    Samples,
    Study,
    batches,
    frugal,
    goal,
    label,
    measured,
    summary,
)


def heads(
    loaded: Loaded, given: Samples, *, memory: float = 3.0, seed: int = 0,
    report: Report = lambda done: None,
) -> Study:  # fmt: skip
    """Effects of each head's output set to zero, and to its mean over the images, by stack.

    Arrays are `STACK_KIND_MEASURE` [layers, heads, images], `STACK_KIND_estimate` the first-order
    estimate of `answer` (for zero its size averaged over images is `prune.head_importance`).

    Args:
        loaded: a model with attention.
        given: the images.
        memory: gigabytes that a pass may take.
        seed: of the bootstrap.
        report: takes how many image passes are done, of twice the images.

    Raises:
        ValueError: for a model without attention.
    """
    model: Module = loaded.experiment.model
    params, count = loaded.params, len(given.inputs)
    known = capture.paths(model, given.inputs[:1])
    paths = [path for path in known if path.endswith('attention/heads')]
    if not paths:
        raise ValueError(f'{type(model).__name__} has no attention heads.')
    keep = '|'.join(paths)
    mean = {path: 0.0 for path in paths}
    held = 8.0 * sum(np.prod(known[path]) for path in paths)
    for rows in batches(model, given, memory, report, held=held):
        found = capture.capture(model, params, given.inputs[rows], keep=keep)[1]
        for path in paths:
            mean[path] = mean[path] + np.asarray(found[path]).sum(1, keepdims=True) / count
    parts: dict[str, list[np.ndarray]] = {}
    for rows in batches(model, given, memory, lambda done: report(count + done), held=held):
        images = given.inputs[rows]
        labels = None if given.labels is None else given.labels[rows]
        clean = capture.capture(model, params, images, keep='norm')
        _, found, grads = capture.gradients(frugal(model), params, images, goal(model), keep=keep)
        for path in paths:
            stack, one = Path(path).stack, np.eye(known[path][3], dtype=bool)
            where = one[None, :, None, None, :, None]
            average = np.asarray(mean[path])
            for kind, value in (('zero', np.zeros_like(average)), ('mean', average)):
                edit = Edit(where, value[:, None])
                swept = sweep(model, params, images, {path: edit}, keep='norm')
                effect = measured(*swept, clean, labels, model.num_classes > 0)
                estimate = effects.first_order(found[path], value, grads[path], over=(2, 4))
                effect['estimate'] = np.asarray(estimate).swapaxes(1, 2)
                for name, array in effect.items():
                    parts.setdefault(f'{stack}_{kind}_{name}', []).append(array)
    arrays = {name: np.concatenate(values, -1) for name, values in parts.items()}
    rows, said = [], []
    for path in paths:
        stack = Path(path).stack
        for kind in ('zero', 'mean'):
            own = {
                name.removeprefix(f'{stack}_{kind}_'): array
                for name, array in arrays.items()
                if name.startswith(f'{stack}_{kind}_')
            }
            rank = effects.rank_correlation(own['answer'], own['estimate'])
            if np.isfinite(rank):
                said.append(
                    f'{stack}, {kind}: rank correlation of estimated and exact effects {rank:.2f}'
                )
            table = summary(own, seed)
            for layer, head in np.ndindex(own['answer'].shape[:2]):
                cells = {name: float(value[layer, head]) for name, value in table.items()}
                rows.append(
                    {'stack': stack, 'kind': kind, 'layer': layer + 1, 'head': head + 1, **cells}
                )
    main = Path(paths[0]).stack
    measure = label('answer', model.num_classes > 0)
    figure = figures.heads(
        {k: arrays[f'{main}_{k}_answer'].mean(-1) for k in ('zero', 'mean')},
        np.abs(arrays[f'{main}_zero_answer']).mean(-1),
        np.abs(arrays[f'{main}_zero_estimate']).mean(-1),
        measure=measure,
        title=f'{main}, {count} images ({given.source})',
    )
    policy = 'each head of each layer at all tokens: zero, or its mean over the images by token'
    interval = effects.over_images(count)
    return Study('heads', arrays, rows, figure, policy, interval, tuple(said), measure)
