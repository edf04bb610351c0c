"""What happens inside a model: activations, attention, and gradients at both.

Built on linen's `capture_intermediates` (module outputs), `sow` (attention weights) and `perturb`
(gradients). Every model offers the same paths where they make sense: `embed`, `blocks`,
`blocks/attention/weights`, `class_blocks`, `norm` and so on, each with a leading depth axis where
it lies in a stack; `paths` lists them all.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax import ops
from vitjax.base.types import Array, Arrays, DType, Params, PyTree, Shapes
from vitjax.inside.path import Path

NOTHING = r'(?!)'  # matches no path

Edits = Mapping[str, Any]


def capture(
    model: nn.Module, params: Params, images: Array, *, keep: str = '.*',
    layers: Sequence[int] | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Runs a model on images [B, H, W, C] and returns `(logits, {path: array})`.

    Attention runs as `explicit`, whatever the model trains with, so that its weights are there.
    Only the paths that match are computed and stored. Of a module that runs more than once (a
    class block normalises its token and the patches by one `norm_1`) the first call is kept.

    Args:
        model: any model of `vitjax.models`, or another linen module called as `(images, train)`;
            where it has a field `attention`, a string, `'explicit'` must be one of its values.
        params: its parameters.
        images: normalised images.
        keep: regular expression that has to match a whole path.
        layers: which layers of a stack, from 0 and in order, to keep, as in `(5, 11)`: one costs
            one layer's memory. None keeps all. It takes a model of `vitjax.models`.

    Raises:
        ValueError: if `keep` matches nothing, or a stack has no such layer; it lists what there is.

    Example:
        >>> from vitjax.models import ViT
        >>> model = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=5)
        >>> images = jnp.ones((2, 8, 8, 3))
        >>> params = model.init(jax.random.key(0), images)['params']
        >>> logits, found = capture(model, params, images, keep='embed|blocks/attention/weights')
        >>> logits.shape, found['embed'].shape  # 4 patches and the class token
        ((2, 5), (2, 5, 8))
        >>> found['blocks/attention/weights'].shape  # of 3 layers
        (3, 2, 2, 5, 5)
        >>> logits, found = capture(model, params, images, keep='blocks', layers=[1])
        >>> found['blocks'].shape
        (1, 2, 5, 8)
    """
    matching = require_match(model, images, keep)
    if layers is None:
        return _capture(looking(model), params, images, keep)
    chosen = _require_layers(model, layers, matching)
    return _capture_layers(looking(model), params, images, keep, chosen)


def gradients(
    model: nn.Module, params: Params, images: Array, target: Callable[[jax.Array], jax.Array], *,
    keep: str = '.*',
) -> tuple[jax.Array, Arrays, Arrays]:  # fmt: skip
    """`capture`, with the gradient of `target(logits)` at each captured array.

    Returns `(logits, found, grads)`; `grads[path]` has the shape of `found[path]` and is the
    derivative with respect to that array, with everything before it held fixed. Images do not
    influence each other, so a target that sums over the batch gives each image its own gradient.

    Args:
        model: as in `capture`.
        params: as in `capture`.
        images: as in `capture`.
        target: logits [B, num_classes] to a scalar. It is compiled once per function object: pass
            the same function, not a new lambda each time.
        keep: as in `capture`.

    Raises:
        ValueError: if `keep` matches nothing, or `target` does not return a scalar.

    Example:
        The gradient of class 0 at the normalised features is the head's column for that class.

        >>> from vitjax.models import ViT
        >>> model = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=5)
        >>> images = jnp.ones((2, 8, 8, 3))
        >>> params = model.init(jax.random.key(0), images)['params']
        >>> def first_class(logits):
        ...     return logits[:, 0].sum()
        >>> _, found, grads = gradients(model, params, images, first_class, keep='norm')
        >>> bool(jnp.allclose(grads['norm'], params['head']['output']['kernel'][:, 0]))
        True
    """
    require_match(model, images, keep)
    return _gradients(looking(model), params, images, target, keep)


