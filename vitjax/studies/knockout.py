"""knockout: what the class token may look at cut, layer by layer."""

import numpy as np

from vitjax.analysis import effects, tokens
from vitjax.base.types import Module
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit, intervene, renormalise
from vitjax.inside.sweep import sweep
from vitjax.runs import Loaded
from vitjax.studies import aside as moving
from vitjax.studies.common import Report, Samples, Study, batches, label, measured, said_of, summary


def knockout(
    loaded: Loaded, given: Samples, *, regions: int = 3, onward: bool = False, outliers: int = 8,
    aside: int | None = None, memory: float = 3.0, seed: int = 0,
    report: Report = lambda done: None,
) -> Study:  # fmt: skip
    """How far the answer falls when the class token cannot attend to a region at a layer.

    Weights to the region's keys are zero and the others' raised to sum to 1. Regions are the cells
    of a square grid over the image, then `all` patches, the `outliers` whose norms leaving the
    trunk are the largest (Darcet et al. 2024), and as many patches at `random`. Arrays are
    `MEASURE` [layers, regions, images].

    With `aside` the outliers are those leaving that layer, and are moved there to a register that
    was never trained, as `studies.aside` says, in every pass and in what effects are measured
    against; `added` [images] is 1 - the cosine of what the head reads to what it was with that
    register alone, `moved` with the move, and the last region is the register. `norms` are of the
    patches, [layers, images, patches].

    Args:
        loaded: a model whose class token attends to patches.
        given: the images.
        regions: cells of the grid each way.
        onward: cut at each layer and all after it, instead of at that layer alone.
        outliers: patches of the largest norm.
        aside: layer from 1 where outliers are moved aside; None leaves them.
        memory: gigabytes that a pass may take.
        seed: of the random patches and the bootstrap.
        report: takes how many images are done.

    Raises:
        ValueError: for a model without class attention, and counts beyond the patches there are.
    """
    whole = loaded
    loaded = loaded if aside is None else moving.with_register(loaded)
    model: Module = loaded.experiment.model
    trunk, params, inputs = model.trunk, loaded.params, given.inputs
    if not (trunk.class_token or trunk.class_tokens):
        raise ValueError(f'{type(model).__name__} has no class token whose attention could be cut.')
    stack = 'class_blocks' if trunk.class_tokens else 'blocks'
    path = f'{stack}/attention/weights'
    depth, _, _, queries, keys = capture.paths(model, inputs[:1])[path]
    grid = trunk.grid(*inputs.shape[1:3])
    count = grid[0] * grid[1]
    if not (1 <= regions <= min(grid) and 1 <= outliers < count):
        raise ValueError(
            f'regions must be 1 to {min(grid)} and outliers 1 to {count - 1}: '
            f'got {regions}, {outliers}.'
        )
    blocks = trunk.stacks['blocks']
    if aside is not None and not 1 <= aside <= blocks:
        raise ValueError(f'aside must be a layer, 1 to {blocks}: got {aside}.')
    last = (aside or blocks) - 1
    y, x = np.divmod(np.arange(count), grid[1])
    cell = y * regions // grid[0] * regions + x * regions // grid[1]
    fixed = np.concatenate([cell == np.arange(regions**2)[:, None], np.ones((1, count), bool)])
    names = [f'{i // regions + 1},{i % regions + 1}' for i in range(regions**2)]
    names += ['all', 'outliers', 'random'] + ['register'] * (aside is not None)
    # The class token's row alone: in a trunk it is the first, in class attention there is no other.
    rows_cut = np.ones(queries, bool) if trunk.class_tokens else np.arange(queries) == 0
    rng, parts, norms = np.random.default_rng(seed), {}, []
    held = 4.0 * np.prod(capture.paths(model, inputs[:1])['blocks'])
    for rows in batches(model, given, memory, report, held=held):
        images, labels = inputs[rows], None if given.labels is None else given.labels[rows]
        empty, leaving = capture.capture(model, params, images, keep='norm|blocks')
        norms.append(np.asarray(tokens.norms(leaving['blocks'][:, :, trunk.prefix :])))
        largest = norms[-1][last].argsort(1).argsort(1) >= count - outliers
        drawn = rng.random(largest.shape).argsort(1).argsort(1) < outliers
        own = np.concatenate([np.repeat(fixed[:, None], len(images), 1), [largest, drawn]])
        cut = np.pad(own, ((0, 0), (0, 0), (keys - count, 0)))
        always = {}
        if aside is not None:
            always = {'blocks': moving.edit(last, blocks, trunk.prefix, largest)}
            register = np.arange(keys) == trunk.prefix - 1
            cut = np.concatenate([cut, np.broadcast_to(register, (1, len(images), keys))])
        clean = intervene(model, params, images, always, keep='norm')
        if aside is not None:
            before = capture.capture(whole.experiment.model, whole.params, images, keep='norm')
            for name, after in (('added', (empty, leaving)), ('moved', clean)):
                turn = measured(*after, before, None, model.num_classes > 0)['token']
                parts.setdefault(name, []).append(turn)
        cut = cut[None, :, :, None, None, :]
        where = rows_cut[None, None, None, None, :, None]
        swept = sweep(
            model, params, images, {path: Edit(where, cut, renormalise)}, keep='norm',
            span=depth if onward else 1, always=always,
        )  # fmt: skip
        for name, array in measured(*swept, clean, labels, model.num_classes > 0).items():
            parts.setdefault(name, []).append(array)
    arrays = {name: np.concatenate(values, -1) for name, values in parts.items()}
    extra = {name: arrays.pop(name) for name in ('added', 'moved') if name in arrays}
    table = summary(arrays, seed)
    lines = [
        {'stack': stack, 'layer': layer + 1, 'region': names[region],
         **{name: float(value[layer, region]) for name, value in table.items()}}
        for layer, region in np.ndindex(arrays['answer'].shape[:2])
    ]  # fmt: skip
    span = 'and all after it' if onward else 'alone'
    measure = 'answer' if model.num_classes else 'token'
    moves = '' if aside is None else f', outliers moved aside at layer {aside}'
    interval = effects.over_images(len(inputs))
    triple = tuple(table[f'{measure}{end}'] for end in ('', '_low', '_high'))
    figure = figures.regions(
        triple,
        names,
        regions,
        measure=label(measure, model.num_classes > 0),
        title=f'{stack}, cut at a layer {span}{moves}; {said_of(given, interval)}',
    )
    policy = f"class token's weights to a region zero, the others renormalised, at a layer {span}"
    share = np.concatenate(norms, 1)  # [layers, images, patches]
    middle = np.median(share, 2)
    most = np.sort(share[last], 1)[:, -outliers:].mean() / middle[last].mean()
    beyond = (share > 2 * middle[:, :, None]).sum((1, 2))
    said = (
        f'norms of the {outliers} largest of {count} patches: {most:.1f} times the median',
        f'patches beyond twice the median norm, by layer: {" ".join(map(str, beyond))}',
    )
    if aside is not None:
        added, moved = (extra[name].mean() for name in ('added', 'moved'))
        policy += f'; the {outliers} patches of largest norm moved to a register at layer {aside}'
        said += (
            f'an empty register turns what the head reads by {added:.2g} (1 - cosine), and the '
            f'{outliers} patches moved there at layer {aside} by {moved:.2g}',
        )
    extra |= {'norms': share, 'regions': np.array(names)}
    return Study(
        'knockout',
        {**arrays, **extra},
        lines,
        figure,
        policy,
        interval,
        said,
        label('answer', model.num_classes > 0),
    )
