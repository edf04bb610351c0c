"""Change what happens inside: captured paths replaced, as data along depth.

An `Edit` says where a captured array changes, and to what. It has the array's axes, depth first, so
that all layers and sites share one compiled program; edits can be differentiated, mapped over
(`jax.vmap`) and split over devices as any arrays. `intervene` runs a model with edits, `sweep` the
same edit at one layer after another, each from the input of its layer on.
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
from vitjax.inside.capture import (
    NOTHING,
    enter,
    known_paths,
    leave,
    looking,
    one_layer,
    require_blocks,
    require_match,
    run,
)
from vitjax.inside.path import STACKS, Path

How = Callable[[jax.Array, Any], jax.Array]


def put(x: jax.Array, value: Array) -> jax.Array:
    """The value instead: 0, a mean, another image's activations, noise."""
    return jnp.broadcast_to(value, x.shape)


def add(x: jax.Array, value: Array) -> jax.Array:
    """The value added, as a direction is."""
    return x + value


def renormalise(weights: jax.Array, cut: Array) -> jax.Array:
    """Attention weights without the keys that are `cut` (bool), rows summing to 1 again.

    A row whose keys are all cut is zero. `put` of 0 is the same without the second half.
    """
    left = jnp.where(cut, 0, weights)
    return left / jnp.maximum(left.sum(-1, keepdims=True), jnp.finfo(left.dtype).tiny)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Edit:
    """What to write at a captured path: `how(x, value)` where `where`, x itself elsewhere.

    Attributes:
        where: bool, a number or an array of the axes of the captured one, each as long or 1;
            `places` makes it.
        value: the same, of numbers.
        how: a pure function of what would be there and the value, of one layer alone; `put`, `add`,
            `renormalise` or your own. It is compiled once a function object.
    """

    where: Any = True
    value: Any = 0.0
    how: How = dataclasses.field(default=put, metadata={'static': True})

    def __call__(self, x: jax.Array) -> jax.Array:
        """The captured array of a layer with the edit in it."""
        return jnp.where(self.where, self.how(x, self.value).astype(x.dtype), x)


Edits = Mapping[str, Edit]


def axes(path: str, rank: int) -> tuple[str, ...]:
    """Names of the axes of a captured array."""
    where = Path(path)
    stacked = where.stack is not None
    if where.is_attention:
        rest = 'heads', 'queries', 'keys'
    elif where.name == 'heads':
        rest = 'tokens', 'heads', 'channels'
    else:
        names = {1: (), 2: ('channels',), 3: ('tokens', 'channels')}
        rest = names.get(rank - stacked, ('rows', 'columns', 'channels'))
        return ('layers',) * stacked + (('images', *rest[: rank - stacked - 1]))
    return ('layers',) * stacked + ('images', *rest)


def places(model: nn.Module, images: Array, path: str, **chosen: int | Sequence[int]) -> np.ndarray:
    """A bool array for `Edit.where`: true at the indices chosen of each axis, all of the others.

    Args:
        model: any that `vitjax.inside.capture` takes.
        images: what it will run on; only the shape is read.
        path: captured path.
        **chosen: indices from 0, by axis: `layers`, `images`, and `heads`, `tokens`, `channels`,
            `queries` or `keys` where the path has them.

    Raises:
        ValueError: for an unknown path, axis or index; it lists what there is.

    Example:
        >>> from vitjax.models import ViT
        >>> model = ViT(patch_size=4, width=8, depth=3, num_heads=2, num_classes=5)
        >>> places(model, jnp.ones((7, 8, 8, 3)), 'blocks', layers=2, tokens=[0, 1]).shape
        (3, 1, 5, 1)
    """
    shape = _shape(model, images, path)
    sizes = dict(zip(axes(path, len(shape)), shape, strict=True))
    out = np.ones((1,) * len(shape), bool)
    for axis, (name, size) in enumerate(sizes.items()):
        if name not in chosen:
            continue
        index = np.atleast_1d(chosen.pop(name)).astype(int)
        wrong = index[(index < 0) | (index >= size)]
        if wrong.size:
            raise ValueError(f'{name} of {path} are 0 to {size - 1}: got {wrong[0]}.')
        mask = np.isin(np.arange(size), index)
        out = out & np.expand_dims(mask, [i for i in range(len(shape)) if i != axis])
    if chosen:
        there = ', '.join(f'{name} ({size})' for name, size in sizes.items())
        raise ValueError(f'{path} has no axis {[*chosen][0]!r}; it has {there}.')
    return out


