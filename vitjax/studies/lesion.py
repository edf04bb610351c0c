"""lesion: accuracy with layers skipped, swapped or repeated (Veit et al. 2016)."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.analysis import effects
from vitjax.base.types import Array, Module, Params
from vitjax.figures import interventions as figures
from vitjax.inside import capture
from vitjax.inside.capture import (
    NOTHING,
    run_block,
    run_embed,
    run_readout,
    with_explicit_attention,
)
from vitjax.runs import Loaded
from vitjax.studies.common import (
    SHARES,
    Report,
    Samples,
    Study,
    batches,
    interval_of,
    measured,
    said_of,
    summary,
)


def reordered(model: Module, params: Params, images: Array, orders: Array) -> jax.Array:
    """Logits [orders, B, classes] with the blocks of the trunk run in other orders.

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
    return _reordered(with_explicit_attention(model), params, images, jnp.asarray(orders))


@functools.partial(jax.jit, static_argnames='model')
def _reordered(model: Any, params: Params, images: Array, orders: jax.Array) -> jax.Array:
    grid = model.trunk.grid(*images.shape[1:3])
    tokens, _ = run_embed(model, params, images, keep=NOTHING)

    def step(tokens: jax.Array, layer: jax.Array):
        def through(tokens: jax.Array) -> jax.Array:
            return run_block(model, params, tokens, layer, grid, keep=NOTHING)[0]

        return jax.lax.cond(layer >= 0, through, lambda tokens: tokens, tokens), None

    def one(order: jax.Array) -> jax.Array:
        return run_readout(model, params, jax.lax.scan(step, tokens, order)[0], keep=NOTHING)[0]

    return jax.lax.map(one, orders)


def lesions(depth: int, draws: int, seed: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Lesions as rows, and the orders [lesions, depth + 1] of layers that make them.

    `random` removes sets of layers of each size: all sets if there are no more than `draws`, else
    `draws` different ones.
    """
    every, rng = list(range(depth)), np.random.default_rng(seed)
    made: list[tuple[dict[str, Any], Sequence[int]]] = [({'kind': 'none', 'layer': 0}, every)]
    for i in every if depth > 1 else []:
        made.append(({'kind': 'skipped', 'layer': i + 1}, [j for j in every if j != i]))
        made.append(({'kind': 'repeated', 'layer': i + 1}, sorted([*every, i])))
    for i in every[:-1]:
        swapped = [*every[:i], i + 1, i, *every[i + 2 :]]
        made.append(({'kind': 'swapped', 'layer': i + 1}, swapped))
    for count in range(1, depth):
        for draw, removed in enumerate(different_sets(depth, count, draws, rng), 1):
            what = {'kind': 'random', 'removed': count, 'draw': draw}
            made.append((what, [i for i in every if i not in removed]))
    orders = np.full((len(made), depth + 1), -1)
    for row, (_, order) in zip(orders, made, strict=True):
        row[: len(order)] = order
    remain = [' '.join(str(j + 1) for j in order) for _, order in made]
    rows = [{**what, 'order': order} for (what, _), order in zip(made, remain, strict=True)]
    return rows, orders


def different_sets(
    depth: int, count: int, draws: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """All sets of `count` of `depth` layers if there are no more than `draws`, else as many."""
    if math.comb(depth, count) <= draws:
        return [*itertools.combinations(range(depth), count)]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < draws:
        found[tuple(sorted(rng.permutation(depth)[:count].tolist()))] = None
    return [*found]


def mean_of_sets(name: str, value: np.ndarray, sets: int, seed: int) -> tuple[float, float, float]:
    """Mean over sets and images of a measure [drawn, images], and its 95% interval.

    Squares of two half-widths add: over images, as `summary` has them for the images' means over
    the drawn sets (Wilson's, which is too wide where these are neither 0 nor 1); and over sets,
    Student's with the correction for a finite number of `sets` (Cochran 1977, section 2.8), which
    is 0 if all are drawn. One image, or one set of several, has no interval: NaN.
    """
    mean, low, high = map(float, summary({name: value.mean(0)}, seed).values())
    over_sets = 0.0
    if len(value) < sets:
        _, _, top = effects.student(value.mean(1))
        over_sets = (float(top) - mean) * math.sqrt(1 - len(value) / sets)
    low, high = mean - math.hypot(mean - low, over_sets), mean + math.hypot(high - mean, over_sets)
    return (mean, max(low, 0.0), min(high, 1.0)) if name in SHARES else (mean, low, high)


def lesion(
    loaded: Loaded, given: Samples, *, draws: int = 5, memory: float = 3.0, seed: int = 0,
    report: Report = lambda done: None,
) -> Study:  # fmt: skip
    """Accuracy with layers skipped, swapped with the next, repeated, and removed at random.

    Without labels it is agreement with the whole model; of a model without classes, the cosine of
    its features to the whole model's. `value` is [lesions, images]. The last rows of the table are
    means over the random sets of a size, with `drawn` sets `of` as many.

    Args:
        loaded: a model with a stack `blocks`.
        given: the images.
        draws: sets of layers of each size that are removed at random, all different; of a size
            with no more sets, all are.
        memory: gigabytes that a pass may take.
        seed: of the sets and the bootstrap.
        report: takes how many images are done.
    """
    model: Module = loaded.experiment.model
    capture.require_blocks(model)
    what, orders = lesions(model.trunk.stacks['blocks'], draws, seed)
    parts, labelled = [], given.labels is not None
    for rows in batches(model, given, memory, report):
        logits = reordered(model, loaded.params, given.inputs[rows], orders)
        if model.num_classes:
            right = given.labels[rows] if given.labels is not None else logits[0].argmax(-1)
            parts.append(np.asarray(logits.argmax(-1) == right))
        else:
            clean = (logits[0], {'norm': logits[0]})
            parts.append(1 - measured(logits, {'norm': logits}, clean, None, False)['token'])
    value = np.concatenate(parts, -1).astype(np.float64)
    name = 'accuracy' if labelled else 'agreement' if model.num_classes else 'cosine'
    table = summary({name: value}, seed)
    lines = [
        {**row, **{key: float(column[i]) for key, column in table.items()}}
        for i, row in enumerate(what)
    ]
    depth, means = model.trunk.stacks['blocks'], []
    for count in range(1, depth):
        chosen = [i for i, row in enumerate(what) if row.get('removed') == count]
        sets = math.comb(depth, count)
        mean, low, high = mean_of_sets(name, value[chosen], sets, seed)
        means.append({'kind': 'random, mean', 'removed': count, 'drawn': len(chosen), 'of': sets,
                      name: mean, f'{name}_low': low, f'{name}_high': high})  # fmt: skip
    interval = interval_of([name], len(given.inputs))
    figure = figures.lesions(
        what,
        table[name],
        table[f'{name}_low'],
        table[f'{name}_high'],
        means,
        measure=name,
        title=said_of(given, interval),
    )
    policy = 'blocks of the trunk run in another order; `order` says which, from 1'
    interval += '; of means over random sets, over images and sets'
    arrays = {'value': value, 'orders': orders}
    return Study('lesion', arrays, lines + means, figure, policy, interval, measure=name)
