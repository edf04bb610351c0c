"""Names of arrays, trees and keys in signatures, and the state of a training run."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import flax.struct
import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray  # on a device, traced, or on the host
Key: TypeAlias = jax.Array  # a typed key: `jax.random.key`, `split`, `fold_in`
Format: TypeAlias = Literal['png', 'pdf', 'svg']  # of a figure's file
DType: TypeAlias = Any  # whatever numpy takes for one: 'bfloat16', jnp.float32, array.dtype

Module: TypeAlias = Any  # a linen module, for rooms that do not import flax

PyTree: TypeAlias = Any  # nested containers with arrays as their leaves
Params: TypeAlias = Mapping[str, Any]  # of one model: nested by module name, leaves are Array
Shapes: TypeAlias = Mapping[str, Any]  # the same tree with jax.ShapeDtypeStruct as its leaves
Arrays: TypeAlias = dict[str, jax.Array]  # by captured path: 'blocks/attention/weights'


def stacked(path: Sequence[Any]) -> bool:
    """Returns True if a parameter's path leads into a stack: its first axis is the depth."""
    return any(str(getattr(entry, 'key', '')).endswith('blocks') for entry in path)


@flax.struct.dataclass
class TrainState:
    """State of a training run: what a step returns and a checkpoint stores.

    Attributes:
        step: number of steps taken.
        params: parameters of the model.
        opt_state: state of the optimizer.
        ema: moving average of the parameters; None if the run keeps none.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree
    ema: PyTree = None
