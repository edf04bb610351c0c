"""Activations, attention weights, and gradients at both, inside of any model.

Built on linen's `capture_intermediates` (module outputs), `sow` (attention weights) and `perturb`
(gradients). All models share their paths: `embed`, `blocks`, `blocks/attention/weights`,
`class_blocks`, `norm` and so on. Arrays of a stack carry a leading depth axis. `paths` lists what a
model has.
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax import ops
from vitjax.base.types import Array, Arrays, DType, Params, PyTree
from vitjax.inside.path import Path
from vitjax.models.base import Model

NOTHING = r'(?!)'  # matches no path

Edits = Mapping[str, Any]


def capture(
    model: nn.Module, params: Params, images: Array, *, keep: str = '.*',
    layers: Sequence[int] | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Runs a model on images [B, H, W, C] and returns `(logits, {path: array})`.

    Attention runs as `explicit`, for any setting of the model, so that its weights exist. Only
    matching paths are computed and stored. If a module runs more than once, the first call is
    captured: a class block normalises its token and the patches by one `norm_1`.

    Args:
        model: any model of `vitjax.models`, or another linen module called as `(images, train)`. If
            it has a field `attention`, a string, `'explicit'` must be one of its values.
        params: its parameters.
        images: normalised images.
        keep: regular expression that has to match a whole path.
        layers: layers of each stack to keep, from 0 and ascending, as in `(5, 11)`; None keeps all.
            One layer costs one layer's memory. Needs a model with a stack `blocks`.

    Raises:
        ValueError: if `keep` matches nothing, or a stack has no such layer; it lists the choices.

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
    model = with_explicit_attention(model)
    if layers is None:
        return _capture(model, params, images, keep)
    blocks = require_blocks(model)
    return _capture_layers(blocks, params, images, keep, _require_layers(layers, matching))


def gradients(
    model: nn.Module, params: Params, images: Array, target: Callable[[jax.Array], jax.Array], *,
    keep: str = '.*',
) -> tuple[jax.Array, Arrays, Arrays]:  # fmt: skip
    """`capture`, with the gradient of `target(logits)` at each captured array.

    Returns `(logits, found, grads)`; `grads[path]` has the shape of `found[path]`. It is the
    derivative with respect to that array, everything before it held fixed. Images do not influence
    each other, so a target that sums over the batch gives each image its own gradient.

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
    return _gradients(with_explicit_attention(model), params, images, target, keep)


def paths(model: nn.Module, images: Array | jax.ShapeDtypeStruct) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays that `capture` offers for images of this shape, by path.

    Computes nothing; the result is cached.

    Example:
        >>> from vitjax.models import ConvNet
        >>> images = jax.ShapeDtypeStruct((2, 16, 16, 3), 'float32')
        >>> model = ConvNet(widths=(4, 6), hidden=7, num_classes=5)
        >>> for path, shape in paths(model, images).items():
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
    return _paths(with_explicit_attention(model), jnp.shape(images), jnp.result_type(images))


@functools.lru_cache(maxsize=64)
def _paths(model: nn.Module, shape: tuple[int, ...], dtype: DType) -> dict[str, tuple[int, ...]]:
    def captured(images: jax.Array) -> Arrays:
        params = model.init(jax.random.key(0), images)['params']
        return run(model, params, images, keep='.*')[1]

    found = jax.eval_shape(captured, jax.ShapeDtypeStruct(shape, dtype))
    return {path: value.shape for path, value in sorted(found.items())}


def with_explicit_attention(model: nn.Module) -> nn.Module:
    """The model as `capture` runs it: with explicit attention, if it has the field."""
    chosen = isinstance(vars(model).get('attention'), str)
    return model.clone(attention='explicit') if chosen else model


def require_match(model: nn.Module, images: Array, keep: str) -> dict[str, tuple[int, ...]]:
    """Paths that `keep` matches, with their shapes.

    Raises:
        ValueError: if there are none; it lists the model's paths.
    """
    try:
        pattern = re.compile(keep)
    except re.error as error:
        raise ValueError(f'keep must be a regular expression: {keep!r}: {error}.') from None
    known = paths(model, images)
    found = {path: shape for path, shape in known.items() if pattern.fullmatch(path)}
    if not found:
        raise ValueError(
            f'keep must match a path of {type(model).__name__}: {keep!r} matches none of '
            f'{", ".join(known)}.'
        )
    return found


