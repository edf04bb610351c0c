"""Interventions: captured paths overwritten, one edit for all layers of a stack.

An `Edit` holds the places of a captured array to change, and the new value there. Its arrays have
the captured array's axes, depth first, so all layers and places share one compiled program. Edits
can be differentiated, mapped over (`jax.vmap`) and sharded as any arrays.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vitjax.base.types import Array, Arrays, Params
from vitjax.inside.capture import NOTHING, paths, require_match, run, with_explicit_attention
from vitjax.inside.path import Path

How = Callable[[jax.Array, Any], jax.Array]


def put(x: jax.Array, value: Array) -> jax.Array:
    """The value in place of x: 0, a mean, another image's activations, noise."""
    return jnp.broadcast_to(value, x.shape)


def add(x: jax.Array, value: Array) -> jax.Array:
    """X plus the value, as for a steering direction."""
    return x + value


def renormalise(weights: jax.Array, cut: Array) -> jax.Array:
    """Attention weights without the keys that are `cut` (bool), rows summing to 1 again.

    A row whose keys are all cut is zero. `put` of 0 cuts keys without normalising the rest.
    """
    left = jnp.where(cut, 0, weights)
    return left / jnp.maximum(left.sum(-1, keepdims=True), jnp.finfo(left.dtype).tiny)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
    """Edit of a captured array x: `how(x, value)` at the places `where`, x itself elsewhere.

    Attributes:
        where: bool, a number or an array with the captured array's axes, each of its length or 1;
            `places` makes it.
        value: number or array of the same form.
        how: pure function of x and the value, of a single layer: `put`, `add`, `renormalise` or
            your own. It is compiled once per function object.
    """

    where: Any = True
    value: Any = 0.0
    how: How = dataclasses.field(default=put, metadata={'static': True})

    def __call__(self, x: jax.Array) -> jax.Array:
        """A layer's captured array, edited."""
        return jnp.where(self.where, self.how(x, self.value).astype(x.dtype), x)


Edits = Mapping[str, Edit]


def axes(path: str, rank: int) -> tuple[str, ...]:
    """Names of the axes of a captured array.

    >>> axes('blocks', 4)
    ('layers', 'images', 'tokens', 'channels')
    """
    captured = Path(path)
    depth = ('layers',) if captured.stack else ()
    rank -= len(depth)
    if captured.is_attention:
        rest = 'heads', 'queries', 'keys'
    elif captured.name == 'heads':
        rest = 'tokens', 'heads', 'channels'
    elif rank <= 3:
        rest = ('tokens', 'channels')[3 - rank :]
    else:
        rest = 'rows', 'columns', 'channels'
    return (*depth, 'images', *rest)


def places(model: nn.Module, images: Array, path: str, **chosen: int | Sequence[int]) -> np.ndarray:
    """Bool array for `Edit.where`: True at the chosen indices of each axis, all of other axes.

    Args:
        model: as in `vitjax.inside.capture.capture`.
        images: images that it will run on; only the shape is read.
        path: captured path.
        **chosen: indices from 0, by axis: `layers`, `images`, and those of `heads`, `tokens`,
            `channels`, `queries` and `keys` that the path has.

    Raises:
        ValueError: if a path, axis or index is unknown; it lists the choices.

    Example:
        >>> from vitjax.models import ViT
        >>> model = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=5)
        >>> places(model, jnp.ones((7, 8, 8, 3)), 'blocks', layers=2, tokens=[0, 1]).shape
        (3, 1, 5, 1)
    """
    shape = _shape(model, images, path)
    sizes = dict(zip(axes(path, len(shape)), shape, strict=True))
    out = np.ones((), bool)
    for name, size in sizes.items():
        mask = np.ones(1, bool)
        if name in chosen:
            index = np.atleast_1d(chosen.pop(name)).astype(int)
            if len(wrong := index[(index < 0) | (index >= size)]):
                raise ValueError(f'{name} of {path} are 0 to {size - 1}: got {wrong[0]}.')
            mask = np.isin(np.arange(size), index)
        out = np.logical_and.outer(out, mask)
    if chosen:
        there = ', '.join(f'{name} ({size})' for name, size in sizes.items())
        raise ValueError(f'{path} has no axis {[*chosen][0]!r}; it has {there}.')
    return out


