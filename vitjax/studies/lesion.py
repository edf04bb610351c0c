"""lesion: accuracy with layers skipped, swapped or repeated (Veit et al. 2016)."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis import effects
from vitjax.base.types import Array, Params
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.models.base import Model
from vitjax.studies.runner import FRACTIONS, Row, Runner, Study, summary, tabulate, turn
from vitjax.studies.samples import Samples


def reordered(model: Model, params: Params, images: Array, orders: Array) -> jax.Array:
    """Logits [orders, B, classes] with the trunk's blocks run in other orders.

    Args:
        model: a model of `vitjax.models` with `blocks`.
        params: its parameters.
        images: normalised images.
        orders: int [orders, steps], layers from 0; -1 runs none at that step.

    Raises:
        ValueError: for a model without blocks, and layers that it does not have.
    """
    capture.require_blocks(model)
    depth, orders = model.trunk.stacks['blocks'], np.asarray(orders)
    if orders.min() < -1 or orders.max() >= depth:
        raise ValueError(f'layers of blocks are 0 to {depth - 1}, or -1: got {orders.tolist()}.')
    explicit = capture.with_explicit_attention(model)
    return _reordered(explicit, params, images, jnp.asarray(orders))


@functools.partial(jax.jit, static_argnames='model')
def _reordered(model: Model, params: Params, images: Array, orders: jax.Array) -> jax.Array:
    grid, keep = model.trunk.grid(*images.shape[1:3]), capture.NOTHING
    tokens, _ = capture.run_embed(model, params, images, keep=keep)

    def step(tokens: jax.Array, layer: jax.Array):
        def through(tokens: jax.Array) -> jax.Array:
            return capture.run_block(model, params, tokens, layer, grid, keep=keep)[0]

        return jax.lax.cond(layer >= 0, through, lambda tokens: tokens, tokens), None

    def one(order: jax.Array) -> jax.Array:
        last, _ = jax.lax.scan(step, tokens, order)
        return capture.run_readout(model, params, last, keep=keep)[0]

    return jax.lax.map(one, orders)


def lesions(depth: int, draws: int, seed: int) -> tuple[list[Row], np.ndarray]:
    """Lesions as rows, and the orders [lesions, depth + 1] of layers that make them.

    `random` removes sets of layers of each size: all sets if there are no more than `draws`, else
    `draws` different ones.
    """
    every, rng = list(range(depth)), np.random.default_rng(seed)
    made: list[tuple[Row, list[int]]] = [({'kind': 'none', 'layer': 0}, every)]
    for i in every if depth > 1 else []:
        made.append(({'kind': 'skipped', 'layer': i + 1}, [j for j in every if j != i]))
        made.append(({'kind': 'repeated', 'layer': i + 1}, sorted([*every, i])))
    for i in every[:-1]:
        swapped = [*every[:i], i + 1, i, *every[i + 2 :]]
        made.append(({'kind': 'swapped', 'layer': i + 1}, swapped))
    for count in range(1, depth):
        for draw, removed in enumerate(different_sets(depth, count, draws, rng), 1):
            row = {'kind': 'random', 'removed': count, 'draw': draw}
            made.append((row, [i for i in every if i not in removed]))
    orders = np.array([order + [-1] * (depth + 1 - len(order)) for _, order in made])
    return [{**row, 'order': ' '.join(str(i + 1) for i in order)} for row, order in made], orders


def different_sets(
    depth: int, count: int, draws: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """All sets of `count` of `depth` layers if there are at most `draws`, else `draws` of them."""
    if math.comb(depth, count) <= draws:
        return [*itertools.combinations(range(depth), count)]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < draws:
        found[tuple(sorted(rng.permutation(depth)[:count].tolist()))] = None
    return [*found]


def mean_of_sets(name: str, value: np.ndarray, sets: int, seed: int) -> tuple[float, float, float]:
    """Mean over sets and images of a measure [drawn, images], and its 95% interval.

    Squares of two half-widths add. Over images it is `summary`'s, for the images' means over the
    drawn sets; Wilson's is too wide for means between 0 and 1. Over sets it is Student's with the
    correction for a finite number of `sets` (Cochran 1977, section 2.8), 0 if all are drawn. One
    image, or one of several sets, has no interval: NaN.
    """
    mean, low, high = map(float, summary({name: value.mean(0)}, seed).values())
    over_sets = 0.0
    if len(value) < sets:
        _, _, top = effects.student(value.mean(1))
        over_sets = (float(top) - mean) * math.sqrt(1 - len(value) / sets)
    low, high = mean - math.hypot(mean - low, over_sets), mean + math.hypot(high - mean, over_sets)
    return (mean, max(low, 0.0), min(high, 1.0)) if name in FRACTIONS else (mean, low, high)


def lesion(runner: Runner, *, draws: int = 5) -> Study:
    """Accuracy with layers skipped, swapped with the next, repeated, and removed at random.

    Without labels it is agreement with the whole model; for a model without classes, the cosine of
    its features to the whole model's. `value` is [lesions, images]. The last rows of the table are
    means over the random sets of a size: `drawn` sets `of` as many.

    Args:
        runner: a model with a stack `blocks`, and the images.
        draws: sets of layers of each size that are removed at random, all different. If a size has
            no more sets, all are removed.

    Raises:
        ValueError: for a model without blocks.
    """
    model = runner.model
    capture.require_blocks(model)
    depth = model.trunk.stacks['blocks']
    rows, orders = lesions(depth, draws, runner.seed)
    name = 'agreement' if runner.samples.labels is None else 'accuracy'
    name = name if model.num_classes else 'cosine'

    def measure(_: slice, batch: Samples) -> dict[str, Array]:
        logits = reordered(model, runner.params, batch.inputs, orders)
        if not model.num_classes:
            return {name: 1 - turn(logits, logits[0])}
        right = logits[0].argmax(-1) if batch.labels is None else batch.labels
        return {name: logits.argmax(-1) == right}

    arrays = {key: x.astype(np.float64) for key, x in runner.collect(measure).items()}
    value, table = arrays[name], summary(arrays, runner.seed)
    means = []
    for count in range(1, depth):
        chosen = [i for i, row in enumerate(rows) if row.get('removed') == count]
        sets = math.comb(depth, count)
        mean, low, high = mean_of_sets(name, value[chosen], sets, runner.seed)
        means.append({'kind': 'random, mean', 'removed': count, 'drawn': len(chosen), 'of': sets,
                      name: mean, f'{name}_low': low, f'{name}_high': high})  # fmt: skip
    interval = runner.interval([name])
    figure = figures.lesions(
        rows, table[name], table[f'{name}_low'], table[f'{name}_high'], means, measure=name,
        title=runner.title(interval),
    )  # fmt: skip
    policy = 'blocks of the trunk run in another order; `order` lists them, from 1'
    return Study(
        'lesion', {'value': value, 'orders': orders}, tabulate(table, rows) + means, figure, policy,
        f'{interval}; of means over random sets, over images and sets', measure=name,
    )  # fmt: skip