def intervene(
    model: nn.Module, params: Params, images: Array, edits: Edits, *, keep: str | None = None
) -> tuple[jax.Array, Arrays]:
    """Runs a model on images [B, H, W, C] with edits inside; returns `(logits, {path: array})`.

    What is found is what the edits left there. Attention runs as `explicit`, as in `capture`. Where
    a module runs more than once (a class block's `norm_1`), the edit is of its first call, which is
    the one that `capture` keeps. Pure: it can be jitted, differentiated in the edits' values, and
    mapped over edits.

    Args:
        model: as in `vitjax.inside.capture.capture`.
        params: its parameters.
        images: normalised images.
        edits: by captured path.
        keep: regular expression over captured paths, as in `capture`; None keeps none.

    Raises:
        ValueError: for an unknown path, with those there are; for an edit whose arrays do not fit
            the captured one, with both shapes; and if `keep` matches nothing.

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
    fitted = {path: _fit(model, images, path, edit) for path, edit in edits.items()}
    return _intervene(looking(model), params, images, fitted, keep or NOTHING)


@functools.partial(jax.jit, static_argnames=('model', 'keep'))
def _intervene(
    model: nn.Module, params: Params, images: Array, edits: Edits, keep: str
) -> tuple[jax.Array, Arrays]:
    with _writing(edits) as collection:
        logits, found = run(model, params, images, keep=_also(keep, edits), edits=collection)
    return logits, _matching(found, keep)


def sweep(
    model: nn.Module, params: Params, images: Array, edits: Edits, *, keep: str | None = None,
    layers: Sequence[int] | None = None, span: int = 1, at_once: int = 1,
    always: Edits | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Variants of edits at one layer after another: `(logits [L, V, B, classes], {path: array})`.

    Every variant at every layer, in one compiled program; `intervene` with the same edit at that
    layer alone gives the same. Each pass starts from the input of its layer, which is computed once
    for all of them: half the arithmetic of whole passes. Forward only; memory is one pass's.

    Args:
        model: a model of `vitjax.models` with `blocks`.
        params: its parameters.
        images: normalised images.
        edits: by captured path, all of one stack. Their arrays have an axis more than those of
            `intervene`, the variants', after the layers' (which may be 1): [L, V, B, ...].
        keep: regular expression over captured paths after the blocks, as in `norm`; its arrays are
            [L, V, ...] too. None keeps none.
        layers: from 0, where to edit; None takes all of the stack.
        span: of how many layers, from that one on.
        at_once: variants that run as one batch. One is best on CPU.
        always: edits of other paths of `blocks`, as in `intervene`, that every pass has.

    Raises:
        ValueError: as `intervene`; for paths of different stacks or of none, or `always` of those
            that are swept.
    """
    require_blocks(model)
    stacks = {Path(path).stack for path in edits}
    stack = next(iter(stacks), None)
    if len(stacks) != 1 or stack is None:
        there = ' or '.join(STACKS)
        raise ValueError(f'a sweep is over the layers of {there}: got {", ".join(sorted(edits))}.')
    if keep is not None:
        require_match(model, images, keep)
    fitted = {path: _fit(model, images, path, edit, extra=1) for path, edit in edits.items()}
    wrong = [path for path in always or {} if path in edits or Path(path).stack != 'blocks']
    if wrong:
        raise ValueError(f'always takes other paths of blocks than the swept ones: got {wrong[0]}.')
    held = {path: _fit(model, images, path, edit) for path, edit in (always or {}).items()}
    depth = _shape(model, images, next(iter(edits)))[0]
    chosen = range(depth) if layers is None else layers
    if wrong := [layer for layer in chosen if not 0 <= layer < depth]:
        raise ValueError(f'layers of {stack} are 0 to {depth - 1}: got {wrong[0]}.')
    index = jnp.array(sorted(chosen), jnp.int32)
    how = stack, keep or NOTHING, span, at_once
    return _sweep(looking(model), params, images, fitted, held, index, *how)


@functools.partial(jax.jit, static_argnames=('model', 'stack', 'keep', 'span', 'at_once'))
def _sweep(
    model: Any, params: Params, images: Array, edits: Edits, held: Edits, layers: jax.Array,
    stack: str, keep: str, span: int, at_once: int,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    variants = max(leaf.shape[1] for leaf in jax.tree.leaves(edits))
    grid = model.trunk.grid(*images.shape[1:3])
    depth = model.trunk.stacks[stack]
    blocks = model.trunk.stacks['blocks']

    def plain(layer: jax.Array, tokens: jax.Array) -> jax.Array:
        return written({}, layer, tokens)

    def written(edits: Edits, layer: jax.Array, tokens: jax.Array) -> jax.Array:
        own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, layer, 1), dict(held))
        edits = {**own, **edits}
        with _writing(edits) as collection:
            keep = _also(NOTHING, edits)
            out, _ = one_layer(model, params, tokens, layer, grid, keep=keep, edits=collection)
        return out

    def in_blocks(tokens: jax.Array, layer: jax.Array, variant: jax.Array):
        def body(i: jax.Array, tokens: jax.Array) -> jax.Array:
            return written(_slice(edits, (i, variant)), i, tokens)

        end = jnp.minimum(layer + span, depth)
        tokens = jax.lax.fori_loop(layer, end, body, tokens) if span > 1 else body(layer, tokens)
        return leave(model, params, jax.lax.fori_loop(end, depth, plain, tokens), keep=keep)

    def in_class_blocks(tokens: jax.Array, layer: jax.Array, variant: jax.Array):
        here = jnp.arange(depth)
        here = (here >= layer) & (here < layer + span)
        with _writing(_gated(_slice(edits, (None, variant)), here)) as collection:
            both = _also(keep, edits)
            logits, found = leave(model, params, tokens, keep=both, edits=collection)
        return logits, _matching(found, keep)

    def at(carry: tuple[jax.Array, jax.Array], layer: jax.Array):
        # The input of this layer, made from that of the last one.
        reached, tokens = carry
        end = layer if stack == 'blocks' else blocks
        tokens = jax.lax.fori_loop(reached, end, plain, tokens)
        one = in_blocks if stack == 'blocks' else in_class_blocks
        pick = functools.partial(one, tokens, layer)
        batch = {'batch_size': at_once} if at_once > 1 else {}
        return (jnp.asarray(end), tokens), jax.lax.map(pick, jnp.arange(variants), **batch)

    tokens, _ = enter(model, params, images, keep=NOTHING)
    (_, _), out = jax.lax.scan(at, (jnp.asarray(0), tokens), layers)
    return out


