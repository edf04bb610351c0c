"""Compilation for a machine that may be absent, and a report on the compiled program.

`tracing` makes whatever picks an implementation pick for that machine. `compile` reports memory,
operations, collectives and an estimate of the time.
"""

import contextlib
import dataclasses
import importlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax

from vitjax.plan import costs, hlo
from vitjax.plan.flops import flops_by_scope
from vitjax.plan.machines import Machine, rate
from vitjax.plan.timing import program_bytes


@contextlib.contextmanager
def tracing(machine: Machine) -> Iterator[None]:
    """Traces functions within for a machine's first device.

    `ops.device` then gives that device, so a step takes the operations, block shapes and kernels
    picked for it. The setting is jax's `default_device`, so a jitted function is traced anew.

    Only for tracing and lowering: an absent device can hold no array.
    """
    device = machine.devices[0]
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_device(device))
        if _is_absent_gpu(machine):
            # jax's wrapper of cuDNN asks the local GPU which head widths it takes.
            module = importlib.import_module('jax._src.cudnn.fused_attention_stablehlo')
            has = tuple(int(part) for part in device.compute_capability.split('.'))

            def asked(least: str) -> bool:
                return has >= tuple(int(part) for part in least.split('.'))

            stack.enter_context(mock.patch.object(module, 'check_compute_capability', asked))
        yield


def _is_absent_gpu(machine: Machine) -> bool:
    return machine.name != 'here' and machine.devices[0].platform == 'gpu'


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device; `peak` is their sum, with donated arguments counted once."""

    arguments: int
    outputs: int
    temporaries: int
    peak: int


@dataclasses.dataclass(frozen=True)
class Report:
    """Report on a function compiled for a machine.

    Attributes:
        machine: name of the machine.
        devices: number of devices.
        compile_seconds: time that tracing and compiling took here.
        memory: memory of one device.
        flops: operations of matrix products on all devices together, scans counted in full.
        bytes: bytes moved from and to memory by one device.
        cycles: cycles of one device, as the compiler estimates; None if it estimates none.
        collectives: collectives in the order of execution.
        modules: cost by module path, the most expensive first (by bytes for an unknown chip);
            kernels are under `PATH (kernel)`.
        communication: estimated seconds of the collectives at the links' bandwidth. They may
            overlap with the rest.
        loops_once: number of loops whose trip count the program does not state; all counts are of
            one pass through them.
    """

    machine: str
    devices: int
    compile_seconds: float
    memory: Memory
    flops: int
    bytes: int
    cycles: int | None
    collectives: tuple[hlo.Collective, ...]
    modules: dict[str, costs.Cost]
    communication: float
    loops_once: int

    @property
    def seconds(self) -> float:
        """Estimated time of one call, without communication."""
        return math.fsum(cost.seconds for cost in self.modules.values())


def compile(
    fn: Callable[..., Any], *args: Any, machine: Machine, dtype: str = 'bfloat16',
    options: Mapping[str, Any] | None = None,
) -> Report:  # fmt: skip
    """Compiles a function for a machine and reports on the compiled program.

    Args:
        fn: function to be jitted, or jitted or pmapped already, with its shardings.
        *args: its arguments, as arrays or `jax.ShapeDtypeStruct` with shardings over the machine's
            devices; without shardings they are on the first device.
        machine: machine to compile for.
        dtype: dtype of the products' operands, for rooflines.
        options: options of XLA's compiler, besides those that compiling without hardware needs.

    Raises:
        ValueError: as `machines.rate`.
        jax.errors.JaxRuntimeError: `RESOURCE_EXHAUSTED` if TPU's compiler sees that the program
            does not fit.
    """
    rate(machine.chip, dtype)
    # Autotuning would time kernels on a GPU that is absent.
    needed = {'xla_gpu_autotune_level': 0} if _is_absent_gpu(machine) else {}
    start = time.perf_counter()
    compiled = lower(fn, *args, machine=machine).compile({**needed, **(options or {})})
    took = time.perf_counter() - start
    with tracing(machine):
        scopes = flops_by_scope(fn, *args, estimate=True)
    program = hlo.read(compiled.as_text())
    return Report(
        machine=machine.name,
        devices=len(machine.devices),
        compile_seconds=took,
        memory=_memory(compiled),
        flops=sum(scopes.values()),
        bytes=program.bytes.total(),
        cycles=program.cycles.total() or None,
        collectives=tuple(program.collectives),
        modules=costs.by_module(machine, program, scopes, dtype),
        communication=costs.communication(machine, program.collectives),
        loops_once=program.unknown,
    )


def lower(fn: Any, *args: Any, machine: Machine) -> Any:
    """Lowers a function for a machine; `.compile()` compiles the result."""
    with tracing(machine):
        return (fn if hasattr(fn, 'lower') else jax.jit(fn)).lower(*args)


def _memory(program: Any) -> Memory:
    size = program.memory_analysis()
    return Memory(
        size.argument_size_in_bytes, size.output_size_in_bytes, size.temp_size_in_bytes,
        program_bytes(program),
    )  # fmt: skip
