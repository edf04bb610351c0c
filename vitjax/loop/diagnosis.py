"""First module of a network, in forward order, with numbers that are not finite."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vitjax.base.types import Array, Module, Params
from vitjax.inside.capture import capture
from vitjax.inside.path import STACKS, Path

# Parts in the order of a forward pass; others come between, by name, as `conv_1` and `conv_2` do.
_FIRST = ('embed', 'class_token', 'patch', 'norm_1', 'qkv', 'query', 'key', 'value', 'mix_logits')
_FIRST += ('mixed_logits', 'weights', 'mix_weights', 'mixed_weights', 'heads', 'attention')
_LAST = ('projection', 'se', 'scale', 'scale_1', 'norm_2', 'mlp', 'hidden', 'output', 'scale_2')
_LAST += ('blocks', 'class_blocks', 'norm', 'head')


def first_module(
    model: Module, params: Params, images: Array, labels: np.ndarray,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
) -> str:  # fmt: skip
    """Names the first module, in forward order, of which something is not finite.

    Looks at parameters, then activations, then gradients, of which the backward pass computes the
    last module's first. If all are finite, names the module with the largest activation.

    Args:
        model: any model of `vitjax.models`.
        params: its parameters.
        images: normalized images [B, H, W, 3].
        labels: their classes [B].
        loss: maps logits [B, K] and soft labels [B, K] to a scalar.
    """
    weights = {_module(name): [] for name in _named(params)}
    for name, leaf in _named(params).items():
        weights[_module(name)].append(np.asarray(leaf, np.float32))
    if wrong := _wrong(weights, lambda x: np.isfinite(x).all()):
        return f'parameters of {wrong[0]}'
    _, found = capture(model, params, images)
    activations = {path: [np.asarray(value, np.float32)] for path, value in found.items()}
    if wrong := _wrong(activations, lambda x: np.isfinite(x).all()):
        return f'activations of {wrong[0]}'
    targets = jax.nn.one_hot(labels, model.num_classes)
    grads = jax.grad(lambda p: loss(model.apply({'params': p}, images), targets))(params)
    slopes = {module: [] for module in weights}
    for name, leaf in _named(grads).items():
        slopes[_module(name)].append(np.asarray(leaf, np.float32))
    with np.errstate(over='ignore'):  # a norm that overflows is what is looked for
        if wrong := _wrong(slopes, lambda x: np.isfinite(np.square(x).sum())):
            return f'gradients of {wrong[-1]}'
    sizes = {path: np.abs(values[0]).max() for path, values in activations.items()}
    largest = max(sizes, key=lambda path: sizes[path])
    return f'activations of {largest} are the largest, {sizes[largest]:.2g}'


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator='/'): leaf for p, leaf in leaves}


def _module(parameter: str) -> str:
    return parameter.rpartition('/')[0] or parameter


def _wrong(values: Mapping[str, list[np.ndarray]], fine: Callable[[Any], Any]) -> list[str]:
    """Modules with a value that is not fine, in forward order; of a stack with their layer."""

    def rank(part: str) -> tuple[int, str]:
        if part in _FIRST:
            return _FIRST.index(part), ''
        return (len(_FIRST) + 1 + _LAST.index(part), '') if part in _LAST else (len(_FIRST), part)

    def places() -> Iterator[tuple[Any, str]]:
        for path, arrays in values.items():
            top, *inner = Path(path).parts
            after = [*map(rank, inner), (99, '')]  # its output follows those of its parts
            if top not in STACKS:
                if not all(map(fine, arrays)):
                    yield (rank(top), -1, after), path
                continue
            for layer in range(len(arrays[0])):
                if not all(fine(array[layer]) for array in arrays):
                    yield (rank(top), layer, after), f'{path}, layer {layer + 1}'

    return [name for _, name in sorted(places())]
