"""knockout: the class token's attention to regions cut, layer by layer."""

import dataclasses

import numpy as np

from vitjax.analysis import tokens
from vitjax.base.types import Array
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit, intervene, renormalise
from vitjax.inside.sweep import sweep
from vitjax.studies import registers
from vitjax.studies.runner import Row, Runner, Study, summary, tabulate, turn
from vitjax.studies.samples import Samples


def knockout(
    runner: Runner, *, regions: int = 3, onward: bool = False, outliers: int = 8,
    aside: int | None = None,
) -> Study:  # fmt: skip
    """Effects of cutting the class token off from a region at a layer.

    Weights to the region's keys are zero, and the others are raised to sum to 1. Regions are the
    cells of a square grid over the image, then `all` patches, the `outliers` whose norms leaving
    the trunk are the largest (Darcet et al. 2024), and as many patches at `random`. Arrays are
    `MEASURE` [layers, regions, images], and `norms` of the patches [layers, images, patches].

    With `aside` the outliers are those leaving that layer. They are moved there to a register that
    was never trained (`studies.registers`), in every pass, and effects are measured against a pass
    with that move. The last region is then the register. `added` [images] is 1 - the cosine of the
    head's input to what it was without the register, `moved` the same with the move too.

    Args:
        runner: a model whose class token attends to patches, and the images.
        regions: cells of the grid each way.
        onward: cut at each layer and all after it, instead of at that layer alone.
        outliers: number of patches of the largest norm.
        aside: layer from 1 at which outliers are moved aside; None leaves them.

    Raises:
        ValueError: for a model without class attention, and counts beyond the patches or layers.
    """
    whole = runner
    if aside is not None:
        runner = dataclasses.replace(runner, loaded=registers.with_register(runner.loaded))
    grid = _grid(runner, regions, outliers, aside)
    names = [f'{row + 1},{column + 1}' for row, column in np.ndindex(regions, regions)]
    names += ['all', 'outliers', 'random'] + ['register'] * (aside is not None)
    model, params, trunk = runner.model, runner.params, runner.model.trunk
    stack = 'class_blocks' if trunk.class_tokens else 'blocks'
    path, blocks = f'{stack}/attention/weights', trunk.stacks['blocks']
    depth, _, _, queries, keys = runner.shapes[path]
    last = (aside or blocks) - 1  # the layer whose norms tell outliers
    fixed, rng = cells(grid, regions), np.random.default_rng(runner.seed)
    # The class token's row alone: in a trunk it is the first, in class attention there is no other.
    at_rows = np.ones(queries, bool) if trunk.class_tokens else np.arange(queries) == 0
    at_rows = at_rows.reshape(1, 1, 1, 1, -1, 1)

    def measure(rows: slice, batch: Samples) -> dict[str, Array]:
        images, always = batch.inputs, {}
        _, leaving = capture.capture(model, params, images, keep='norm|blocks')
        norms = np.asarray(tokens.norms(leaving['blocks'][:, :, trunk.prefix :]))
        largest, cut = _masks(norms[last], fixed, outliers, rng, keys)
        if aside is not None:
            always = {'blocks': registers.edit(last, blocks, trunk.prefix, largest)}
            register = np.arange(keys) == trunk.prefix - 1
            cut = np.concatenate([cut, np.broadcast_to(register, (1, *cut.shape[1:]))])
        clean = intervene(model, params, images, always, keep='norm')
        edit = Edit(at_rows, cut[None, :, :, None, None], renormalise)
        span = depth if onward else 1
        swept = sweep(model, params, images, {path: edit}, keep='norm', span=span, always=always)
        out: dict[str, Array] = {'norms': norms.swapaxes(1, 2)}
        out |= runner.effects(swept, clean, batch.labels)
        if aside is not None:
            before = capture.capture(whole.model, whole.params, images, keep='norm')[1]['norm']
            out |= {'added': turn(leaving['norm'], before), 'moved': turn(clean[1]['norm'], before)}
        return out

    arrays = runner.collect(measure, held=4.0 * np.prod(runner.shapes['blocks']))
    norms = arrays.pop('norms').swapaxes(1, 2)
    turned = {name: arrays.pop(name) for name in ('added', 'moved') if name in arrays}
    means = summary(arrays, runner.seed)
    table: list[Row] = [
        {'stack': stack, 'layer': layer + 1, 'region': name}
        for layer in range(depth)
        for name in names
    ]
    at = 'at a layer and all after it' if onward else 'at a layer alone'
    policy = f"{trunk.reader}'s weights to a region zero, the others renormalized, {at}"
    title, said = f'{stack}, cut {at}', _said(norms, last, outliers)
    if aside is not None:
        added, moved = (values.mean() for values in turned.values())
        policy += f'; the {outliers} patches of largest norm moved to a register at layer {aside}'
        title += f', outliers moved aside at layer {aside}'
        said.append(
            f"an empty register turns the head's input by {added:.2g} (1 - cosine), and the "
            f'{outliers} patches moved there at layer {aside} by {moved:.2g}'
        )
    main, interval = 'answer' if model.num_classes else 'token', runner.interval(arrays)
    figure = figures.regions(
        tuple(means[f'{main}{end}'] for end in ('', '_low', '_high')), names, regions,
        measure=runner.label(main), title=f'{title}; {runner.title(interval)}',
    )  # fmt: skip
    return Study(
        'knockout', {**arrays, **turned, 'norms': norms, 'regions': np.array(names)},
        tabulate(means, table), figure, policy, interval, tuple(said), runner.label('answer'),
    )  # fmt: skip


