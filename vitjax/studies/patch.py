"""patch: activations of another image put in, place by place and layer by layer."""

import numpy as np

from vitjax.analysis import effects
from vitjax.base.types import Array
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.intervene import Edit
from vitjax.inside.sweep import sweep
from vitjax.models.base import Model
from vitjax.studies.runner import Runner, Study, summary, tabulate
from vitjax.studies.samples import Samples


def patch(runner: Runner, *, region: int = 1, noise: float | None = None) -> Study:
    """Effects of replacing the tokens that leave a layer by another image's.

    The other image of each is the next one (the first one's for the last), or itself with noise.
    Arrays are `MEASURE` [layers, places, images] and `estimate`, the first-order estimate of
    `answer`; places are the prefix tokens, then squares of patches row by row.

    Args:
        runner: a model with a stack `blocks`, and the images.
        region: side in patches of the squares that are put in.
        noise: deviation of noise on normalised pixels; None takes the other images instead.

    Raises:
        ValueError: for one image without noise, a model without blocks, and squares beyond the
            grid.
    """
    model, params, inputs = runner.model, runner.params, runner.samples.inputs
    capture.require_blocks(model)
    if noise is None and len(inputs) < 2:
        raise ValueError('patching takes two images or more, or --noise: got one.')
    others = np.roll(inputs, -1, 0)
    if noise is not None:
        drawn = np.random.default_rng(runner.seed).normal(size=inputs.shape)
        others = (inputs + noise * drawn).astype(np.float32)
    masks, shape = squares(model, inputs, region)

    def measure(rows: slice, batch: Samples) -> dict[str, Array]:
        clean = capture.capture(model, params, batch.inputs, keep='norm')
        found, grads = runner.gradients(batch.inputs, 'blocks')
        other = capture.capture(model, params, others[rows], keep='blocks')[1]['blocks']
        edit = Edit(masks[None, :, None, :, None], other[:, None])
        swept = sweep(model, params, batch.inputs, {'blocks': edit}, keep='norm')
        token = effects.first_order(found['blocks'], other, grads['blocks'], over=(3,))
        estimate = np.einsum('lbn,pn->lpb', token, masks)
        return {**runner.effects(swept, clean, batch.labels), 'estimate': estimate}

    arrays = runner.collect(measure, held=16.0 * np.prod(runner.shapes['blocks']))
    exact, estimate = arrays['answer'], arrays['estimate']
    prefix, label = model.trunk.prefix, runner.label('answer')
    keys = [
        {'layer': layer + 1, 'place': name_of(place, prefix, shape)}
        for layer, place in np.ndindex(exact.shape[:2])
    ]
    figure = figures.places(
        exact.mean(-1), estimate.mean(-1), prefix, shape, measure=label,
        title=runner.samples.described(),
    )  # fmt: skip
    by = 'the next image' if noise is None else f'the image with noise of deviation {noise:g}'
    policy = f'tokens leaving each block replaced by those of {by}, {region}x{region} patches'
    rank = effects.rank_correlation(exact, estimate)
    said = (f'rank correlation of estimated and exact effects {rank:.2f}',)
    said = said if np.isfinite(rank) else ()  # fewer than three places, or all alike
    rows, interval = tabulate(summary(arrays, runner.seed), keys), runner.interval(arrays)
    return Study('patch', {**arrays, 'masks': masks}, rows, figure, policy, interval, said, label)


def squares(model: Model, images: np.ndarray, side: int) -> tuple[np.ndarray, tuple[int, int]]:
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
    """Name of a place: `token 1`, or row and column from 1."""
    if place < prefix:
        return f'token {place + 1}'
    row, column = divmod(place - prefix, shape[1])
    return f'{row + 1},{column + 1}'
