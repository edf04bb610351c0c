"""Published weights as parameters of our models: everything fits, or nothing is converted."""

import re
from typing import Any, NamedTuple

import einops
import jax.numpy as jnp
import numpy as np

from vitjax.base.files import few
from vitjax.base.types import Module
from vitjax.models.base import Model
from vitjax.pretrained.formats import CONVOLUTION, DENSE, FORMATS, TOKENS, VECTOR, Table, Weights
from vitjax.pretrained.recognise import Contents, contents
from vitjax.pretrained.resize import Change, Grid, Report, misfits, resize, shapes_of, unflatten


def convert(
    weights: Weights, model: Model, image_size: int, *, grid: Grid | None = None, seed: int = 0,
    report: Report = print,
) -> dict[str, Any]:  # fmt: skip
    """Published weights as parameters of `model` for images of `image_size` pixels.

    Position embeddings and patch kernels are resampled if the grid or patch size differs, and the
    head starts afresh if the number of classes does (see `resize`).

    Args:
        weights: tensors by name, as `read` returns them: timm's and DeiT's names for ViT, CaiT and
            PatchConvNet, the transformers library's for ViT and DINOv2, AugReg's for ViT,
            torchvision's for VGG16.
        model: the model to convert them to.
        image_size: side of its images in pixels.
        grid: rows and columns of the patches that the weights' positions are for; None is a square.
        seed: seed of a fresh head's initial values.
        report: called with each `Change` made on the way.

    Raises:
        ValueError: if tensors are missing, surplus, misshapen or not finite, with a few; if the
            names are of no known format; if the patch size does not divide the image size; if
            the weights have no position for each patch of the grid.
    """
    label, origins = match(weights, model, image_size, grid=grid, report=report)
    params = {path: assemble(origin) for path, origin in origins.items()}
    # transformers resamples without antialiasing, except in DINOv2 with registers.
    antialias = not label.startswith('transformers') or 'embed/registers' in params
    return resize(
        unflatten(params), model, image_size, grid=grid, antialias=antialias, seed=seed,
        report=report,
    )  # fmt: skip


class Origin(NamedTuple):
    """What a parameter is made of: tensors in a file, and their way to our layout.

    Attributes:
        tensors: of each layer of a stack, its parts.
        stacked: whether layers are stacked, on a first axis of depth.
        axis: that parts are concatenated on, in our layout.
        pattern: einops', from the file's layout to ours.
        sizes: of axes that the pattern splits.
    """

    tensors: list[list[np.ndarray]]
    stacked: bool
    axis: int
    pattern: str
    sizes: dict[str, int]


class _Entry(NamedTuple):
    """An `Origin` without its tensors yet: their names, and an array of the shape of each."""

    names: list[list[str]]
    like: np.ndarray
    origin: Origin


def match(
    weights: Weights, model: Model, image_size: int, *, grid: Grid | None = None,
    report: Report = print,
) -> tuple[str, dict[str, Origin]]:  # fmt: skip
    """The format of weights, and the tensors of each parameter of `model` as the file has it.

    The first half of `convert`: checks everything, copies nothing.

    Raises:
        ValueError: as `convert` does.
    """
    shapes_of(model, image_size)  # before all else, raises for an impossible size
    holds = contents(weights, type(model))
    weights, held = holds.weights, holds.held
    source, size = _as_in_file(holds, model, image_size, grid)
    heads = [name for path in held if path.startswith('head') for name in held[path]]
    if heads and not vars(source)['num_classes']:
        weights = {name: value for name, value in weights.items() if name not in heads}
        report(Change('head', f'head: left out; was {holds.num_classes} classes'))
    entries = _entries(source, FORMATS[holds.label][1], size)
    _require_match(weights, entries, holds.label)
    return holds.label, {
        path: origin._replace(tensors=[[weights[n] for n in parts] for parts in names])
        for path, (names, _, origin) in entries.items()
    }


