"""Published weights to parameters of our models, whole or not at all."""

import math
import re
from typing import Any, NamedTuple

import einops
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vitjax.pretrained.formats import (
    CONVOLUTION,
    DENSE,
    FORMATS,
    IGNORED,
    VECTOR,
    Table,
    Weights,
)
from vitjax.pretrained.recognise import (
    Held,
    classes_of,
    format_of,
    image_size_of,
    patch_size_of,
    strip,
    tensors_of,
)
from vitjax.pretrained.resize import Change, Report, resize, shapes_of, unflatten


def convert(
    weights: Weights,
    model: nn.Module,
    image_size: int,
    *,
    seed: int = 0,
    report: Report = print,
) -> Any:
    """Published weights as parameters of `model` for images of `image_size` pixels.

    Position embeddings and patch kernels are resampled where the grid or patch size differs, and
    the head starts afresh where the number of classes does (see `resize`).

    Args:
        weights: tensors by name, as `read` returns them: timm's and DeiT's names for ViT, CaiT and
            PatchConvNet, the transformers library's for ViT and DINOv2, AugReg's for ViT,
            torchvision's for VGG16.
        model: the module wanted.
        image_size: side in pixels of the images wanted.
        seed: of a fresh head.
        report: is called with each `Change` made on the way.

    Raises:
        ValueError: if a tensor is missing, surplus, misshapen or not finite, with all of them; if
            the names are of no known format; if the patch size does not divide the image size.
    """
    label, origins = match(weights, model, image_size, report=report)
    params = {path: assemble(origin) for path, origin in origins.items()}
    # transformers resamples without antialiasing, except in DINOv2 with registers.
    antialias = not label.startswith('transformers') or 'embed/registers' in params
    return resize(
        unflatten(params), model, image_size, antialias=antialias, seed=seed, report=report
    )


class Origin(NamedTuple):
    """What a parameter is made of: tensors in a file, and their way to our layout."""

    tensors: list[list[np.ndarray]]  # of each layer of a stack, its parts
    stacked: bool
    pattern: str
    sizes: dict[str, int]  # of axes that the pattern splits


def match(
    weights: Weights, model: nn.Module, image_size: int, *, report: Report = print
) -> tuple[str, dict[str, Origin]]:
    """The format of weights, and the tensors of each parameter of `model` as the file has it.

    The first half of `convert`: it checks everything and copies nothing.

    Raises:
        ValueError: as `convert` does.
    """
    shapes_of(model, image_size)  # an impossible size is the first thing to hear of
    weights = {k: v for k, v in strip(weights).items() if not IGNORED.fullmatch(k)}
    label = format_of(weights, type(model))
    table = FORMATS[label][1]
    weights |= _class_position(tensors_of(weights, table))
    held = tensors_of(weights, table)
    source, size = _as_in_file(held, model, image_size)
    heads = [name for path in held if path.startswith('head') for name in held[path]]
    if heads and not source.num_classes:
        weights = {name: value for name, value in weights.items() if name not in heads}
        report(Change('head', f'head: left out; was {classes_of(held)} classes'))
    entries = _entries(source, table, size)
    _require_match(weights, entries, label)
    return label, {
        path: Origin([[weights[n] for n in layer] for layer in names], stacked, pattern, sizes)
        for path, (names, stacked, pattern, sizes, _) in entries.items()
    }


def _class_position(held: Held) -> dict[str, np.ndarray]:
    """Positions with a row of zeros for the class token, which timm's with registers lack."""
    if 'embed/registers' not in held:
        return {}
    positions = held.get('embed/position/table', {})
    return {
        name: np.pad(value, ((0, 0), (1, 0), (0, 0)))
        for name, value in positions.items()
        if value.ndim == 3 and math.isqrt(value.shape[1]) ** 2 == value.shape[1]
    }


