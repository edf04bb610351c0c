"""Sharded parameters of `fsdp`, gathered where a module reads them.

A step on a sharded batch and sharded parameters can gather either. Left to itself, XLA's
partitioner gathers the batch's activations, which are larger. Here each parameter is gathered where
a module reads it, one layer at a time inside the scan over depth. Its gradient is reduced and
scattered there, and what modules return stays split by image. Models know nothing of it: they
receive parameters in boxes, which flax opens where they are read.

Temporaries of a training step of ViT-S/16 in bfloat16, 16 images a chip, as XLA compiles it for v5e
chips that were absent: 0.58 GB a chip on 8, 0.56 on 256. With activations gathered, 4.9 on 256.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import flax.struct
import jax
from flax.core.meta import AxisMetadata
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitjax.base.types import Params, stacked
from vitjax.ops.gradients import gathered


def split_axis(path: Sequence[Any], shape: tuple[int, ...], devices: int) -> int | None:
    """Axis of a parameter, or of its moments, that is split over devices; None splits none.

    It is the longest axis that they divide, if a layer has 2¹⁴ numbers or more. It is never the
    depth axis of a stack, which the scan walks along. It counts from the end, so that it is the
    same for one layer of a stack.
    """
    layer = shape[int(stacked(path)) :]
    axes = [a for a in range(-len(layer), 0) if layer[a] % devices == 0]
    if not axes or math.prod(layer) < 2**14:
        return None
    return max(axes, key=lambda a: layer[a])


def split_along(mesh: Mesh, axis: int | None, ndim: int) -> NamedSharding:
    """Sharding of an array of `ndim` axes along one axis of a mesh; with None, replicated."""
    (name,) = mesh.axis_names
    spec = [] if axis is None else [name if a == ndim + axis else None for a in range(ndim)]
    return NamedSharding(mesh, PartitionSpec(*spec))


def boxed(params: Params, mesh: Mesh) -> Any:
    """Parameters, the split ones in boxes that gather them where a module reads them."""

    def box(path: Sequence[Any], value: jax.Array) -> Any:
        axis = split_axis(path, value.shape, mesh.size)
        return value if axis is None else _Box(value, axis, mesh)

    return jax.tree_util.tree_map_with_path(box, params)


class _Box(flax.struct.PyTreeNode, AxisMetadata[jax.Array]):
    """A parameter split along `axis`, counted from the end: a scan may take the first one away."""

    value: jax.Array
    axis: int = flax.struct.field(pytree_node=False)
    mesh: Mesh = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def unbox(self) -> jax.Array:
        # Without a layout of its own the gradient would be whole too: an all-reduce, where a
        # reduce-scatter sends less.
        axes = (None, self.axis)
        whole, split = (split_along(self.mesh, axis, self.value.ndim) for axis in axes)
        return gathered(self.value, whole, split)

    def replace_boxed(self, val: Any) -> Any:
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> '_Box':
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> '_Box':
        return self


def by_image(mesh: Mesh, batch_size: int) -> AbstractContextManager[None]:
    """Context in which modules, when traced, return arrays that are split by image.

    These are all arrays whose first axis has `batch_size` entries. Without it, PatchConvNet-S60
    compiled for eight H100s gathers the queries of its pooling, which start as one class token for
    all images.
    """

    def keep(x: Any) -> Any:
        if isinstance(x, jax.Array) and x.ndim and len(x) == batch_size:
            return jax.lax.with_sharding_constraint(x, split_along(mesh, -x.ndim, x.ndim))
        return x

    def interceptor(method: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
        returned = method(*args, **kwargs)
        return jax.tree.map(keep, returned) if context.method_name == '__call__' else returned

    return nn.intercept_methods(interceptor)