def intervene(
    model: nn.Module, params: Params, images: Array, edits: Edits, *, keep: str | None = None
) -> tuple[jax.Array, Arrays]:
    """Runs a model on images [B, H, W, C] with edits inside; returns `(logits, {path: array})`.

    Captured arrays contain the edits. Attention runs as `explicit`, as in `capture`. If a module
    runs more than once (a class block's `norm_1`), its first call is edited, the one that `capture`
    keeps. Pure: it can be jitted, differentiated in the edits' values, and mapped over edits.

    Args:
        model: as in `vitjax.inside.capture.capture`.
        params: its parameters.
        images: normalised images.
        edits: by captured path.
        keep: regular expression over captured paths, as in `capture`; None keeps none.

    Raises:
        ValueError: if a path is unknown, with the model's paths; if an edit's arrays do not fit the
            captured one, with both shapes; and if `keep` matches nothing.

    Example:
        Without the first head of the last layer.

        >>> from vitjax.models import ViT
        >>> model = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=5)
        >>> images, path = jnp.ones((2, 8, 8, 3)), 'blocks/attention/heads'
        >>> params = model.init(jax.random.key(0), images)['params']
        >>> edit = Edit(places(model, images, path, layers=2, heads=0))
        >>> logits, found = intervene(model, params, images, {path: edit}, keep=path)
        >>> float(abs(found[path][2, :, :, 0]).max()), bool((found[path][:2] != 0).all())
        (0.0, True)
    """
    if keep is not None:
        require_match(model, images, keep)
    fitted = {path: fit(model, images, path, edit) for path, edit in edits.items()}
    return _intervene(with_explicit_attention(model), params, images, fitted, keep or NOTHING)


@functools.partial(jax.jit, static_argnames=('model', 'keep'))
def _intervene(
    model: nn.Module, params: Params, images: Array, edits: Edits, keep: str
) -> tuple[jax.Array, Arrays]:
    return edited(functools.partial(run, model, params, images), edits, keep)


def edited(
    part: Callable[..., tuple[jax.Array, Arrays]], edits: Edits, keep: str
) -> tuple[jax.Array, Arrays]:
    """Runs a part of a model with edits that fit; returns its output and captured arrays.

    Args:
        part: `part(keep=..., edits=...)`, one of the functions of `vitjax.inside.capture`.
        edits: by captured path, each made by `fit`.
        keep: regular expression over captured paths.
    """
    # A module is edited until it is captured, so what is edited is captured.
    both = '|'.join([f'(?:{keep})', *map(re.escape, edits)])
    with _writing(edits) as collection:
        out, found = part(keep=both, edits=collection)
    return out, {path: value for path, value in found.items() if re.fullmatch(keep, path)}


def _shape(model: nn.Module, images: Array, path: str) -> tuple[int, ...]:
    known = paths(model, images)
    if path not in known:
        kind = type(model).__name__
        raise ValueError(f'{kind} has no path {path!r} to edit; it has {", ".join(known)}.')
    return known[path]


def fit(model: nn.Module, images: Array, path: str, edit: Edit, *, variants: bool = False) -> Edit:
    """The edit with arrays of the captured one's rank, and of its depth in a stack.

    With `variants`, an axis of them follows the layers', and a depth of 1 stays.
    """
    shape = _shape(model, images, path)
    wanted: list[Any] = [*shape[:1], *['any'] * variants, *shape[1:]]

    def fit_leaf(leaf: Array) -> Array:
        own = jnp.shape(leaf) or (1,) * len(wanted)
        pairs = zip(own, wanted, strict=False)
        if len(own) != len(wanted) or any(a not in (1, b) and b != 'any' for a, b in pairs):
            raise ValueError(
                f'an edit at {path} must be a number or have each axis as long as what is captured '
                f'there or 1: {[*own]} does not fit {wanted}.'.replace("'", '')
            )
        leaf = jnp.asarray(leaf).reshape(own)
        if Path(path).stack and not variants:
            leaf = jnp.broadcast_to(leaf, (shape[0], *own[1:]))
        return leaf

    return jax.tree.map(fit_leaf, edit)


@contextlib.contextmanager
def _writing(edits: Edits) -> Iterator[dict[str, Any]]:
    """Writes edits at module outputs and taps of a model traced within.

    Yields the model's collection `edits`.

    Raises:
        ValueError: at the end, if an edit was never used, as at a path that a module sows itself.
    """
    used: set[str] = set()
    collection: dict[str, Any] = {}

    def writer(path: str, edit: Edit, x: jax.Array) -> jax.Array:
        used.add(path)
        return edit(x)

    for path, edit in edits.items():
        node = collection
        for name in Path(path).parts:
            node = node.setdefault(name, {})
        # A path is a module's output, or an array that a module taps by this name.
        node['__call__'] = jax.tree_util.Partial(functools.partial(writer, path), edit)

    def write_output(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        value, module = call(*args, **kwargs), context.module
        # The first call alone is edited, also if the base class's `__call__` makes it.
        captured = module.has_variable('intermediates', '__call__')
        if context.method_name != '__call__' or captured or not module.path:
            return value
        if not module.has_variable('edits', '__call__'):
            return value
        edit = module.get_variable('edits', '__call__')
        return (edit(value[0]), *value[1:]) if isinstance(value, tuple) else edit(value)

    with nn.intercept_methods(write_output):
        yield collection
    if missing := sorted(edits.keys() - used):
        raise ValueError(f'{", ".join(missing)} can be captured but not edited.')