def paths(
    model: nn.Module, params: Params | Shapes, images: Array | jax.ShapeDtypeStruct
) -> dict[str, tuple[int, ...]]:
    """Every path that `capture` offers for this model, with its array's shape; computes nothing.

    Example:
        >>> from vitjax.models import ConvNet
        >>> images = jax.ShapeDtypeStruct((2, 16, 16, 3), 'float32')
        >>> model = ConvNet(widths=(4, 6), hidden=7, num_classes=5)
        >>> params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
        >>> for path, shape in paths(model, params, images).items():
        ...     print(path, shape)
        conv_1 (2, 14, 14, 4)
        conv_1/conv (2, 14, 14, 4)
        conv_2 (2, 5, 5, 6)
        conv_2/conv (2, 5, 5, 6)
        dense (2, 7)
        head (2, 5)
        pool_1 (2, 7, 7, 4)
        pool_2 (2, 2, 2, 6)
    """
    model = looking(model)
    abstract = jax.ShapeDtypeStruct(jnp.shape(images), jnp.result_type(images))
    _, found = jax.eval_shape(lambda p, x: _capture(model, p, x, '.*'), params, abstract)
    return {path: value.shape for path, value in found.items()}


def looking(model: nn.Module) -> nn.Module:
    """The model as `capture` runs it: on explicit attention, where `attention` is a setting."""
    chosen = isinstance(vars(model).get('attention'), str)
    return model.clone(attention='explicit') if chosen else model


def known_paths(
    model: nn.Module, images: Array | jax.ShapeDtypeStruct
) -> dict[str, tuple[int, ...]]:
    """`paths` of a model for images of this shape, remembered."""
    return _known_paths(model, jnp.shape(images), jnp.result_type(images))


