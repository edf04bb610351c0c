"""Measured time and memory of functions, on the device that jax has."""

import functools
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vitjax.base.types import PyTree


def seconds(fn: Callable[..., Any], args: Any, repeats: int) -> float:
    """The median time of a call in seconds, the device synchronised, after one that warms up.

    >>> import jax, jax.numpy as jnp
    >>> 0 < seconds(jax.jit(jnp.sin), (jnp.ones(3),), repeats=5) < 60
    True

    Args:
        fn: compiled, or jitted: the call that warms up compiles it.
        args: of a call.
        repeats: calls that are timed.
    """
    took = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn(*args))
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def measure(
    fn: Callable, shapes: PyTree, *, flops: int, repeats: int, dtype: str = 'float32', runs: int = 1
) -> dict[str, Any]:
    """Compiles and times a function on random arguments.

    Args:
        fn: to be jitted.
        shapes: of its arguments, `jax.ShapeDtypeStruct` leaves.
        flops: of one run, without what is recomputed, as Chowdhery et al. (2022, appendix B) count
            utilisation.
        repeats: calls, of which the median is taken.
        dtype: of the arithmetic, whose `peak` utilisation is a share of.
        runs: of something in one call: seconds are of one.

    Returns:
        `status` (ok, or `out of memory` where the compiler asks for more than the device has or the
        device itself runs out: times are then NaN), `compile_seconds`, `seconds`, `bytes`
        (`program_bytes`), `flops`,
        `flops_per_second`, `utilisation` (0 to 1).
    """
    names = ('compile_seconds', 'seconds', 'bytes', 'flops', 'flops_per_second', 'utilisation')
    row: dict[str, Any] = {'status': 'ok', **dict.fromkeys(names, math.nan), 'flops': flops}
    try:
        program, row['compile_seconds'] = compiled(fn, shapes)
        row['bytes'] = program_bytes(program)
        if row['bytes'] > device_bytes():
            return row | {'status': 'out of memory'}
        row['seconds'] = seconds(program, random_arrays(shapes), repeats) / runs
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return row | {'status': 'out of memory'}
    speed = flops / row['seconds']
    return row | {'flops_per_second': speed, 'utilisation': speed / peak(dtype)}


def compiled(fn: Callable[..., Any], shapes: PyTree) -> tuple[Any, float]:
    """A function compiled for arguments of these shapes, and the seconds that took."""
    start = time.perf_counter()
    program = jax.jit(fn).lower(*shapes).compile()
    return program, time.perf_counter() - start


def program_bytes(program: Any) -> int:
    """What arguments, results and temporaries of a compiled program take, as the compiler says."""
    memory = program.memory_analysis()
    return (
        memory.argument_size_in_bytes + memory.output_size_in_bytes
        + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    )  # fmt: skip


def backward(run: Callable[..., jax.Array], argnums: Any = 0) -> Callable[..., Any]:
    """`run`'s gradient at some arguments: of the sum of squares, which depends on every output."""

    def scalar(*args: Any) -> jax.Array:
        return jnp.square(run(*args).astype(jnp.float32)).sum()

    return jax.value_and_grad(scalar, argnums)


@functools.cache
def peak(dtype: str) -> float:
    """FLOP/s of one large matrix product: what this device reaches, not what its sheet says."""
    side = 2048 if jax.default_backend() == 'cpu' else 8192
    args = random_arrays((jax.ShapeDtypeStruct((side, side), dtype),) * 2)
    return 2 * side**3 / seconds(jax.jit(jnp.dot), args, 5)


def device_bytes() -> float:
    """Memory of the device that runs: what it reports, else the machine's."""
    reported = jax.devices()[0].memory_stats() or {}
    return reported.get('bytes_limit') or os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def random_arrays(shapes: PyTree) -> PyTree:
    """Arrays of the shapes and dtypes of a tree, normal with deviation 0.1, the same each time."""
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    draw = zip(keys, leaves, strict=True)
    return tree.unflatten([0.1 * jax.random.normal(k, s.shape, s.dtype) for k, s in draw])
