"""Published weights as parameters of our models: everything fits, or nothing is converted."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import einops
import jax.numpy as jnp
import numpy as np

from vitjax.base.files import few
from vitjax.base.types import Array, Module
from vitjax.models.base import Model
from vitjax.pretrained.entries import Entry, Weights
from vitjax.pretrained.recognise import Contents, contents
from vitjax.pretrained.resize import (
    Change,
    Grid,
    Report,
    misfits,
    resize,
    shape_texts,
    shapes_of,
    unflatten,
)


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
    found, parameters = match(weights, model, image_size, grid=grid, report=report)
    params = {path: each.join(found.weights) for path, each in parameters.items()}
    table, placed = 'embed/position/table', found.prefix_positions[1]
    lacking = getattr(model, 'placed_tokens', 0) - placed if table in params else 0
    if lacking > 0:  # a position of zeros is none
        params[table] = np.insert(params[table], [placed] * lacking, 0, axis=0)
    # transformers resamples with antialiasing only in DINOv2 with registers.
    antialias = found.format.antialias or 'embed/registers' in params
    return resize(
        unflatten(params), model, image_size, grid=grid, antialias=antialias, seed=seed,
        report=report,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a model, and the way from a file's tensors to it and back.

    Attributes:
        entry: its entry in the format's table.
        shape: its shape.
        sizes: lengths of the axes of patterns that shapes do not tell, by axis.
    """

    entry: Entry
    shape: tuple[int, ...]
    sizes: Mapping[str, int]

    @functools.cached_property
    def names(self) -> list[list[str]]:
        """Names of the tensors in the file: for each layer, its parts."""
        first, *rest = self.shape if self.entry.stacked else (1, *self.shape)
        # A plain ViT has the first of two class tokens.
        parts = self.entry.names[: rest[self.entry.axis] if rest else 1]
        return [[name.replace('{i}', str(layer)) for name in parts] for layer in range(first)]

    def join(self, tensors: Weights) -> np.ndarray:
        """The parameter in float32: tensors rearranged, parts concatenated, layers stacked."""
        theirs, ours = self.entry.layouts
        layers = []
        number, of = self.entry.part
        for names in self.names:
            found = [tensors[name].astype(np.float32, copy=False) for name in names]
            if of > 1:
                found = [np.split(tensor, of)[number] for tensor in found]
            parts = [self._rearranged(tensor, theirs, ours) for tensor in found]
            layers.append(parts[0] if len(parts) == 1 else np.concatenate(parts, self.entry.axis))
        return np.stack(layers) if self.entry.stacked else layers[0]

    def split(self, parameter: Array) -> dict[str, np.ndarray]:
        """The file's tensors by name, or this parameter's part of them; inverse of `join`."""
        theirs, ours = self.entry.layouts
        out = {}
        layers = np.asarray(parameter) if self.entry.stacked else [np.asarray(parameter)]
        for names, layer in zip(self.names, layers, strict=True):
            parts = [layer] if len(names) == 1 else np.split(layer, len(names), self.entry.axis)
            for name, part in zip(names, parts, strict=True):
                out[name] = self._rearranged(np.asarray(part), ours, theirs)
        return out

    def _rearranged(self, array: np.ndarray, old: str, new: str) -> np.ndarray:
        axes = re.findall(r'\w+', old)
        sizes = {axis: size for axis, size in self.sizes.items() if axis in axes}
        return einops.rearrange(array, f'{old} -> {new}', **sizes)


def in_file(
    parameters: Mapping[str, Parameter], values: Mapping[str, Array]
) -> dict[str, np.ndarray]:
    """Values of parameters by path as the tensors of their file, by name."""
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for path, parameter in parameters.items():
        for name, piece in parameter.split(values[path]).items():
            pieces.setdefault(name, {})[parameter.entry.part[0]] = piece
    whole = {name: [found[i] for i in sorted(found)] for name, found in pieces.items()}
    return {
        name: parts[0] if len(parts) == 1 else np.concatenate(parts)
        for name, parts in whole.items()
    }  # fmt: skip


def match(
    weights: Weights, model: Model, image_size: int, *, grid: Grid | None = None,
    report: Report = print,
) -> tuple[Contents, dict[str, Parameter]]:  # fmt: skip
    """The contents of a file, and the parameters of `model` by path, as the file has them.

    The first half of `convert`: checks everything, copies nothing.

    Raises:
        ValueError: as `convert` does.
    """
    shapes_of(model, image_size)  # raises first of all if the size is impossible
    found = contents(weights, type(model))
    source, size = _as_in_file(found, model, image_size, grid)
    heads = [name for path in found.held if path.startswith('head') for name in found.held[path]]
    left_out: list[str] = []
    if model.num_classes != found.num_classes:  # a layer of the published head alone
        left_out += [name for name in found.weights if name.startswith('pre_logits')]
    if heads and not source.num_classes:
        left_out += heads
        report(Change('head', f'head: left out; was {found.num_classes} classes'))
    kept = {name: value for name, value in found.weights.items() if name not in left_out}
    found = found._replace(weights=kept)
    sizes = axis_lengths(source)
    parameters = {}
    for path, leaf in shapes_of(source, size).items():
        if path not in found.table:
            raise ValueError(f'published weights have no {path}, which this model has.')
        parameters[path] = Parameter(found.table[path], leaf.shape, sizes)
    _require_match(found, parameters)
    return found, parameters


def axis_lengths(model: Module) -> dict[str, int]:
    """Lengths of the axes of patterns that shapes do not tell, by axis."""
    side = model.trunk.patch_size or 1
    heads = vars(model).get('num_heads', 0)
    # VGG16 pools its maps to 7x7.
    return {'h': side, 'w': side, 'heads': heads, 'rows': 7, 'columns': 7}


def _as_in_file(
    found: Contents, model: Module, image_size: int, grid: Grid | None
) -> tuple[Any, int]:
    """The model and image size as the file has them: its patches, positions and classes."""
    fields = vars(model)
    changes: dict[str, Any] = {}
    if patch := found.patch_size:
        changes['patch_size'] = patch
        image_size = patch * model.trunk.grid(image_size)[0]
    if 'position_grid' in fields:  # the file's, as far as it is known
        changes['position_grid'] = grid
    # In other files a missing row is damage.
    if 'prefix_positions' in fields and {'embed/registers', 'blocks/scale_1/scale'} & {*found.held}:
        changes['prefix_positions'] = found.prefix_positions[0]
    if wanted := model.num_classes:
        # A head with some tensors missing is damaged, not absent.
        part = any(path.startswith('head') for path in found.held)
        part = part or fields.get('class_tokens_per_class', False)
        changes['num_classes'] = found.num_classes or (wanted if part else 0)
    return model.clone(**changes), found.image_size or image_size


def _require_match(found: Contents, parameters: Mapping[str, Parameter]) -> None:
    """Raises ValueError if tensors are missing, surplus, misshapen or not finite, with `few`."""
    empty = np.float32(0)
    wanted = in_file(
        parameters,
        {path: np.broadcast_to(empty, p.shape) for path, p in parameters.items()},  # no memory
    )
    lines = misfits(shape_texts(found.weights), shape_texts(wanted))
    for name, value in ((n, found.weights[n]) for n in wanted if n in found.weights):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            lines.append(f'  {name}: is {value.dtype}, must be floating point')
        elif not np.isfinite(value).all():
            lines.append(f'  {name}: holds NaN or infinity')
    if lines:
        raise ValueError(
            f'the weights ({found.format.name} names) do not fit the model; - missing, + surplus:\n'
            + few(lines)
        )
