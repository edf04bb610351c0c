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
from vitjax.pretrained.formats import Entry, Weights
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
        for names in self.names:
            found = [tensors[name].astype(np.float32, copy=False) for name in names]
            parts = [self._rearranged(tensor, theirs, ours) for tensor in found]
            layers.append(parts[0] if len(parts) == 1 else np.concatenate(parts, self.entry.axis))
        return np.stack(layers) if self.entry.stacked else layers[0]

    def split(self, parameter: Array) -> dict[str, np.ndarray]:
        """The file's tensors by name, views of the parameter if possible; inverse of `join`."""
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
    if heads and not source.num_classes:
        kept = {name: value for name, value in found.weights.items() if name not in heads}
        report(Change('head', f'head: left out; was {found.num_classes} classes'))
        found = found._replace(weights=kept)
    side = source.trunk.patch_size or 1
    sizes = {'h': side, 'w': side, 'heads': vars(source).get('num_heads', 0)}
    sizes |= {'rows': 7, 'columns': 7}  # VGG16 pools its maps to 7x7
    parameters = {}
    for path, leaf in shapes_of(source, size).items():
        if path not in found.format.table:
            raise ValueError(f'published weights have no {path}, which this model has.')
        parameters[path] = Parameter(found.format.table[path], leaf.shape, sizes)
    _require_match(found, parameters)
    return found, parameters


def _as_in_file(
    found: Contents, model: Module, image_size: int, grid: Grid | None
) -> tuple[Any, int]:
    """The model and image size as the file has them: its patches, positions and classes."""
    fields = vars(model)
    # A head with some tensors missing is damaged, not absent.
    part = any(path.startswith('head') for path in found.held)
    part = part or fields.get('class_tokens_per_class', False)
    classes = found.num_classes or (model.num_classes if part else 0)
    changes: dict[str, Any] = {'num_classes': model.num_classes and classes}
    if patch := found.patch_size:
        changes['patch_size'] = patch
        image_size = patch * model.trunk.grid(image_size)[0]
    if 'position_grid' in fields:  # the file's, as far as it is known
        changes['position_grid'] = grid
    return model.clone(**changes), found.image_size or image_size


def _require_match(found: Contents, parameters: Mapping[str, Parameter]) -> None:
    """Raises ValueError if tensors are missing, surplus, misshapen or not finite, with `few`."""
    wanted: dict[str, np.ndarray] = {}
    for each in parameters.values():
        wanted |= each.split(np.broadcast_to(np.float32(0), each.shape))  # takes no memory
    lines = misfits(shape_texts(found.weights), shape_texts(wanted))
    for name, value in ((n, found.weights[n]) for n in wanted if n in found.weights):
        if not jnp.issubdtype(value.dtype, jnp.floating):
            lines.append(f'  {name}: is {value.dtype}, must be floating point')
        elif not np.isfinite(value).all():
            lines.append(f'  {name}: holds NaN or infinity')
    if lines:
        what = f'the weights ({found.format.name} names) do not fit the model'
        raise ValueError(f'{what}; - missing, + surplus:\n{few(lines)}')
