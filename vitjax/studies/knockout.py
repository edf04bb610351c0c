"""knockout: what the class token may look at cut, layer by layer."""

import numpy as np

from vitjax import capture
from vitjax.analysis import tokens
from vitjax.figures import interventions as figures
from vitjax.intervene import Edit, renormalise, sweep
from vitjax.runs import Loaded
from vitjax.studies.common import Report, Samples, Study, batches, label, measured, summary
from vitjax.types import Module


def knockout(
    loaded: Loaded, given: Samples, *, regions: int = 3, onward: bool = False, outliers: int = 8,
    memory: float = 3.0, seed: int = 0, report: Report = lambda done: None,
) -> Study:  # fmt: skip
    """How far the answer falls when the class token cannot attend to a region at a layer.

    Weights to the region's keys are zero and the others' raised to sum to 1. Regions are the cells
    of a square grid over the image, then `all` patches, the `outliers` whose norms leaving the
    trunk are the largest (Darcet et al. 2024), and as many patches at `random`. Arrays are
    `MEASURE` [layers, regions, images].

    Args:
        loaded: a model whose class token attends to patches.
        given: the images.
        regions: cells of the grid each way.
        onward: cut at each layer and all after it, instead of at that layer alone.
        outliers: patches of the largest norm.
        memory: gigabytes that a pass may take.
        seed: of the random patches and the bootstrap.
        report: takes how many images are done.

    Raises:
        ValueError: for a model without class attention, and counts beyond the patches there are.
    """
    model: Module = loaded.experiment.model
    trunk, params, inputs = model.trunk, loaded.params, given.inputs
    if not (trunk.class_token or trunk.class_tokens):
        raise ValueError(f'{type(model).__name__} has no class token whose attention could be cut.')
    stack = 'class_blocks' if trunk.class_tokens else 'blocks'
    path = f'{stack}/attention/weights'
    depth, _, _, queries, keys = capture.known_paths(model, inputs[:1])[path]
    grid = trunk.grid(*inputs.shape[1:3])
    count = grid[0] * grid[1]
    if not (1 <= regions <= min(grid) and 1 <= outliers < count):
        raise ValueError(
            f'regions must be 1 to {min(grid)} and outliers 1 to {count - 1}: '
            f'got {regions}, {outliers}.'
        )
    y, x = np.divmod(np.arange(count), grid[1])
    cell = y * regions // grid[0] * regions + x * regions // grid[1]
    fixed = np.concatenate([cell == np.arange(regions**2)[:, None], np.ones((1, count), bool)])
    names = [f'{i // regions + 1},{i % regions + 1}' for i in range(regions**2)]
    names += ['all', 'outliers', 'random']
    # The class token's row alone: in a trunk it is the first, in class attention there is no other.
    rows_cut = np.ones(queries, bool) if trunk.class_tokens else np.arange(queries) == 0
    rng, parts, norms = np.random.default_rng(seed), {}, []
    for rows in batches(model, given, memory, report):
        images, labels = inputs[rows], None if given.labels is None else given.labels[rows]
        last = model.trunk.stacks['blocks'] - 1
        clean = capture.capture(model, params, images, keep='norm')
        leaving = capture.capture(model, params, images, keep='blocks', layers=[last])[1]['blocks']
        length = np.asarray(tokens.norms(leaving[0][:, trunk.prefix :]))
        norms.append(length)
        largest = length.argsort(1).argsort(1) >= count - outliers
        drawn = rng.random(length.shape).argsort(1).argsort(1) < outliers
        own = np.concatenate([np.repeat(fixed[:, None], len(images), 1), [largest, drawn]])
        cut = np.pad(own, ((0, 0), (0, 0), (keys - count, 0)))[None, :, :, None, None, :]
        where = rows_cut[None, None, None, None, :, None]
        swept = sweep(
            model, params, images, {path: Edit(where, cut, renormalise)}, keep='norm',
            span=depth if onward else 1,
        )  # fmt: skip
        for name, array in measured(*swept, clean, labels, model.num_classes > 0).items():
            parts.setdefault(name, []).append(array)
    arrays = {name: np.concatenate(values, -1) for name, values in parts.items()}
    table = summary(arrays, seed)
    lines = [
        {'stack': stack, 'layer': layer + 1, 'region': names[region],
         **{name: float(value[layer, region]) for name, value in table.items()}}
        for layer, region in np.ndindex(arrays['answer'].shape[:2])
    ]  # fmt: skip
    span = 'and all after it' if onward else 'alone'
    measure = 'answer' if model.num_classes else 'token'
    triple = tuple(table[f'{measure}{end}'] for end in ('', '_low', '_high'))
    figure = figures.regions(
        triple,
        names,
        regions,
        measure=label(measure, model.num_classes > 0),
        title=f'{stack}, cut at a layer {span}; {len(inputs)} images ({given.source})',
    )
    policy = f"class token's weights to a region zero, the others renormalised, at a layer {span}"
    share = np.concatenate(norms)
    most = np.sort(share, 1)[:, -outliers:].mean() / np.median(share)
    said = (f'norms of the {outliers} largest of {count} patches: {most:.1f} times the median',)
    extra = {'norms': share, 'regions': np.array(names)}
    return Study(
        'knockout',
        {**arrays, **extra},
        lines,
        figure,
        policy,
        said,
        label('answer', model.num_classes > 0),
    )
