"""Diagnosis of a run that diverged: the first module, in forward order, that is not finite."""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.base import processes
from vitjax.base.types import Array, Module, Params, TrainState
from vitjax.data import feed, preprocess
from vitjax.data.order import evenly
from vitjax.data.source import Data
from vitjax.inside.capture import capture
from vitjax.inside.path import Path
from vitjax.runs import checkpoint
from vitjax.training.trainer import Trainer

IMAGES = 16  # images on which a module is looked for

# Parts in the order of a forward pass; others come between, by name, as `conv_1` and `conv_2` do.
_FIRST = ('embed', 'class_token', 'patch', 'norm_1', 'qkv', 'query', 'key', 'value', 'mix_logits')
_FIRST += ('mixed_logits', 'weights', 'mix_weights', 'mixed_weights', 'heads', 'attention')
_LAST = ('projection', 'se', 'scale', 'scale_1', 'norm_2', 'mlp', 'hidden', 'output', 'scale_2')
_LAST += ('blocks', 'class_blocks', 'norm', 'head')


def not_finite(metrics: Mapping[str, np.ndarray], step: int) -> tuple[str, float, int, int] | None:
    """Name, value, step and place of the seed of the first loss or gradient that is not finite.

    Args:
        metrics: metrics [steps, seeds] of a dispatch.
        step: step that its last one is.

    Returns:
        None if all are finite.
    """
    for name in ('loss', 'grad_norm'):
        for i, seed in np.argwhere(~np.isfinite(metrics[name])):
            value = float(metrics[name][i, seed])
            return name, value, step - len(metrics[name]) + int(i) + 1, int(seed)
    return None


def replayed(
    trainer: Trainer, outs: Mapping[int, pathlib.Path], step: int, caught: Sequence[int]
) -> list[TrainState]:
    """The states after `step` steps, taken again from the last checkpoint; none if asked to stop.

    Args:
        trainer: the run's.
        outs: the run directory of each seed.
        step: steps to take.
        caught: numbers of signals that ask to stop.
    """
    placed, at = trainer.init(), 0
    if found := checkpoint.latest([*outs.values()], trainer.layout.fetch(placed)):
        at, states, _ = found
        placed = trainer.layout.place(states)
    pace = feed.Pace()
    for chunk in trainer.chunks(at, pace, lambda now: min(trainer.until(now), step)):
        if processes.agreed(len(caught)):
            return []
        began = time.perf_counter()
        placed, _ = trainer.run(placed, chunk._replace(steps=min(chunk.steps, step - at)))
        at += chunk.steps  # maybe more than asked for: they were read ahead
        pace.note(chunk.steps, processes.agreed(time.perf_counter() - began))
    return trainer.layout.fetch(placed)


def diverged(what: str, value: float, step: int, out: pathlib.Path, where: str) -> ValueError:
    """The error that ends a run with a number that is not finite."""
    found = f'; first: {where}' if where else ''
    last = max(checkpoint.steps(out), default=0)
    kept = f'{out} keeps the checkpoint of step {last}. ' if last else ''
    return ValueError(
        f'{what} must stay finite: it is {value} at step {step}{found}.\n'
        f'{kept}Try a lower --optim.peak.'
    )


def of_run(trainer: Trainer, params: Params, data: Data) -> str:
    """`first_module` of a run's model, on a few images of a split."""
    experiment, rows = trainer.experiment, evenly(len(data), IMAGES)
    pixels = jnp.asarray(data.images[rows])
    images = preprocess.finish(pixels, experiment.preprocessing, data.prepared)
    labels, loss = data.labels[rows], trainer.step.loss
    return first_module(experiment.model, params, images, labels, loss)


def first_module(
    model: Module, params: Params, images: Array, labels: np.ndarray,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
) -> str:  # fmt: skip
    """Names the first module, in forward order, with numbers that are not finite.

    Looks at parameters, then activations, then gradients (the backward pass computes the last
    module's first). If all are finite, names the module with the largest activation.

    Args:
        model: any model of `vitjax.models`.
        params: its parameters.
        images: normalized images [B, H, W, 3].
        labels: their classes [B].
        loss: maps logits [B, K] and soft labels [B, K] to a scalar.
    """
    weights = _by_module(params)
    if wrong := _wrong(weights, lambda x: np.isfinite(x).all()):
        return f'parameters of {wrong[0]}'
    _, found = capture(model, params, images)
    activations = {path: [np.asarray(value, np.float32)] for path, value in found.items()}
    if wrong := _wrong(activations, lambda x: np.isfinite(x).all()):
        return f'activations of {wrong[0]}'
    targets = jax.nn.one_hot(labels, model.num_classes)
    grads = jax.grad(lambda p: loss(model.apply({'params': p}, images), targets))(params)
    with np.errstate(over='ignore'):  # looks for a norm that overflows
        if wrong := _wrong(_by_module(grads), lambda x: np.isfinite(np.square(x).sum())):
            return f'gradients of {wrong[-1]}'
    sizes = {path: np.abs(values[0]).max() for path, values in activations.items()}
    largest = max(sizes, key=sizes.__getitem__)
    return f'activations of {largest} are the largest, {sizes[largest]:.2g}'


def _by_module(tree: Any) -> dict[str, list[np.ndarray]]:
    """Leaves of a tree of parameters by the path of their module."""
    out: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path[:-1] or path, simple=True, separator='/')
        out.setdefault(name, []).append(np.asarray(leaf, np.float32))
    return out


def _wrong(values: Mapping[str, list[np.ndarray]], fine: Callable[[Any], Any]) -> list[str]:
    """Modules with a value that is not fine, in forward order; in a stack, with the layer."""
    found: list[tuple[Any, str]] = []
    for path, arrays in values.items():
        top, *inner = map(_rank, Path(path).parts)
        after = [*inner, (99, '')]  # its output follows those of its parts
        if Path(path).stack is None:
            if not all(map(fine, arrays)):
                found.append(((top, -1, after), path))
            continue
        for layer, own in enumerate(zip(*arrays, strict=True)):
            if not all(map(fine, own)):
                found.append(((top, layer, after), f'{path}, layer {layer + 1}'))
    return [name for _, name in sorted(found)]


def _rank(part: str) -> tuple[int, str]:
    """Place of a part in a forward pass."""
    if part in _FIRST:
        return _FIRST.index(part), ''
    return (len(_FIRST) + 1 + _LAST.index(part), '') if part in _LAST else (len(_FIRST), part)
