"""Cost of a compiled program by module, as its compiler estimates it or by rooflines."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from vitjax.plan import hlo
from vitjax.plan.machines import Machine


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a module, or of one kind of kernel in it, over all its executions on one device.

    Attributes:
        flops: operations of matrix products, on all devices together.
        bytes: bytes moved from and to memory.
        seconds: estimated time; NaN for an unknown chip.
        by: source of the estimate. `compiler`: its cycles. `roofline`: the longer of operations at
            the chip's peak and bytes at its bandwidth. `kernel`: a roofline of a custom call, for
            which compilers state nothing.
    """

    flops: int
    bytes: int
    seconds: float
    by: str


def by_module(
    machine: Machine, program: hlo.Program, scopes: Mapping[str, int], dtype: str
) -> dict[str, Cost]:
    """Costs by module path, in descending order of time, or of bytes for an unknown chip.

    Args:
        machine: machine that the program is compiled for.
        program: the compiled program.
        scopes: operations by named scope, as `flops.flops_by_scope` counts them.
        dtype: dtype of the products' operands.
    """
    chip, devices = machine.chip, len(machine.devices)
    kernel_bytes, flops, kernel_flops = Counter[str](), Counter[str](), Counter[str]()
    for kernel in program.kernels:
        kernel_bytes[kernel.path] += kernel.bytes
    for scope, operations in scopes.items():
        last = scope.rpartition('/')[2]
        inside = last.startswith(('pallas_call', 'dot_product_attention'))
        path = hlo.module_path(scope if inside else f'{scope}/_')
        # An interpreted Pallas kernel is ordinary operations of the program, not a custom call.
        (kernel_flops if inside and path in kernel_bytes else flops)[path] += operations
    moved = program.bytes - kernel_bytes

    def roofline(flops: int, bytes: int, by: str) -> Cost:
        seconds = math.nan
        if chip is not None:
            seconds = max(flops / devices / chip.flops[dtype], bytes / chip.bandwidth)
        return Cost(flops, bytes, seconds, by)

    costs = {
        path: roofline(flops[path], moved[path], 'roofline')
        for path in flops.keys() | moved.keys() | program.cycles.keys()
    }
    if chip and chip.hertz and program.cycles:
        for path, cost in costs.items():
            seconds = program.cycles[path] / chip.hertz
            costs[path] = dataclasses.replace(cost, seconds=seconds, by='compiler')
    for path in kernel_bytes.keys() | kernel_flops.keys():
        costs[f'{path} (kernel)'] = roofline(kernel_flops[path], kernel_bytes[path], 'kernel')

    def expense(path: str) -> tuple[float, int]:
        return (0 if chip is None else -costs[path].seconds), -costs[path].bytes

    return {path: costs[path] for path in sorted(costs, key=expense)}


def communication(machine: Machine, collectives: Sequence[hlo.Collective]) -> float:
    """Seconds of collectives in rings; NaN for an unknown chip.

    Every device sends an array once, or twice to reduce it on all devices.
    """
    if not collectives or machine.chip is None:
        return math.nan if collectives else 0.0
    sent = sum((2 if c.kind == 'all-reduce' else 1) * c.bytes * c.times for c in collectives)
    return sent * (1 - 1 / len(machine.devices)) / machine.chip.link
