"""Operations that one platform computes in its own way, and the one place that chooses.

Each operation is plain jax, of `plain`, under which every transformation works. Inside `entered()`
it is the version of the platform that is traced for, `cpu`, `gpu` or `tpu`, if that has one. Those
versions equal the plain ones to rounding. They have hand-written gradients, so they allow reverse
mode alone. A step opens `entered()` inside the function that is traced:

    def train_step(state, batch, key):
        with ops.entered():
            ...

To drop a version, delete it from its platform's file: the plain one then takes its place.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax

from vitjax.ops import cpu, gpu, plain, tpu
from vitjax.ops.attention import device
from vitjax.ops.plain import IMPLEMENTATIONS, Implementation, Mixing, Tap

__all__ = [
    'IMPLEMENTATIONS', 'Implementation', 'Mixing', 'Tap', 'attend', 'convolve', 'device', 'entered',
    'in_thirds', 'layer_norm', 'pool', 'product', 'recomputed', 'thirds',
]  # fmt: skip

_PLATFORMS = {'cpu': cpu, 'gpu': gpu, 'tpu': tpu}

# Part of the key of jax's caches of traced and compiled functions: a function that is jitted,
# scanned or rematerialized in one state is traced anew in the other.
_entered: Any = jax.make_user_context(None)

P = ParamSpec('P')
R = TypeVar('R')


@contextlib.contextmanager
def entered() -> Iterator[None]:
    """Operations traced in this context are those of the platform that is traced for.

    Example:
        >>> import jax.numpy as jnp
        >>> def mean(x):
        ...     return layer_norm(x, jnp.ones(3), jnp.zeros(3)).mean()
        >>> x = jnp.arange(6.0).reshape(2, 3)
        >>> _ = jax.jvp(mean, (x,), (x,))  # plain: any transformation
        >>> with entered():
        ...     _ = jax.grad(mean)(x)  # hand-written: reverse mode alone
    """
    with _entered(device().platform):
        yield


def _chosen(reference: Callable[P, R]) -> Callable[P, R]:
    """The operation that runs the version of the platform entered, or else the reference."""

    @functools.wraps(reference)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        versions = _PLATFORMS.get(_entered.value)
        return getattr(versions, reference.__name__, reference)(*args, **kwargs)

    return run


attend = _chosen(plain.attend)
convolve = _chosen(plain.convolve)
in_thirds = _chosen(plain.in_thirds)
layer_norm = _chosen(plain.layer_norm)
pool = _chosen(plain.pool)
product = _chosen(plain.product)
recomputed = _chosen(plain.recomputed)
thirds = _chosen(plain.thirds)
