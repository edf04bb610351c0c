"""Parameters at one size as parameters at another: image size, patch size, number of classes."""

import functools
import math
import re
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp

from vitjax.base.files import few
from vitjax.base.types import Params
from vitjax.layers.dense import kernel_init
from vitjax.layers.embed import square_grid
from vitjax.layers.resample import resample_patch_kernel, resample_positions
from vitjax.models.base import Model, parameter_shapes


class Change(NamedTuple):
    """One thing that was settled or changed between a file and the parameters asked for.

    Attributes:
        what: `model`, `patch kernel`, `positions` or `head`.
        text: the same in a line to read, which is also what `str` gives.
    """

    what: str
    text: str

    def __str__(self) -> str:  # rich prints a tuple's fields: pass it str(change)
        return self.text


Report = Callable[[Change], object]
Grid = tuple[int, int]  # rows and columns of patches


def resize(
    params: Params, model: Model, image_size: int, *, grid: Grid | None = None,
    antialias: bool = True, seed: int = 0, report: Report = print,
) -> dict[str, Any]:  # fmt: skip
    """Parameters of a model at one size as parameters of `model`, at `image_size` pixels.

    The two may differ in image size, patch size and number of classes: position embeddings are
    resampled (bicubic), so are patch kernels (FlexiViT's pseudo-inverse resize, see
    `resample_patch_kernel`), and a head for another number of classes starts afresh.

    Args:
        params: the parameters.
        model: the model to fit them to, with its own patch size and number of classes.
        image_size: side of its images in pixels.
        grid: rows and columns of the patches that the positions are for; None is a square.
        antialias: how positions are resampled, as in `resample_positions`.
        seed: seed of a fresh head's initial values.
        report: called with each `Change` made.

    Raises:
        ValueError: if the patch size does not divide the image size; if the positions are not of
            the grid; if the models differ in more, with a few of the parameters that do not fit.

    Example:
        >>> from vitjax.models import ViT
        >>> model = ViT(patch_size=4, width=8, depth=1, num_heads=2)
        >>> params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
        >>> params = resize(params, model, 16)
        position embeddings: 2x2 -> 4x4 patches, bicubic, antialiased
        >>> params['embed']['position']['table'].shape
        (17, 8)
    """
    wanted = shapes_of(model, image_size)
    flat = dict(flatten(params))
    kernel, table = 'embed/patch/projection/kernel', 'embed/position/table'
    if kernel in flat and kernel in wanted:
        old, new = (math.isqrt(x[kernel].shape[0] // 3) for x in (flat, wanted))
        if old != new:
            flat[kernel] = resample_patch_kernel(flat[kernel], old, new)
            how = 'by pseudo-inverse'
            report(Change('patch kernel', f'patch kernel: {old} -> {new} pixels, {how}'))
    if table in flat and table in wanted:
        prefix = len(flat.get('embed/class_token', ()))
        old = grid or square_grid(flat[table].shape[0] - prefix)
        new = vars(model).get('position_grid') or model.trunk.grid(image_size)
        if old is None:
            count = flat[table].shape[0] - prefix
            raise ValueError(f'position embeddings must be of a square grid: they are {count}.')
        if old != new:
            flat[table] = resample_positions(
                flat[table], old, new, prefix=prefix, antialias=antialias
            )
            how = 'antialiased' if antialias else 'not antialiased'
            sides = ' -> '.join(f'{rows}x{columns}' for rows, columns in (old, new))
            text = f'position embeddings: {sides} patches, bicubic, {how}'
            report(Change('positions', text))
    old, new = _classes(flat), _classes(wanted)
    if old != new:
        key = jax.random.key(seed)
        flat = {path: value for path, value in flat.items() if not _of_classes(path, wanted)}
        for path in filter(lambda path: _of_classes(path, wanted), wanted):
            own = jax.random.fold_in(key, zlib.crc32(path.encode()))
            shape = wanted[path].shape
            flat[path] = jnp.zeros(shape) if path.endswith('bias') else kernel_init(own, shape)
        was = f'{old} classes' if old else 'none'
        report(Change('head', f'head: {f"fresh, {new} classes" if new else "left out"}; was {was}'))
    if lines := misfits(flat, wanted):
        raise ValueError(
            f'the parameters cannot be made to fit {type(model).__name__} at {image_size} pixels; '
            '- missing, + surplus:\n' + few(lines)
        )
    return unflatten({path: jnp.asarray(value) for path, value in flat.items()})


def misfits(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """A line for each array that is missing (-), surplus (+) or misshapen."""
    old, new = ({name: [*x.shape] for name, x in tree.items()} for tree in (found, wanted))
    lines = [f'- {name} {shape}' for name, shape in new.items() if name not in old]
    lines += [f'+ {name} {shape}' for name, shape in old.items() if name not in new]
    both = [name for name in new if name in old]
    return lines + [f'  {n}: is {old[n]}, must be {new[n]}' for n in both if old[n] != new[n]]


def _classes(flat: Mapping[str, Any]) -> int:
    biases = [flat[path].shape[0] for path in ('head/output/bias', 'head/bias') if path in flat]
    return biases[0] if biases else 0


def _of_classes(path: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a parameter belongs to classes: the heads', and one class token for each class."""
    per_class = 'head/kernel' in wanted and wanted['head/kernel'].shape[0] == _classes(wanted)
    head = re.match('head(_distilled)?/(output|kernel|bias)', path)
    return bool(head) or (per_class and path == 'class_token')


@functools.lru_cache(maxsize=16)
def shapes_of(model: Model, image_size: int) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shapes of a model's parameters by path; computes nothing."""
    return types.MappingProxyType(flatten(parameter_shapes(model, image_size)))


def flatten(tree: Params) -> dict[str, Any]:
    """Parameters by path, as `blocks/norm_1/scale`."""
    return flax.traverse_util.flatten_dict(tree, sep='/')


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    return flax.traverse_util.unflatten_dict(flat, sep='/')
