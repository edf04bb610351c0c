"""Sweeps: the same edits at one layer after another, each pass from the input of its layer on."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.base.types import Array, Arrays, Params
from vitjax.inside.capture import (
    NOTHING,
    BlockModel,
    require_blocks,
    require_match,
    run_block,
    run_embed,
    run_readout,
    with_explicit_attention,
)
from vitjax.inside.intervene import Edit, Edits, edited, fit
from vitjax.inside.path import STACKS, Path


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
    blocks = require_blocks(with_explicit_attention(model))
    stack, *others = {Path(path).stack for path in edits} or {None}
    if stack is None or others:
        raise ValueError(
            f'a sweep is over the layers of {" or ".join(STACKS)}: got {", ".join(sorted(edits))}.'
        )
    if keep is not None:
        require_match(model, images, keep)
    fitted = {path: fit(model, images, path, edit, variants=True) for path, edit in edits.items()}
    always = always or {}
    if wrong := [path for path in always if path in edits or Path(path).stack != 'blocks']:
        raise ValueError(f'always takes other paths of blocks than the swept ones: got {wrong[0]}.')
    always = {path: fit(model, images, path, edit) for path, edit in always.items()}
    depth = blocks.trunk.stacks[stack]
    chosen = sorted(range(depth) if layers is None else layers)
    if wrong := [layer for layer in chosen if not 0 <= layer < depth]:
        raise ValueError(f'layers of {stack} are 0 to {depth - 1}: got {wrong[0]}.')
    sweep_stack = _sweep_blocks if stack == 'blocks' else _sweep_class_blocks
    return sweep_stack(
        blocks, params, images, fitted, always, jnp.array(chosen, jnp.int32), keep or NOTHING, span,
        at_once,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=('model', 'keep', 'span', 'at_once'))
def _sweep_blocks(
    model: BlockModel, params: Params, images: Array, edits: Edits, always: Edits,
    layers: jax.Array, keep: str, span: int, at_once: int,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    depth = model.trunk.stacks['blocks']
    block = _block(model, params, images, always)

    def from_layer(tokens: jax.Array, layer: jax.Array, variant: jax.Array):
        own = _of_variant(edits, variant)
        end = jnp.minimum(layer + span, depth)
        tokens = jax.lax.fori_loop(layer, end, functools.partial(block, edits=own), tokens)
        tokens = jax.lax.fori_loop(end, depth, block, tokens)
        return run_readout(model, params, tokens, keep=keep)

    def at_layer(reached: tuple[jax.Array, jax.Array], layer: jax.Array):
        tokens = jax.lax.fori_loop(reached[0], layer, block, reached[1])
        start = functools.partial(from_layer, tokens, layer)
        return (layer, tokens), _map_variants(start, edits, at_once)

    tokens, _ = run_embed(model, params, images, keep=NOTHING)
    return jax.lax.scan(at_layer, (jnp.int32(0), tokens), layers)[1]


@functools.partial(jax.jit, static_argnames=('model', 'keep', 'span', 'at_once'))
def _sweep_class_blocks(
    model: BlockModel, params: Params, images: Array, edits: Edits, always: Edits,
    layers: jax.Array, keep: str, span: int, at_once: int,
) -> tuple[jax.Array, Arrays]:  # fmt: skip
    stacks = model.trunk.stacks
    tokens, _ = run_embed(model, params, images, keep=NOTHING)
    block = _block(model, params, images, always)
    tokens = jax.lax.fori_loop(0, stacks['blocks'], block, tokens)

    def read_out(layer: jax.Array, variant: jax.Array):
        depth = jnp.arange(stacks['class_blocks'])
        own = _at_layers(_of_variant(edits, variant), (depth >= layer) & (depth < layer + span))
        return edited(functools.partial(run_readout, model, params, tokens), own, keep)

    def at_layer(layer: jax.Array):
        return _map_variants(functools.partial(read_out, layer), edits, at_once)

    return jax.lax.map(at_layer, layers)


def _block(model: BlockModel, params: Params, images: Array, always: Edits) -> Callable:
    """`(layer, tokens) -> tokens`: a block with the edits of every pass, and `edits` if given."""
    grid = model.trunk.grid(*images.shape[1:3])

    def block(layer: jax.Array, tokens: jax.Array, edits: Edits | None = None) -> jax.Array:
        own = _slice({**always, **(edits or {})}, layer, axis=0)
        run = functools.partial(run_block, model, params, tokens, layer, grid)
        return edited(run, own, NOTHING)[0]

    return block


def _map_variants(fn: Callable, edits: Edits, at_once: int) -> Any:
    """Results of `fn(variant)` for each variant of edits, stacked."""
    count = max(leaf.shape[1] for leaf in jax.tree.leaves(edits))
    return jax.lax.map(fn, jnp.arange(count), batch_size=at_once if at_once > 1 else None)


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

    def limit(edit: Edit) -> Edit:
        def over(leaf: jax.Array) -> jax.Array:
            return jnp.broadcast_to(leaf, (len(layers), *leaf.shape[1:]))

        where = over(edit.where) & layers.reshape(-1, *[1] * (edit.where.ndim - 1))
        return dataclasses.replace(edit, where=where, value=jax.tree.map(over, edit.value))

    return {path: limit(edit) for path, edit in edits.items()}