def _as_in_file(held: Held, model: nn.Module, image_size: int) -> tuple[Any, int]:
    """The model and image size as the file has them: its patches, positions and classes."""
    wanted: Any = model
    changes: dict[str, Any] = {}
    if patch := patch_size_of(held):
        changes['patch_size'] = patch
        image_size = patch * (image_size // wanted.patch_size)
    if wanted.num_classes:
        # A head of which only a part is there is not absent, but damaged.
        part = any(path.startswith('head') for path in held)
        part = part or getattr(wanted, 'class_tokens_per_class', False)
        changes['num_classes'] = classes_of(held) or (wanted.num_classes if part else 0)
    return wanted.clone(**changes), image_size_of(held) or image_size


def _entries(model: Any, table: Table, image_size: int) -> dict[str, Any]:
    """For each parameter: its `Origin` with names for tensors, and the shape of such a tensor."""
    sides = getattr(model, 'patch_size', 7)  # VGG16 pools its maps to 7x7
    sizes = {'h': sides, 'w': sides, 'heads': getattr(model, 'num_heads', 0)}
    out: dict[str, Any] = {}
    for path, leaf in shapes_of(model, image_size).items():
        name, pattern = _name(table, path)
        stacked = '{i}' in name
        shape = leaf.shape[1:] if stacked else leaf.shape
        layers = [name.replace('{i}', str(i)) for i in range(leaf.shape[0] if stacked else 1)]
        parts = ('query', 'key', 'value') if '{qkv}' in name else ('',)
        names = [[layer.replace('{qkv}', part) for part in parts] for layer in layers]
        shape = (*shape[:-1], shape[-1] // len(parts)) if shape else shape
        pattern = pattern or (VECTOR, DENSE, '', CONVOLUTION)[len(shape) - 1]
        theirs, ours = pattern.split('->')
        there = einops.rearrange(
            np.broadcast_to(np.float32(0), shape),  # takes no memory
            f'{ours} -> {theirs}',
            **_merged(ours, sizes),
        )
        out[path] = names, stacked, pattern, _merged(theirs, sizes), there.shape
    return out


def _name(table: Table, path: str) -> tuple[str, str]:
    """The name that a parameter has in a file, and its pattern: '' is PyTorch's."""
    module, _, leaf = path.rpartition('/')
    if path in table:
        return table[path]
    if module not in table:
        raise ValueError(f'published weights have no {path}, which this model has.')
    if table[module].endswith('/'):
        return table[module] + leaf, '... -> ...'
    return table[module] + ('bias' if leaf == 'bias' else 'weight'), ''


def _merged(side: str, sizes: dict[str, int]) -> dict[str, int]:
    """The sizes of the axes that one side of a pattern has in parentheses."""
    axes = ' '.join(re.findall(r'\((.*?)\)', side)).split()
    return {axis: sizes[axis] for axis in axes if axis in sizes}


def _require_match(weights: Weights, entries: dict[str, Any], label: str) -> None:
    """Raises ValueError with every tensor that is missing, surplus, misshapen or not finite."""
    wanted = {
        name: shape for names, *_, shape in entries.values() for layer in names for name in layer
    }
    lines = [f'- {name} {list(shape)}' for name, shape in wanted.items() if name not in weights]
    lines += [
        f'+ {name} {list(value.shape)}' for name, value in weights.items() if name not in wanted
    ]
    for name, shape in wanted.items():
        value = weights.get(name)
        if value is None:
            continue
        if value.shape != shape:
            lines.append(f'  {name}: is {list(value.shape)}, must be {list(shape)}')
        elif not jnp.issubdtype(value.dtype, jnp.floating):
            lines.append(f'  {name}: is {value.dtype}, must be floating point')
        elif not np.isfinite(value).all():
            lines.append(f'  {name}: holds NaN or infinity')
    if lines:
        raise ValueError(
            f'the weights ({label} names) do not fit the model; - missing, + surplus:\n'
            + '\n'.join(lines)
        )


def assemble(origin: Origin) -> np.ndarray:
    """A parameter from its tensors: rearranged, parts concatenated, layers stacked; float32."""

    def rearranged(tensor: np.ndarray) -> np.ndarray:
        return einops.rearrange(
            tensor.astype(np.float32, copy=False), origin.pattern, **origin.sizes
        )

    layers = [
        np.concatenate([rearranged(part) for part in parts], -1)
        if len(parts) > 1
        else rearranged(parts[0])
        for parts in origin.tensors
    ]
    return np.stack(layers) if origin.stacked else layers[0]