def _as_in_file(
    holds: Contents, model: Module, image_size: int, grid: Grid | None
) -> tuple[Any, int]:
    """The model and image size as the file has them: its patches, positions and classes."""
    fields = vars(model)
    changes: dict[str, Any] = {}
    if patch := holds.patch_size:
        changes['patch_size'] = patch
        image_size = patch * model.trunk.grid(image_size)[0]
    if 'position_grid' in fields:  # the file's, as far as it is known
        changes['position_grid'] = grid
    if wanted := fields['num_classes']:
        # A head of which only a part is there is not absent, but damaged.
        part = any(path.startswith('head') for path in holds.held)
        part = part or fields.get('class_tokens_per_class', False)
        changes['num_classes'] = holds.num_classes or (wanted if part else 0)
    return model.clone(**changes), holds.image_size or image_size


def _entries(model: Module, table: Table, image_size: int) -> dict[str, _Entry]:
    """Where each parameter of a model is to be found, by its path."""
    side = model.trunk.patch_size or 7  # VGG16 pools its maps to 7x7
    sizes = {'h': side, 'w': side, 'heads': vars(model).get('num_heads', 0)}
    out: dict[str, _Entry] = {}
    for path, leaf in shapes_of(model, image_size).items():
        parts, pattern = _names_of(table, path)
        stacked = '{i}' in parts[0]
        shape = list(leaf.shape[1:] if stacked else leaf.shape)
        axis = 0 if pattern == TOKENS else -1
        if len(parts) > 1:
            parts = parts[: shape[axis]]  # a plain ViT has the first of two class tokens
            shape[axis] //= len(parts)
        layers = range(leaf.shape[0] if stacked else 1)
        names = [[name.replace('{i}', str(i)) for name in parts] for i in layers]
        pattern = pattern or (VECTOR, DENSE, '', CONVOLUTION)[len(shape) - 1]
        theirs, ours = pattern.split('->')
        like = np.broadcast_to(np.float32(0), shape)  # takes no memory
        like = einops.rearrange(like, f'{ours} -> {theirs}', **_merged(ours, sizes))
        origin = Origin([], stacked, axis, pattern, _merged(theirs, sizes))
        out[path] = _Entry(names, like, origin)
    return out


def _names_of(table: Table, path: str) -> tuple[list[str], str]:
    """The names in a file of a parameter's parts, and their pattern: '' is PyTorch's."""
    module, _, leaf = path.rpartition('/')
    entry = table.get(path, table.get(module))
    if entry is None:
        raise ValueError(f'published weights have no {path}, which this model has.')
    names, pattern = (entry, '') if isinstance(entry, str) else entry
    if path not in table and leaf != 'kernel':  # a module's pattern is its kernel's
        pattern = ''
    if names.endswith('/'):
        return [name + leaf for name in names.split()], pattern or '... -> ...'
    if names.endswith('.'):
        leaf = 'bias' if leaf == 'bias' else 'weight'
        return [name + leaf for name in names.split()], pattern
    return names.split(), pattern


def _merged(side: str, sizes: dict[str, int]) -> dict[str, int]:
    """The sizes of the axes that one side of a pattern has in parentheses."""
    axes = ' '.join(re.findall(r'\((.*?)\)', side)).split()
    return {axis: sizes[axis] for axis in axes if axis in sizes}


def _require_match(weights: Weights, entries: dict[str, _Entry], label: str) -> None:
    """Raises ValueError if tensors are missing, surplus, misshapen or not finite, with `few`."""
    wanted = {name: e.like for e in entries.values() for parts in e.names for name in parts}
    lines = misfits(weights, wanted)
    for name, value in ((name, weights[name]) for name in wanted if name in weights):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            lines.append(f'  {name}: is {value.dtype}, must be floating point')
        elif not np.isfinite(value).all():
            lines.append(f'  {name}: holds NaN or infinity')
    if lines:
        raise ValueError(
            f'the weights ({label} names) do not fit the model; - missing, + surplus:\n'
            + few(lines)
        )


def assemble(origin: Origin) -> np.ndarray:
    """A parameter from its tensors: rearranged, parts concatenated, layers stacked; float32."""

    def rearranged(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.astype(np.float32, copy=False)
        return einops.rearrange(tensor, origin.pattern, **origin.sizes)

    layers = [[rearranged(part) for part in parts] for parts in origin.tensors]
    layers = [p[0] if len(p) == 1 else np.concatenate(p, origin.axis) for p in layers]
    return np.stack(layers) if origin.stacked else layers[0]