def _grid(runner: Runner, regions: int, outliers: int, aside: int | None) -> tuple[int, int]:
    """Rows and columns of patches, with the options checked against them."""
    model, trunk = runner.model, runner.model.trunk
    if not (trunk.class_token or trunk.class_tokens):
        own = f'that of this {type(model).__name__} reads {trunk.reads!r}'
        raise ValueError(f'knockout needs a head that reads a class token: {own}.')
    grid, blocks = trunk.grid(*runner.samples.inputs.shape[1:3]), trunk.stacks['blocks']
    count = grid[0] * grid[1]
    if not (1 <= regions <= min(grid) and 1 <= outliers < count):
        rule = f'regions must be 1 to {min(grid)} and outliers 1 to {count - 1}'
        raise ValueError(f'{rule}: got {regions}, {outliers}.')
    if aside is not None and not 1 <= aside <= blocks:
        raise ValueError(f'aside must be a layer, 1 to {blocks}: got {aside}.')
    return grid


def cells(grid: tuple[int, int], side: int) -> np.ndarray:
    """Masks over the patches: `side` x `side` cells row by row, then all, [side² + 1, patches]."""
    y, x = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    cell = y * side // grid[0] * side + x * side // grid[1]
    return np.concatenate([cell == np.arange(side**2)[:, None], np.ones((1, len(cell)), bool)])


def _masks(
    norms: np.ndarray, fixed: np.ndarray, outliers: int, rng: np.random.Generator, keys: int
) -> tuple[np.ndarray, np.ndarray]:
    """Patches of the largest norms [images, patches], and all regions' keys.

    Those are [regions, images, keys]: the `fixed` regions, the outliers, and as many at random.
    """
    largest = _ranks(norms) >= norms.shape[1] - outliers
    drawn = _ranks(rng.random(norms.shape)) < outliers
    regions = np.concatenate([np.repeat(fixed[:, None], len(norms), 1), [largest, drawn]])
    return largest, np.pad(regions, ((0, 0), (0, 0), (keys - norms.shape[1], 0)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value in its row, the smallest 0."""
    return values.argsort(1).argsort(1)


def _said(norms: np.ndarray, layer: int, outliers: int) -> list[str]:
    """Lines on how far the norms [layers, images, patches] of outliers stand out."""
    middle = np.median(norms, 2)
    most = np.sort(norms[layer], 1)[:, -outliers:].mean() / middle[layer].mean()
    beyond = (norms > 2 * middle[:, :, None]).sum((1, 2))
    return [
        f'norms of the {outliers} largest of {norms.shape[2]} patches: {most:.1f} times the median',
        f'patches beyond twice the median norm, by layer: {" ".join(map(str, beyond))}',
    ]
