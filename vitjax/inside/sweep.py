"""Sweeps: the same edits at one layer after another, each pass from the input of its layer on."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base.types import Array, Arrays, Params
from vitjax.inside import capture
from vitjax.inside.capture import NOTHING
from vitjax.inside.intervene import Edit, Edits, edited, fit
from vitjax.inside.path import STACKS, Path
from vitjax.models.base import Model


def sweep(
    model: nn.Module, params: Params, images: Array, edits: Edits, *, keep: str | None = None,
    layers: Sequence[int] | None = None, span: int = 1, at_once: int = 1,
    always: Edits | None = None,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    """Variants of edits at one layer after another: `(logits [L, V, B, classes], {path: array})`.

    Every variant at every layer, in one compiled program; `intervene` with the same edit at that
    layer alone gives the same. Each pass starts at the input of its layer, which all variants
    share: half the arithmetic of whole passes. Forward only, in the memory of one pass.

    Args:
        model: a model of `vitjax.models` with `blocks`.
        params: its parameters.
        images: normalised images.
        edits: by captured path, all of one stack. Their arrays are [L, V, B, ...]: those of
            `intervene` with an axis of variants after the layers', either of which may be 1.
        keep: regular expression over captured paths after the blocks, as in `norm`; the arrays are
            [L, V, ...]. None keeps none.
        layers: layers to edit, from 0; None takes all of the stack.
        span: number of neighbouring layers that each pass edits, from that layer on.
        at_once: variants per batch. One is fastest on CPU.
        always: edits of other paths of `blocks`, as in `intervene`, in every pass.

    Raises:
        ValueError: as `intervene`; if the paths are of several stacks or of none; if `always` has a
            path that is swept.
    """
    explicit = capture.require_blocks(capture.with_explicit_attention(model))
    stack, *others = {Path(path).stack for path in edits} or {None}
    if stack is None or others:
        raise ValueError(
            f'a sweep is over the layers of {" or ".join(STACKS)}: got {", ".join(sorted(edits))}.'
        )
    if keep is not None:
        capture.require_match(model, images, keep)
    fitted = {path: fit(model, images, path, edit, variants=True) for path, edit in edits.items()}
    always = always or {}
    if wrong := [path for path in always if path in edits or Path(path).stack != 'blocks']:
        raise ValueError(f'always takes other paths of blocks than the swept ones: got {wrong[0]}.')
    always = {path: fit(model, images, path, edit) for path, edit in always.items()}
    depth = explicit.trunk.stacks[stack]
    chosen = sorted(range(depth) if layers is None else layers)
    if wrong := [layer for layer in chosen if not 0 <= layer < depth]:
        raise ValueError(f'layers of {stack} are 0 to {depth - 1}: got {wrong[0]}.')
    index = jnp.array(chosen, jnp.int32)
    return _sweep(
        explicit, params, images, fitted, always, index, stack, keep or NOTHING, span, at_once
    )


@functools.partial(jax.jit, static_argnames=('model', 'stack', 'keep', 'span', 'at_once'))
def _sweep(
    model: Model, params: Params, images: Array, edits: Edits, always: Edits, layers: jax.Array,
    stack: str, keep: str, span: int, at_once: int,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    depth, grid = model.trunk.stacks, model.trunk.grid(*images.shape[1:3])
    variants = jnp.arange(max(leaf.shape[1] for leaf in jax.tree.leaves(edits)))
    each = functools.partial(
        jax.lax.map, xs=variants, batch_size=at_once if at_once > 1 else None
    )  # fmt: skip

    def through(tokens: jax.Array, first: Any, last: Any, edits: Edits | None = None) -> jax.Array:
        """Tokens through some blocks, with the edits of every pass and maybe others."""

        def block(layer: jax.Array, tokens: jax.Array) -> jax.Array:
            own = _slice({**always, **(edits or {})}, layer, axis=0)
            run = functools.partial(capture.run_block, model, params, tokens, layer, grid)
            return edited(run, own, NOTHING)[0]

        return jax.lax.fori_loop(first, last, block, tokens)

    def at_block(reached: tuple[jax.Array, jax.Array], layer: jax.Array):
        tokens = through(reached[1], reached[0], layer)

        def with_variant(variant: jax.Array) -> tuple[jax.Array, Arrays]:
            end = jnp.minimum(layer + span, depth['blocks'])
            left = through(tokens, layer, end, _of_variant(edits, variant))
            return capture.run_readout(
                model, params, through(left, end, depth['blocks']), keep=keep
            )

        return (layer, tokens), each(with_variant)

    tokens, _ = capture.run_embed(model, params, images, keep=NOTHING)
    if stack == 'blocks':
        return jax.lax.scan(at_block, (jnp.int32(0), tokens), layers)[1]
    tokens = through(tokens, 0, depth['blocks'])
    places = jnp.arange(depth[stack])

    def at_class_block(layer: jax.Array) -> tuple[jax.Array, Arrays]:
        here = (places >= layer) & (places < layer + span)

        def with_variant(variant: jax.Array) -> tuple[jax.Array, Arrays]:
            own = _at_layers(_of_variant(edits, variant), here)
            return edited(functools.partial(capture.run_readout, model, params, tokens), own, keep)

        return each(with_variant)

    return jax.lax.map(at_class_block, layers)


def _of_variant(edits: Edits, variant: jax.Array) -> Edits:
    """Edits [1 or L, ...] of a variant, from [1 or L, 1 or V, ...]."""
    return jax.tree.map(lambda leaf: leaf[:, 0], _slice(edits, variant, axis=1))


def _slice(edits: Edits, index: jax.Array, axis: int) -> Edits:
    """Edits at one index of an axis, which stays; an axis of length 1 stands for all indices."""

    def one(leaf: jax.Array) -> jax.Array:
        whole = leaf.shape[axis] == 1
        return leaf if whole else jax.lax.dynamic_slice_in_dim(leaf, index, 1, axis)

    return jax.tree.map(one, dict(edits))


def _at_layers(edits: Edits, layers: jax.Array) -> Edits:
    """Edits of a whole stack, limited to `layers`, bool [L]."""

    def limited(edit: Edit) -> Edit:
        edit = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(layers), *x.shape[1:])), edit)
        here = layers.reshape(-1, *[1] * (edit.where.ndim - 1))
        return dataclasses.replace(edit, where=edit.where & here)

    return {path: limited(edit) for path, edit in edits.items()}
