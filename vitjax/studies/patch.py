"""patch: activations of another image put in, place by place and layer by layer."""

import numpy as np

from vitjax.analysis import effects
from vitjax.base.types import Module
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit
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


def patch(
    loaded: Loaded, given: Samples, *, region: int = 1, noise: float | None = None,
    memory: float = 3.0, seed: int = 0, report: Report = lambda done: None,
) -> Study:  # fmt: skip
    """How far the answer falls when tokens that leave a layer are another image's.

    The other image of each is the next one (the first one's for the last), or itself with noise.
    Arrays are `MEASURE` [layers, places, images] and `estimate`, the first-order estimate of
    `answer`; places are the prefix tokens, then squares of patches row by row.

    Args:
        loaded: a model with a stack `blocks`.
        given: the images.
        region: side in patches of the squares that are put in.
        noise: deviation of noise on normalised pixels; None takes the other images instead.
        memory: gigabytes that a pass may take.
        seed: of noise and bootstrap.
        report: takes how many images are done.

    Raises:
        ValueError: for one image without noise, and a model without blocks.
    """
    model: Module = loaded.experiment.model
    capture.require_blocks(model)
    inputs, params = given.inputs, loaded.params
    if noise is None and len(inputs) < 2:
        raise ValueError('patching takes two images or more, or --noise: got one.')
    others = np.roll(inputs, -1, 0)
    if noise is not None:
        drawn = np.random.default_rng(seed).normal(size=inputs.shape)
        others = (inputs + noise * drawn).astype(np.float32)
    masks, shape = squares(model, inputs, region)
    parts: dict[str, list[np.ndarray]] = {}
    held = 16.0 * np.prod(capture.paths(model, inputs[:1])['blocks'])
    for rows in batches(model, given, memory, report, held=held):
        images, labels = inputs[rows], None if given.labels is None else given.labels[rows]
        clean = capture.capture(model, params, images, keep='norm')
        _, found, grads = capture.gradients(
            frugal(model), params, images, goal(model), keep='blocks'
        )
        other = capture.capture(model, params, others[rows], keep='blocks')[1]['blocks']
        edit = Edit(masks[None, :, None, :, None], other[:, None])
        swept = sweep(model, params, images, {'blocks': edit}, keep='norm')
        effect = measured(*swept, clean, labels, model.num_classes > 0)
        token = effects.first_order(found['blocks'], other, grads['blocks'], over=(3,))
        effect['estimate'] = np.einsum('lbn,pn->lpb', token, masks)
        for name, array in effect.items():
            parts.setdefault(name, []).append(array)
    arrays = {name: np.concatenate(values, -1) for name, values in parts.items()}
    table = summary(arrays, seed)
    prefix = len(masks) - shape[0] * shape[1]
    rows = [
        {'layer': layer + 1, 'place': name_of(place, prefix, shape),
         **{name: float(value[layer, place]) for name, value in table.items()}}
        for layer, place in np.ndindex(arrays['answer'].shape[:2])
    ]  # fmt: skip
    measure = label('answer', model.num_classes > 0)
    figure = figures.places(
        arrays['answer'].mean(-1),
        arrays['estimate'].mean(-1),
        prefix,
        shape,
        measure=measure,
        title=f'{len(inputs)} images ({given.source})',
    )
    by = 'the next image' if noise is None else f'the image with noise of deviation {noise:g}'
    policy = f'tokens leaving each block replaced by those of {by}, {region}x{region} patches'
    rank = effects.rank_correlation(arrays['answer'], arrays['estimate'])
    said = (f'rank correlation of estimated and exact effects {rank:.2f}',)
    said = said if np.isfinite(rank) else ()  # fewer than three places, or all alike
    interval = effects.over_images(len(inputs))
    return Study('patch', {**arrays, 'masks': masks}, rows, figure, policy, interval, said, measure)


def squares(model: Module, images: np.ndarray, side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Places as masks over the trunk's tokens [places, N], and rows and columns of squares.

    Raises:
        ValueError: for a side below 1 or beyond the grid.
    """
    grid, prefix = model.trunk.grid(*images.shape[1:3]), model.trunk.prefix
    if not 1 <= side <= min(grid):
        raise ValueError(f'region must be 1 to {min(grid)} patches: got {side}.')
    rows, columns = (-(-n // side) for n in grid)
    y, x = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    own = y // side * columns + x // side == np.arange(rows * columns)[:, None]
    first = np.eye(prefix, prefix + own.shape[1], dtype=bool)
    return np.concatenate([first, np.pad(own, ((0, 0), (prefix, 0)))]), (rows, columns)


def name_of(place: int, prefix: int, shape: tuple[int, int]) -> str:
    """A place in words: `token 1`, or row and column from 1."""
    if place < prefix:
        return f'token {place + 1}'
    row, column = divmod(place - prefix, shape[1])
    return f'{row + 1},{column + 1}'
