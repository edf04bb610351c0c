"""Parameters at another size: image size, patch size or number of classes."""

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
    """A decision or change between a file and the returned parameters.

    Attributes:
        what: `model`, `parameters`, `patch kernel`, `positions`, `head` or `assumed`.
        text: the change in a line, as `str` returns it.
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

    The two may differ in image size, patch size and number of classes. Position embeddings are
    resampled (bicubic), and patch kernels too (FlexiViT's pseudo-inverse resize, see
    `resample_patch_kernel`). A head for another number of classes starts afresh.

    Args:
        params: the parameters.
        model: the model to fit them to, with its own patch size and number of classes.
        image_size: side of its images in pixels.
        grid: rows and columns of the patches that the positions are for; None is a square.
        antialias: True resamples positions with antialiasing (see `resample_positions`).
        seed: seed of a fresh head's initial values.
        report: called with each `Change` made.

    Raises:
        ValueError: if the patch size does not divide the image size; if the positions do not fit
            the grid; if the models differ otherwise, with a few of the misfits.

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
            text = f'patch kernel: {old} -> {new} pixels, by pseudo-inverse'
            report(Change('patch kernel', text))
    if table in flat and table in wanted:
        prefix = len(flat.get('embed/class_token', ()))
        count = flat[table].shape[0] - prefix
        old = grid or square_grid(count)
        new = vars(model).get('position_grid') or model.trunk.grid(image_size)
        if old is None:
            raise ValueError(f'position embeddings must be of a square grid: they are {count}.')
        if old != new:
            flat[table] = resample_positions(
                flat[table], old, new, prefix=prefix, antialias=antialias
            )
            sides = f'{old[0]}x{old[1]} -> {new[0]}x{new[1]} patches'
            how = 'bicubic, antialiased' if antialias else 'bicubic, not antialiased'
            report(Change('positions', f'position embeddings: {sides}, {how}'))
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
    if lines := misfits(shape_texts(flat), shape_texts(wanted)):
        raise ValueError(
            f'the parameters cannot be made to fit {type(model).__name__} at {image_size} pixels; '
            '- missing, + surplus:\n' + few(lines)
        )
    return unflatten({path: jnp.asarray(value) for path, value in flat.items()})


def misfits(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Lines on arrays, described by name, that are missing (-), surplus (+) or different."""
    lines = [f'- {name} {text}' for name, text in wanted.items() if name not in found]
    lines += [f'+ {name} {text}' for name, text in found.items() if name not in wanted]
    both = [(name, found[name], wanted[name]) for name in wanted if name in found]
    return lines + [f'  {name}: is {old}, must be {new}' for name, old, new in both if old != new]


def shape_texts(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Shapes of arrays by name, as text for `misfits`."""
    return {name: str([*each.shape]) for name, each in arrays.items()}


def _classes(flat: Mapping[str, Any]) -> int:
    biases = [flat[path].shape[0] for path in ('head/output/bias', 'head/bias') if path in flat]
    return biases[0] if biases else 0


def _of_classes(path: str, wanted: Mapping[str, Any]) -> bool:
    """True for parameters that depend on the classes: heads, and one class token per class."""
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
