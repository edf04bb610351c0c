"""What happens inside a model: activations, attention, and gradients at both.

Built on linen's `capture_intermediates` (module outputs), `sow` (attention weights) and `perturb`
(gradients). Every model offers the same paths where they make sense: `embed`, `blocks`,
`blocks/attention/weights`, `class_blocks`, `norm` and so on, each with a leading depth axis where
it lies in a stack; `paths` lists them all.
"""

import functools
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.types import Array, Arrays, DType, Params, PyTree, Shapes


def capture(
    model: nn.Module, params: Params, images: Array, *, keep: str = '.*'
) -> tuple[jax.Array, Arrays]:
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

    Raises:
        ValueError: if `keep` matches nothing; it lists the paths there are.

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
    """
    _require_match(model, images, keep)
    return _capture(_looking(model), params, images, keep)


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
    _require_match(model, images, keep)
    return _gradients(_looking(model), params, images, target, keep)


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
    """
    model = _looking(model)
    abstract = jax.ShapeDtypeStruct(jnp.shape(images), jnp.result_type(images))
    _, found = jax.eval_shape(lambda p, x: _capture(model, p, x, '.*'), params, abstract)
    return {path: value.shape for path, value in found.items()}


def _looking(model: nn.Module) -> nn.Module:
    """The model on explicit attention; without a setting `attention`, a string, as it is."""
    chosen = isinstance(vars(model).get('attention'), str)
    return model.clone(attention='explicit') if chosen else model


@functools.lru_cache(maxsize=64)
def _known_paths(model: nn.Module, shape: tuple[int, ...], dtype: DType) -> tuple[str, ...]:
    images = jax.ShapeDtypeStruct(shape, dtype)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return tuple(paths(model, shapes['params'], images))


def _require_match(model: nn.Module, images: Array, keep: str) -> None:
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
def _capture(model: nn.Module, params: Params, images: Array, keep: str):
    logits, state = _apply(model, {'params': params}, images, keep, ['intermediates'])
    return logits, _flatten(state['intermediates'], keep)


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


def _apply(model: nn.Module, variables: dict, images: Array, keep: str, mutable: list[str]):
    wanted = functools.partial(_wanted, keep=keep)
    return model.apply(
        variables, images, train=False, capture_intermediates=wanted, mutable=mutable
    )


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