@functools.lru_cache(maxsize=64)
def _known_paths(
    model: nn.Module, shape: tuple[int, ...], dtype: DType
) -> dict[str, tuple[int, ...]]:
    images = jax.ShapeDtypeStruct(shape, dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return paths(model, shapes['params'], images)


def require_match(model: nn.Module, images: Array, keep: str) -> dict[str, tuple[int, ...]]:
    """The paths that `keep` matches, with their shapes.

    Raises:
        ValueError: if there are none; it lists the paths there are.
    """
    try:
        pattern = re.compile(keep)
    except re.error as error:
        raise ValueError(f'keep must be a regular expression: {keep!r}: {error}.') from None
    known = known_paths(model, images)
    found = {path: shape for path, shape in known.items() if pattern.fullmatch(path)}
    if not found:
        raise ValueError(
            f'keep must match a path of {type(model).__name__}: {keep!r} matches none of '
            f'{", ".join(known)}.'
        )
    return found


def _require_layers(
    model: Any, layers: Sequence[int], matching: dict[str, tuple[int, ...]]
) -> tuple[int, ...]:
    require_blocks(model)
    chosen = tuple(map(int, layers))
    if not chosen or list(chosen) != sorted({*chosen}):
        raise ValueError(f'layers must be one or more, each once, in order: got {chosen}.')
    for path, shape in matching.items():
        if Path(path).stack and not 0 <= chosen[0] <= chosen[-1] < shape[0]:
            raise ValueError(f'layers of {path} are 0 to {shape[0] - 1}: got {chosen}.')
    return chosen


def require_blocks(model: Any) -> None:
    """Refuses a model without a stack `blocks` to choose layers of.

    Raises:
        ValueError: with its name.
    """
    if 'blocks' not in model.trunk.stacks:
        raise ValueError(f'layers need a stack `blocks`: {type(model).__name__} has none.')


@functools.partial(jax.jit, static_argnames=('model', 'keep'))
def _capture(model: nn.Module, params: Params, images: Array, keep: str):
    return run(model, params, images, keep=keep)


@functools.partial(jax.jit, static_argnames=('model', 'keep', 'layers'))
def _capture_layers(
    model: Any, params: Params, images: Array, keep: str, layers: tuple[int, ...]
) -> tuple[jax.Array, Arrays]:
    tokens, found = enter(model, params, images, keep=keep)
    grid = model.trunk.grid(*images.shape[1:3])
    parts: list[Arrays] = []
    depth = model.trunk.stacks['blocks']
    # Neighbours that are kept, or not, run as one loop over them.
    for kept, segment in itertools.groupby(range(depth), lambda layer: layer in layers):

        def layer(tokens: jax.Array, index: jax.Array, keep: str = keep if kept else NOTHING):
            tokens, found = one_layer(model, params, tokens, index, grid, keep=keep)
            return tokens, {path: value[0] for path, value in found.items()}

        tokens, part = jax.lax.scan(layer, tokens, jnp.array([*segment]))
        parts.append(part)
    blocks = [part for part in parts if part]
    for path in blocks[0] if blocks else ():
        found[path] = jnp.concatenate([part[path] for part in blocks])
    logits, after = leave(model, params, tokens, keep=keep)
    of_stack = {path for path in after if Path(path).stack}
    index = jnp.array(layers)
    return logits, found | {p: v[index] if p in of_stack else v for p, v in after.items()}


@functools.partial(jax.jit, static_argnames=('model', 'target', 'keep'))
def _gradients(model: nn.Module, params: Params, images: Array, target: Callable, keep: str):
    def perturb(call, args, kwargs, context):
        value, module = call(*args, **kwargs), context.module
        # Captured already: an inner call of the base class's `__call__`, or an earlier one. What
        # `capture` keeps is the first, and a second perturbation would be added to its gradient.
        known = module.has_variable('intermediates', '__call__')
        if known or not _wanted(module, context.method_name, keep):
            return value
        if isinstance(value, tuple):
            return module.perturb('__call__', value[0]), *value[1:]
        return module.perturb('__call__', value)

    def perturbed(perturbations):
        with nn.intercept_methods(perturb):
            variables = {'params': params}
            if perturbations is not None:
                variables['perturbations'] = perturbations
            mutable = ['intermediates'] + ['perturbations'] * (perturbations is None)
            return _apply(model, variables, images, keep, mutable)

    shapes = jax.eval_shape(lambda: perturbed(None)[1]['perturbations'])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def scalar(perturbations):
        logits, state = perturbed(perturbations)
        value = target(logits)
        if value.shape != ():
            raise ValueError(f'target must return a scalar: its shape is {value.shape}.')
        return value, (logits, state['intermediates'])

    with ops.entered():
        grads, (logits, found) = jax.grad(scalar, has_aux=True)(zeros)
    return logits, _flatten(found, keep), _flatten(grads, keep)


# ---- A model, whole and in parts ----------------------------------------------------------------
#
# As `looking` has it. Each returns what it found at the paths that match `keep`; `edits` is what
# `intervene` writes there. Parts are of the models of `vitjax.models` that have `blocks`.


def run(
    model: nn.Module, params: Params, images: Array, *, keep: str, edits: Edits | None = None
) -> tuple[jax.Array, Arrays]:
    """Images to logits."""
    variables = {'params': params, 'edits': edits or {}}
    logits, state = _apply(model, variables, images, keep, ['intermediates'])
    return logits, _flatten(state.get('intermediates', {}), keep)


def enter(
    model: Any, params: Params, images: Array, *, keep: str, edits: Edits | None = None
) -> tuple[jax.Array, Arrays]:
    """Images to the tokens that enter the first block."""
    variables = {'params': params, 'edits': edits or {}}
    tokens, state = _apply(model, variables, images, keep, ['intermediates'], _embed)
    return tokens, _flatten(state.get('intermediates', {}), keep)


def _embed(model: Any, images: jax.Array, train: bool) -> jax.Array:
    return model.embed(images)  # PatchConvNet's stem is the same in training


def one_layer(
    model: Any, params: Params, tokens: jax.Array, index: Array | int, grid: tuple[int, int], *,
    keep: str, edits: Edits | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Tokens through the block with this index, which may be traced; found arrays are [1, ...].

    Only this block's parameters are read, out of the stack's, and `edits` are of it alone.
    """
    own = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1), params['blocks'])
    variables = {'params': {**params, 'blocks': own}, 'edits': edits or {}}
    model = model.clone(depth=1)
    tokens, state = _apply(model, variables, tokens, keep, ['intermediates'], 'through', grid)
    return tokens, _flatten(state.get('intermediates', {}), keep)


def leave(
    model: Any, params: Params, tokens: jax.Array, *, keep: str, edits: Edits | None = None
) -> tuple[jax.Array, Arrays]:
    """Tokens that leave any block to logits."""
    variables = {'params': params, 'edits': edits or {}}
    logits, state = _apply(model, variables, tokens, keep, ['intermediates'], 'readout')
    return logits, _flatten(state.get('intermediates', {}), keep)


def _apply(
    model: nn.Module, variables: dict, images: Array, keep: str, mutable: list[str],
    method: str | Callable | None = None, *args: Any,
):  # fmt: skip
    wanted = functools.partial(_wanted, keep=keep)
    return model.apply(
        variables, images, *args, train=False, method=method, capture_intermediates=wanted,
        mutable=mutable,
    )  # fmt: skip


def _wanted(module: nn.Module, method: str, keep: str) -> bool:
    return method == '__call__' and bool(re.fullmatch(keep, '/'.join(module.path)))


def _flatten(tree: PyTree, keep: str) -> Arrays:
    """`{path: array}` of what matches: `__call__` stripped, tuples opened."""
    flat: Arrays = {}

    def visit(node: PyTree, path: tuple[str, ...]) -> None:
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