def _require_layers(layers: Sequence[int], matching: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    chosen = tuple(map(int, layers))
    if not chosen or list(chosen) != sorted({*chosen}):
        raise ValueError(f'layers must be one or more, each once, in order: got {chosen}.')
    for path, shape in matching.items():
        if Path(path).stack and not 0 <= chosen[0] <= chosen[-1] < shape[0]:
            raise ValueError(f'layers of {path} are 0 to {shape[0] - 1}: got {chosen}.')
    return chosen


def require_blocks(model: nn.Module) -> Model:
    """The same model, if it has a stack `blocks` whose layers can be chosen.

    Raises:
        ValueError: if it has none.
    """
    found = cast(Model, model)
    if 'blocks' not in found.trunk.stacks:
        raise ValueError(f'layers need a stack `blocks`: {type(model).__name__} has none.')
    return found


@functools.partial(jax.jit, static_argnames=('model', 'keep'))
def _capture(model: nn.Module, params: Params, images: Array, keep: str):
    return run(model, params, images, keep=keep)


@functools.partial(jax.jit, static_argnames=('model', 'keep', 'layers'))
def _capture_layers(
    model: Model, params: Params, images: Array, keep: str, layers: tuple[int, ...]
) -> tuple[jax.Array, Arrays]:
    tokens, found = run_embed(model, params, images, keep=keep)
    grid = model.trunk.grid(*images.shape[1:3])
    captured: list[Arrays] = []
    # Neighbours that are kept, or skipped, run as one loop over them.
    depth = model.trunk.stacks['blocks']
    for kept, segment in itertools.groupby(range(depth), lambda layer: layer in layers):

        def block(tokens: jax.Array, layer: jax.Array, keep: str = keep if kept else NOTHING):
            tokens, found = run_block(model, params, tokens, layer, grid, keep=keep)
            return tokens, {path: value[0] for path, value in found.items()}

        tokens, part = jax.lax.scan(block, tokens, jnp.array([*segment]))
        if kept:
            captured.append(part)
    found |= jax.tree.map(lambda *parts: jnp.concatenate(parts), *captured)
    logits, after = run_readout(model, params, tokens, keep=keep)
    index = jnp.array(layers)
    return logits, found | {p: v[index] if Path(p).stack else v for p, v in after.items()}


@functools.partial(jax.jit, static_argnames=('model', 'target', 'keep'))
def _gradients(model: nn.Module, params: Params, images: Array, target: Callable, keep: str):
    wanted = functools.partial(_is_wanted, keep=keep)

    def perturb(call, args, kwargs, context):
        value, module = call(*args, **kwargs), context.module
        # The first call alone is captured, also if the base class's `__call__` makes it. A second
        # perturbation would be added to its gradient.
        captured = module.has_variable('intermediates', '__call__')
        if captured or not wanted(module, context.method_name):
            return value
        if isinstance(value, tuple):
            return module.perturb('__call__', value[0]), *value[1:]
        return module.perturb('__call__', value)

    def perturbed(mutable: list[str], **perturbations: PyTree):
        with nn.intercept_methods(perturb):
            return model.apply(
                {'params': params, **perturbations}, images, train=False,
                capture_intermediates=wanted, mutable=['intermediates', *mutable],
            )  # fmt: skip

    shapes = jax.eval_shape(lambda: perturbed(['perturbations'])[1]['perturbations'])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def scalar(perturbations):
        logits, state = perturbed([], perturbations=perturbations)
        value = target(logits)
        if value.shape != ():
            raise ValueError(f'target must return a scalar: its shape is {value.shape}.')
        return value, (logits, state['intermediates'])

    with ops.entered():
        grads, (logits, found) = jax.grad(scalar, has_aux=True)(zeros)
    return logits, _flatten(found, keep), _flatten(grads, keep)


# ---- A model, whole and in parts ----------------------------------------------------------------
#
# Models with explicit attention. Each function returns its output, and the captured arrays whose
# paths match `keep`; `edits` is the collection that `intervene` writes.


def run(
    model: nn.Module, params: Params, inputs: Array, *args: Any, keep: str,
    edits: Edits | None = None, method: str | Callable[..., jax.Array] | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Images to logits, or a method's inputs to its output."""
    out, state = model.apply(
        {'params': params, 'edits': edits or {}}, inputs, *args, train=False, method=method,
        capture_intermediates=functools.partial(_is_wanted, keep=keep), mutable=['intermediates'],
    )  # fmt: skip
    return out, _flatten(state.get('intermediates', {}), keep)


def run_embed(
    model: Model, params: Params, images: Array, *, keep: str
) -> tuple[jax.Array, Arrays]:
    """Images to the tokens that enter the first block."""
    return run(model, params, images, keep=keep, method=_embed)


def _embed(model: Model, images: jax.Array, train: bool) -> jax.Array:
    return model.embed(images)  # PatchConvNet's stem is the same in training


def run_block(
    model: Model, params: Params, tokens: jax.Array, layer: Array | int, grid: tuple[int, int], *,
    keep: str, edits: Edits | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Tokens through one block; captured arrays are [1, ...].

    Reads this block's parameters alone, out of the stack's. `layer` may be traced, and `edits` are
    of this block.
    """
    own = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, layer, 1), params['blocks'])
    params, one = {**params, 'blocks': own}, model.clone(depth=1)
    return run(one, params, tokens, grid, keep=keep, edits=edits, method='through')


def run_readout(
    model: Model, params: Params, tokens: jax.Array, *, keep: str, edits: Edits | None = None
) -> tuple[jax.Array, Arrays]:
    """Tokens that leave any block to logits."""
    return run(model, params, tokens, keep=keep, edits=edits, method='readout')


def _is_wanted(module: nn.Module, method: str, keep: str) -> bool:
    return method == '__call__' and bool(re.fullmatch(keep, '/'.join(module.path)))


def _flatten(tree: PyTree, keep: str) -> Arrays:
    """`{path: array}` of matching paths: `__call__` stripped, tuples opened."""
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