def _slice(edits: Edits, index: tuple[jax.Array | None, jax.Array]) -> Edits:
    """Edits at a layer (None keeps all) and variant: arrays [1 or L, ...]."""

    def pick(leaf: jax.Array) -> jax.Array:
        for axis, i in enumerate(index):
            if i is not None and leaf.shape[axis] > 1:
                leaf = jax.lax.dynamic_slice_in_dim(leaf, i, 1, axis)
        return leaf[:, 0]

    return jax.tree.map(pick, dict(edits))


def _gated(edits: Edits, here: jax.Array) -> Edits:
    """Edits of a whole stack, at the layers that are `here` [L] alone."""

    def over(leaf: jax.Array) -> jax.Array:
        return jnp.broadcast_to(leaf, (len(here), *leaf.shape[1:]))

    def one(edit: Edit) -> Edit:
        gate = here.reshape(-1, *[1] * (edit.where.ndim - 1))
        both = over(edit.where) & gate
        return dataclasses.replace(edit, where=both, value=jax.tree.map(over, edit.value))

    return {path: one(edit) for path, edit in edits.items()}


def _also(keep: str, edits: Edits) -> str:
    """`keep` and the edited paths: that a module was captured says that it was edited."""
    return '|'.join([f'(?:{keep})', *map(re.escape, edits)])


def _matching(found: Arrays, keep: str) -> Arrays:
    return {path: value for path, value in found.items() if re.fullmatch(keep, path)}


def _shape(model: nn.Module, images: Array, path: str) -> tuple[int, ...]:
    known = known_paths(model, images)
    if path not in known:
        kind = type(model).__name__
        raise ValueError(f'{kind} has no path {path!r} to edit; it has {", ".join(known)}.')
    return known[path]


def _fit(model: nn.Module, images: Array, path: str, edit: Edit, extra: int = 0) -> Edit:
    """The edit with arrays of the captured one's rank, and its depth where it has one.

    `extra` more axes follow the layers: those of variants.
    """
    shape = _shape(model, images, path)

    def fit(leaf: Array) -> Array:
        own = jnp.shape(leaf)
        free = range(1, 1 + extra)
        wanted = [*shape[:1], *(own[1 : 1 + extra] if own else [1] * extra), *shape[1:]]
        fits = len(own) in (0, len(wanted)) and all(
            i in free or a in (1, b) for i, (a, b) in enumerate(zip(own, wanted, strict=False))
        )
        if not fits:
            named = [*shape[:1], *['any'] * extra, *shape[1:]]
            raise ValueError(
                f'an edit at {path} must be a number or have each axis as long as what is captured '
                f'there or 1: {[*own]} does not fit {named}.'.replace("'", '')
            )
        leaf = jnp.asarray(leaf).reshape(own or (1,) * len(wanted))
        if Path(path).stack and not extra:
            leaf = jnp.broadcast_to(leaf, (shape[0], *leaf.shape[1:]))
        return leaf

    return jax.tree.map(fit, edit)


@contextlib.contextmanager
def _writing(edits: Edits) -> Iterator[dict[str, Any]]:
    """Writes at module outputs and taps while a model is traced; yields its collection `edits`.

    Raises:
        ValueError: on leaving, for edits that nothing asked for: a path that a module sows itself.
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
        # As the output of a module, and as what its parent taps: one of them will ask for it.
        write = jax.tree_util.Partial(functools.partial(writer, path), edit)
        node['__call__'] = write

    def write_output(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        value, module = call(*args, **kwargs), context.module
        # Captured already: an inner call of the base class's `__call__`, or an earlier one.
        known = module.has_variable('intermediates', '__call__')
        if context.method_name != '__call__' or known or not module.path:
            return value
        if not module.has_variable('edits', '__call__'):
            return value
        edit = module.get_variable('edits', '__call__')
        return (edit(value[0]), *value[1:]) if isinstance(value, tuple) else edit(value)

    with nn.intercept_methods(write_output):
        yield collection
    if missing := sorted(edits.keys() - used):
        raise ValueError(f'{", ".join(missing)} can be captured but not edited.')
