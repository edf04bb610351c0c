"""What happens inside a model: activations, attention, and gradients at both.

Built on linen's `capture_intermediates` (module outputs), `sow` (attention weights) and `perturb`
(gradients). Every model offers the same paths where they make sense: `embed`, `blocks`,
`blocks/attention/weights`, `class_blocks`, `norm` and so on, each with a leading depth axis where
it lies in a stack; `paths` lists them all.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Arrays = dict[str, jax.Array]


def capture(
    model: nn.Module, params: Any, images: jax.Array, *, keep: str = '.*'
) -> tuple[jax.Array, Arrays]:
    """Runs a model on images [B, H, W, C] and returns `(logits, {path: array})`.

    Attention runs as `explicit`, whatever the model trains with, so that its weights are there.
    Only the paths that match are computed and stored.

    Args:
        model: any model of `vitjax.models`, or another linen module called as `(images, train)`.
        params: its parameters.
        images: normalised images.
        keep: regular expression that has to match a whole path, as in
            `capture(model, params, images, keep='blocks|embed')`.

    Raises:
        ValueError: if `keep` matches nothing, with the paths there are.
    """
    _require_match(model, images, keep)
    return _capture(_looking(model), params, images, keep)


def gradients(
    model: nn.Module,
    params: Any,
    images: jax.Array,
    target: Callable[[jax.Array], jax.Array],
    *,
    keep: str = '.*',
) -> tuple[jax.Array, Arrays, Arrays]:
    """`capture`, with the gradient of `target(logits)` at each captured array.

    Returns `(logits, found, grads)`; `grads[path]` has the shape of `found[path]` and is the
    derivative with respect to that array, everything before it held fixed. Images do not influence
    each other, so a target that sums over the batch gives every image its own gradient.

    Args:
        model: as in `capture`.
        params: as in `capture`.
        images: as in `capture`.
        target: logits [B, num_classes] to a scalar. It is compiled once per function object: pass
            the same function, not a new lambda each time.
        keep: as in `capture`.

    Raises:
        ValueError: if `keep` matches nothing, or `target` does not return a scalar.
    """
    _require_match(model, images, keep)
    return _gradients(_looking(model), params, images, target, keep)


def paths(model: nn.Module, params: Any, images: Any) -> dict[str, tuple[int, ...]]:
    """Every path that `capture` knows for this model, with its array's shape; computes nothing."""
    model = _looking(model)
    abstract = jax.ShapeDtypeStruct(jnp.shape(images), jnp.result_type(images))
    _, found = jax.eval_shape(lambda p, x: _capture(model, p, x, '.*'), params, abstract)
    return {path: value.shape for path, value in found.items()}


def _looking(model: nn.Module) -> nn.Module:
    return model.clone(attention='explicit') if hasattr(model, 'attention') else model


@functools.lru_cache(maxsize=64)
def _known_paths(model: nn.Module, shape: tuple[int, ...], dtype: Any) -> tuple[str, ...]:
    images = jax.ShapeDtypeStruct(shape, dtype)
    shapes = jax.eval_shape(lambda key, x: model.init(key, x), jax.random.key(0), images)
    return tuple(paths(model, shapes['params'], images))


def _require_match(model: nn.Module, images: jax.Array, keep: str) -> None:
    try:
        pattern = re.compile(keep)
    except re.error as error:
        raise ValueError(f'keep must be a regular expression: {keep!r}: {error}.') from None
    known = _known_paths(model, jnp.shape(images), jnp.result_type(images))
    if not any(pattern.fullmatch(path) for path in known):
        raise ValueError(
            f'keep must match a path of {type(model).__name__}: {keep!r} matches none of '
            f'{", ".join(known)}.'
        )


@functools.partial(jax.jit, static_argnames=('model', 'keep'))
def _capture(model: nn.Module, params: Any, images: jax.Array, keep: str):
    logits, state = _apply(model, {'params': params}, images, keep, ['intermediates'])
    return logits, _flatten(state['intermediates'], keep)


@functools.partial(jax.jit, static_argnames=('model', 'target', 'keep'))
def _gradients(model: nn.Module, params: Any, images: jax.Array, target: Callable, keep: str):
    def perturb(call, args, kwargs, context):
        value = call(*args, **kwargs)
        module = context.module
        if context.method_name != '__call__' or not re.fullmatch(keep, '/'.join(module.path)):
            return value
        if isinstance(value, tuple):
            return module.perturb('__call__', value[0]), *value[1:]
        return module.perturb('__call__', value)

    def run(perturbations):
        with nn.intercept_methods(perturb):
            variables = {'params': params}
            if perturbations is not None:
                variables['perturbations'] = perturbations
            mutable = ['intermediates'] + ['perturbations'] * (perturbations is None)
            return _apply(model, variables, images, keep, mutable)

    shapes = jax.eval_shape(lambda: run(None)[1]['perturbations'])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def scalar(perturbations):
        logits, state = run(perturbations)
        value = target(logits)
        if value.shape != ():
            raise ValueError(f'target must return a scalar: its shape is {value.shape}.')
        return value, (logits, state['intermediates'])

    grads, (logits, found) = jax.grad(scalar, has_aux=True)(zeros)
    return logits, _flatten(found, keep), _flatten(grads, keep)


def _apply(model: nn.Module, variables: dict, images: jax.Array, keep: str, mutable: list[str]):
    def wanted(module: nn.Module, method: str) -> bool:
        return method == '__call__' and bool(re.fullmatch(keep, '/'.join(module.path)))

    return model.apply(
        variables, images, train=False, capture_intermediates=wanted, mutable=mutable
    )


def _flatten(tree: Any, keep: str) -> Arrays:
    """`{path: array}` of what matches: `__call__` stripped, tuples opened."""
    flat: Arrays = {}

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            for name, child in node.items():
                visit(child, path if name == '__call__' else (*path, name))
            return
        while isinstance(node, tuple):  # sow keeps a tuple; a scanned block returns (tokens, None)
            node = node[0]
        name = '/'.join(path)
        if name and re.fullmatch(keep, name):
            flat[name] = node

    visit(tree, ())
    return flat
