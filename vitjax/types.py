"""What arrays, trees and keys are called in signatures."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray  # on a device, traced, or on the host
Key: TypeAlias = jax.Array  # a typed key: `jax.random.key`, `split`, `fold_in`
DType: TypeAlias = Any  # whatever numpy takes for one: 'bfloat16', jnp.float32, array.dtype

Module: TypeAlias = Any  # a linen module, where flax is not imported

PyTree: TypeAlias = Any  # nested containers with arrays as their leaves
Params: TypeAlias = Mapping[str, Any]  # of one model: nested by module name, leaves are Array
Shapes: TypeAlias = Mapping[str, Any]  # the same tree with jax.ShapeDtypeStruct as its leaves
Arrays: TypeAlias = dict[str, jax.Array]  # by captured path: 'blocks/attention/weights'


def stacked(path: Sequence[Any]) -> bool:
    """Whether a parameter's path leads into a stack: its first axis is then the depth."""
    return any(str(getattr(entry, 'key', '')).endswith('blocks') for entry in path)
