"""heads: every head of every layer removed, exactly, beside the gradients' estimate."""

import itertools

import numpy as np

from vitjax.analysis import effects
from vitjax.base.types import Array
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit
from vitjax.inside.path import Path
from vitjax.inside.sweep import sweep
from vitjax.studies.runner import Row, Runner, Study, summary, tabulate
from vitjax.studies.samples import Samples

KINDS = ('zero', 'mean')


def heads(runner: Runner) -> Study:
    """Effects of each head's output set to zero, and to its mean over the images, by stack.

    Arrays are `STACK_KIND_MEASURE` [layers, heads, images]; `STACK_KIND_estimate` is the
    first-order estimate of `answer`. Its size for zero, averaged over images, is
    `prune.head_importance`.

    Raises:
        ValueError: for a model without attention.
    """
    model, params, samples = runner.model, runner.params, runner.samples
    shapes = {path: s for path, s in runner.shapes.items() if path.endswith('attention/heads')}
    if not shapes:
        raise ValueError(f'{type(model).__name__} has no attention heads.')
    keep, held = '|'.join(shapes), 8.0 * sum(map(np.prod, shapes.values()))
    means = _means(runner, keep, held)

    def measure(rows: slice, batch: Samples) -> dict[str, Array]:
        images, out = batch.inputs, {}
        clean = capture.capture(model, params, images, keep='norm')
        found, grads = runner.gradients(images, keep)
        for (path, mean), kind in itertools.product(means.items(), KINDS):
            value = mean if kind == 'mean' else np.zeros_like(mean)
            one = np.eye(shapes[path][3], dtype=bool)[None, :, None, None, :, None]
            edit = Edit(one, value[:, None])
            swept = sweep(model, params, images, {path: edit}, keep='norm')
            estimate = effects.first_order(found[path], value, grads[path], over=(2, 4))
            measured = runner.effects(swept, clean, batch.labels)
            measured['estimate'] = np.asarray(estimate).swapaxes(1, 2)
            out |= {f'{Path(path).stack}_{kind}_{name}': x for name, x in measured.items()}
        return out

    arrays = runner.collect(measure, held)
    rows: list[Row] = []
    said: list[str] = []
    for path, kind in itertools.product(shapes, KINDS):
        stack = Path(path).stack
        prefix = f'{stack}_{kind}_'
        own = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
        rank = effects.rank_correlation(own['answer'], own['estimate'])
        if np.isfinite(rank):
            correlation = f'rank correlation of estimated and exact effects {rank:.2f}'
            said.append(f'{stack}, {kind}: {correlation}')
        keys = [
            {'stack': stack, 'kind': kind, 'layer': layer + 1, 'head': head + 1}
            for layer, head in np.ndindex(own['answer'].shape[:2])
        ]
        rows += tabulate(summary(own, runner.seed), keys)
    main, label = Path(next(iter(shapes))).stack, runner.label('answer')
    size, estimate = (
        np.abs(arrays[f'{main}_zero_{name}']).mean(-1) for name in ('answer', 'estimate')
    )
    figure = figures.heads(
        {kind: arrays[f'{main}_{kind}_answer'].mean(-1) for kind in KINDS}, size, estimate,
        measure=label, title=f'{main}, {samples.described()}',
    )  # fmt: skip
    policy = 'each head of each layer at all tokens: zero, or its mean over the images by token'
    return Study('heads', arrays, rows, figure, policy, runner.interval(arrays), tuple(said), label)


def _means(runner: Runner, keep: str, held: float) -> dict[str, np.ndarray]:
    """Outputs of the heads, mean over all images, by path: [layers, 1, tokens, heads, channels]."""
    means, count = {}, len(runner.samples)
    for _, batch in runner.batches(held):
        found = capture.capture(runner.model, runner.params, batch.inputs, keep=keep)[1]
        for path, heads in found.items():
            own = np.asarray(heads).sum(1, keepdims=True) / count
            means[path] = means.get(path, 0.0) + own
    return means
