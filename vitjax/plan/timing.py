"""Measured time and memory of functions on the local device."""

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
    """Median time of a synchronised call in seconds, after one call to warm up.

    >>> import jax, jax.numpy as jnp
    >>> 0 < seconds(jax.jit(jnp.sin), (jnp.ones(3),), repeats=5) < 60
    True

    Args:
        fn: compiled or jitted function; the first call may compile it.
        args: its arguments.
        repeats: number of timed calls.
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
        fn: function to be jitted.
        shapes: its arguments, with `jax.ShapeDtypeStruct` leaves.
        flops: operations of one run without recomputation, as Chowdhery et al. (2022, appendix B)
            define utilisation.
        repeats: number of timed calls, for the median.
        dtype: dtype of the arithmetic, whose `peak` is a utilisation of 1.
        runs: number of runs in one call; seconds are of one run.

    Returns:
        `status`, `compile_seconds`, `seconds`, `bytes` (`program_bytes`), `flops`,
        `flops_per_second` and `utilisation` (0 to 1). The status is `ok`, or `out of memory` if the
        compiler asks for more than the device has or the device runs out; times are then NaN.
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
    """A function compiled for arguments of these shapes, and the seconds of compilation."""
    start = time.perf_counter()
    program = jax.jit(fn).lower(*shapes).compile()
    return program, time.perf_counter() - start


def program_bytes(program: Any) -> int:
    """Bytes of a compiled program's arguments, results and temporaries, by the compiler's count."""
    memory = program.memory_analysis()
    return (
        memory.argument_size_in_bytes + memory.output_size_in_bytes
        + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    )  # fmt: skip


def backward(run: Callable[..., jax.Array], argnums: Any = 0) -> Callable[..., Any]:
    """Gradient of the sum of squares of `run`'s outputs, which depends on every output."""

    def scalar(*args: Any) -> jax.Array:
        return jnp.square(run(*args).astype(jnp.float32)).sum()

    return jax.value_and_grad(scalar, argnums)


@functools.cache
def peak(dtype: str) -> float:
    """FLOP/s that this device reaches in one large matrix product."""
    side = 2048 if jax.default_backend() == 'cpu' else 8192
    args = random_arrays((jax.ShapeDtypeStruct((side, side), dtype),) * 2)
    return 2 * side**3 / seconds(jax.jit(jnp.dot), args, 5)


def device_bytes() -> float:
    """Bytes of the local device's memory as it reports them, else the machine's."""
    reported = jax.devices()[0].memory_stats() or {}
    return reported.get('bytes_limit') or os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def random_arrays(shapes: PyTree) -> PyTree:
    """Arrays of a tree's shapes and dtypes: normal with deviation 0.1, from a fixed seed."""
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    draw = zip(keys, leaves, strict=True)
    return tree.unflatten([0.1 * jax.random.normal(k, s.shape, s.dtype) for k, s in draw])
