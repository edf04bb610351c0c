"""Machines that are not here: compiles for them and reports on the compiled program.

XLA compiles for GPUs and TPUs that are only described. `machine` describes one by name, `tracing`
makes whatever picks an implementation pick for it, and `compile` reports memory, operations,
collectives and an estimate of the time. Needs the extra `cuda` or `tpu`, and no hardware.
"""

import contextlib
import dataclasses
import glob
import importlib
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies

from vitjax.plan import hlo
from vitjax.plan.flops import flops_by_scope
from vitjax.plan.timing import device_bytes


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator, from its maker's data sheet.

    Attributes:
        memory: bytes; of TPUs without what their compiler keeps for itself.
        bandwidth: of that memory, bytes a second.
        flops: FLOP/s of dense matrix products, by dtype of their operands; of float32 at jax's
            default precision, which is TF32 on GPUs and one pass of bfloat16 on TPUs.
        link: bytes a second that it sends to its neighbours, all links together.
        hertz: of TPU's cycles; None where the compiler estimates none.
    """

    memory: float
    bandwidth: float
    flops: Mapping[str, float]
    link: float
    hertz: float | None = None


def _flops(bfloat16: float, float32: float) -> dict[str, float]:
    return {'bfloat16': bfloat16, 'float16': bfloat16, 'float32': float32}


CHIPS = {
    'a100': Chip(85.1e9, 2.039e12, _flops(312e12, 156e12), 300e9),
    'h100': Chip(84.9e9, 3.352e12, _flops(989e12, 494e12), 450e9),
    'h200': Chip(151.4e9, 4.8e12, _flops(989e12, 494e12), 450e9),
    'v4': Chip(33.02e9, 1.23e12, _flops(275e12, 275e12), 300e9, 1.05e9),
    'v5e': Chip(16.91e9, 0.82e12, _flops(197e12, 197e12), 200e9, 1.5e9),
    'v5p': Chip(102.8e9, 2.46e12, _flops(459e12, 459e12), 600e9, 1.75e9),
    'v6e': Chip(33.55e9, 1.64e12, _flops(918e12, 918e12), 448e9, 1.75e9),
}

# What XLA asks of a GPU, beside `Chip`: compute capability, shared memory of a core and the most
# that a block may ask for, cores, 32-bit units of a core, L2, clock in GHz, the GPU's own name.
_GPUS = {
    'a100': (8, 167936, 166912, 108, 64, 41943040, 1.41, 'NVIDIA A100-SXM4-80GB'),
    'h100': (9, 233472, 232448, 132, 128, 52428800, 1.98, 'NVIDIA H100 80GB HBM3'),
    'h200': (9, 233472, 232448, 132, 128, 52428800, 1.98, 'NVIDIA H200 141GB HBM3e'),
}

# A `GpuTargetConfigProto` in text; numbers of XLA's own specifications of these GPUs.
_GPU_CONFIG = """
gpu_device_info {{
  cuda_compute_capability {{ major: {major} feature_extension: {features} }}
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {optin}
  core_count: {cores} fpus_per_core: {units} clock_rate_ghz: {clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: {bandwidth:.0f} l2_cache_size: {cache} device_memory_size: {memory:.0f}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices to compile for.

    Attributes:
        name: as it was asked for.
        devices: of jax; only `here` can run anything.
        chip: what they are; None where no table has them.
    """

    name: str
    devices: tuple[Any, ...]
    chip: Chip | None

    @property
    def memory(self) -> float:
        """Bytes of one device that a program can have.

        Of a GPU the share that jax reserves: `XLA_CLIENT_MEM_FRACTION`, three quarters unless set.
        """
        if self.chip is None or self.name == 'here':
            return device_bytes()
        share = os.environ.get('XLA_CLIENT_MEM_FRACTION') or 0.75
        return self.chip.memory * (float(share) if self.devices[0].platform == 'gpu' else 1)


@dataclasses.dataclass(frozen=True)
class Name:
    """The parts of a machine's name.

    Attributes:
        kind: `here`, or a key of `CHIPS`.
        topology: hosts and GPUs of each, or TPU chips along each axis; empty for one TPU chip.
    """

    kind: str
    topology: tuple[int, ...] = ()


HOST = 8  # GPUs of one host
HOSTS = 512  # more take compilers long, and nobody has them
_PODS = {'v4': 4096, 'v5e': 256, 'v5p': 8960, 'v6e': 256}  # chips of the largest slice


def named(name: str) -> Name:
    """Reads a machine's name; compiles nothing and asks no device.

    >>> named('h100:2x8')
    Name(kind='h100', topology=(2, 8))

    Raises:
        ValueError: for what `machine` does not take.
    """
    kind, colon, topology = name.partition(':')
    if name == 'here':
        return Name(name)
    if kind not in CHIPS:
        raise ValueError(f"machine must be 'here', or one of {', '.join(CHIPS)}: {name!r}.")
    sizes = [*map(int, topology.split('x'))] if re.fullmatch(_SIZES, topology) else []
    if kind in _GPUS:
        hosts, each = [1, 1, *sizes][-2:]
        if (colon and not 1 <= len(sizes) <= 2) or hosts > HOSTS or each > HOST:
            raise ValueError(
                f'{name}: must be {kind}, {kind}:GPUS or {kind}:HOSTSxGPUS, 1 to {HOST} GPUs a '
                f'host, 1 to {HOSTS} hosts, as in {kind}:2x8: {topology!r}.'
            )
        return Name(kind, (hosts, each))
    axes, most = (3, '2x2x4') if kind in ('v4', 'v5p') else (2, '2x4'), _PODS[kind]
    if colon and (len(sizes) != axes[0] or math.prod(sizes) > most):
        raise ValueError(
            f'{name}: must have {axes[0]} sides, at most {most:,} chips together, as in '
            f'{kind}:{axes[1]}: {topology!r}.'
        )
    return Name(kind, tuple(sizes))


def rate(chip: Chip | None, dtype: str) -> float:
    """FLOP/s of a chip's matrix products with operands of `dtype`; NaN for an unknown chip.

    Raises:
        ValueError: if the chip's data sheet has no products of it.
    """
    if chip is None:
        return math.nan
    if dtype not in chip.flops:
        raise ValueError(f'--model.dtype must be one of {", ".join(chip.flops)}: {dtype!r}.')
    return chip.flops[dtype]


_SIZES = '[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})*'


def machine(name: str) -> Machine:
    """A machine by name: `here`, GPUs as `h100` or `h100:8`, TPUs as `v5e` or `v5e:2x4`.

    GPUs: a100, h100, h200 (SXM boards), one or as many as `:8` says, in one host; `:2x8` are two
    hosts. TPUs: v4, v5e, v5p, v6e with a topology of chips; without one, a single chip.

    Call it before jax has started if no accelerator is present: jax's plug-ins otherwise look for
    one first and then refuse to compile.

    Raises:
        ValueError: for an unknown name, and if the extra is missing that compiles for it.
    """
    kind, topology = dataclasses.astuple(named(name))
    if kind == 'here':
        kinds = {spec[-1]: CHIPS[gpu] for gpu, spec in _GPUS.items()}
        devices = tuple(jax.devices())
        return Machine(name, devices, kinds.get(devices[0].device_kind))
    if not glob.glob('/dev/nvidiactl') + glob.glob('/dev/accel*') + glob.glob('/dev/vfio/*'):
        jax.config.update('jax_platforms', 'cpu')
    devices = (_gpus if kind in _GPUS else _tpus)(name, kind, topology)
    return Machine(name, tuple(devices), CHIPS[kind])


def _gpus(name: str, kind: str, topology: tuple[int, ...]) -> list[Any]:
    major, shared, optin, cores, units, cache, clock, description = _GPUS[kind]
    chip = CHIPS[kind]
    config = _GPU_CONFIG.format(
        major=major, features='ACCELERATED_FEATURES' if major >= 9 else 'NONE', shared=shared,
        optin=optin, cores=cores, units=units, clock=clock, bandwidth=chip.bandwidth, cache=cache,
        memory=chip.memory, name=description,
    )  # fmt: skip
    shape = 'x'.join(map(str, (1, *topology)))
    try:
        return topologies.get_topology_desc(
            kind, platform='cuda', topology=shape, target_config=config
        ).devices
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise _refused(name, 'cuda', error) from None


def _tpus(name: str, kind: str, topology: tuple[int, ...]) -> list[Any]:
    # libtpu otherwise asks the cloud's metadata server what machine this is, for minutes.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-8')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')  # several processes compile at once
    least = (2, 2, 1) if kind in ('v4', 'v5p') else (2, 2)  # libtpu knows no smaller one
    whole = f'{kind}:{"x".join(map(str, topology or least))}'
    # Both cores of a v4 are one device, as they are where jax runs on one.
    config = {'chip_config_name': 'megacore'} if kind == 'v4' else {}
    try:
        devices = topologies.get_topology_desc(whole, platform='tpu', **config).devices
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise _refused(name, 'tpu', error) from None
    return devices if topology else devices[:1]


def _refused(name: str, extra: str, error: Exception) -> ValueError:
    said = str(error).splitlines()[0][:200]
    if any(text in said for text in ('not installed', 'not implemented', 'not in the list')):
        return ValueError(
            f"{name}: compiling for it needs pip install -e '.[{extra}]', and JAX_PLATFORMS=cpu "
            'if no accelerator is present.'
        )
    return ValueError(f'{name}: {said}')


@contextlib.contextmanager
def tracing(machine: Machine) -> Iterator[None]:
    """What is traced within is traced for a machine's first device.

    `ops.device` then gives that device, so a step takes the operations, block shapes and kernels
    picked for it. The setting is jax's `default_device`, so a jitted function is traced anew.

    Only for tracing and lowering: an absent device can hold no array.
    """
    device = machine.devices[0]
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.default_device(device))
        if machine.name != 'here' and device.platform == 'gpu':
            # jax's wrapper of cuDNN asks the GPU that is here which widths of heads it takes.
            module = importlib.import_module('jax._src.cudnn.fused_attention_stablehlo')
            has = tuple(int(part) for part in device.compute_capability.split('.'))

            def asked(least: str) -> bool:
                return has >= tuple(int(part) for part in least.split('.'))

            stack.enter_context(mock.patch.object(module, 'check_compute_capability', asked))
        yield


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device; `peak` is all of them together, donated arguments counted once."""

    arguments: int
    outputs: int
    temporaries: int
    peak: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one module, or one kind of kernel in it, on one device, in all its executions.

    Attributes:
        flops: matrix products' operations, on all devices together.
        bytes: moved from and to memory.
        seconds: an estimate; NaN where the chip is unknown.
        by: who estimates: `compiler` (its cycles), `roofline` (the longer of operations at the
            chip's peak and bytes at its bandwidth), or `kernel`, a roofline of a custom call for
            which compilers state nothing.
    """

    flops: int
    bytes: int
    seconds: float
    by: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What compiling a function for a machine says.

    Attributes:
        machine: its name.
        devices: how many.
        compile_seconds: that tracing and compiling took here.
        memory: of one device.
        flops: operations of matrix products on all devices together, scans counted in full.
        bytes: moved from and to memory by one device.
        cycles: of one device, as the compiler estimates; None where it estimates none.
        collectives: in the order that they run.
        modules: cost by module path, the most expensive first (by bytes where no chip is known);
            kernels under `PATH (kernel)`.
        communication: seconds of the collectives at the links' bandwidth, an estimate. They may
            overlap with the rest.
        loops_once: loops whose number of passes the program does not state; all counts are of one.
    """

    machine: str
    devices: int
    compile_seconds: float
    memory: Memory
    flops: int
    bytes: int
    cycles: int | None
    collectives: tuple[hlo.Collective, ...]
    modules: dict[str, Cost]
    communication: float
    loops_once: int

    @property
    def seconds(self) -> float:
        """Estimated time of one call, without communication."""
        return math.fsum(cost.seconds for cost in self.modules.values())


def compile(
    fn: Callable[..., Any],
    *args: Any,
    machine: Machine,
    dtype: str = 'bfloat16',
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Compiles a function for a machine and reports what the compiled program says.

    Args:
        fn: to be jitted, or jitted or pmapped already, with its shardings.
        *args: of it, as arrays or `jax.ShapeDtypeStruct`, whose shardings are over the machine's
            devices; without any, on the first of them.
        machine: to compile for.
        dtype: of the products' operands, for rooflines.
        options: of XLA's compiler, beside those that compiling without hardware needs.

    Raises:
        ValueError: as `rate`.
        jax.errors.JaxRuntimeError: `RESOURCE_EXHAUSTED` if TPU's compiler sees that the program
            does not fit.
    """
    rate(machine.chip, dtype)
    start = time.perf_counter()
    program = lower(fn, *args, machine=machine).compile(
        compiler_options={**_options(machine), **(options or {})}
    )
    took = time.perf_counter() - start
    with tracing(machine):
        scopes = flops_by_scope(fn, *args, estimate=True)
    text: Any = program.as_text()
    read = hlo.read(text)
    analysis: Any = program.memory_analysis()
    return Report(
        machine=machine.name,
        devices=len(machine.devices),
        compile_seconds=took,
        memory=_memory(analysis),
        flops=sum(scopes.values()),
        bytes=read.bytes.total(),
        cycles=read.cycles.total() or None,
        collectives=tuple(read.collectives),
        modules=_modules(machine, read, scopes, dtype),
        communication=_communication(machine, read.collectives),
        loops_once=read.unknown,
    )


def lower(fn: Any, *args: Any, machine: Machine) -> Any:
    """A function lowered for a machine; `.compile()` goes on from there."""
    with tracing(machine):
        return (fn if hasattr(fn, 'lower') else jax.jit(fn)).lower(*args)


def _options(machine: Machine) -> dict[str, Any]:
    # Autotuning times kernels on the GPU that is not here.
    absent_gpu = machine.name != 'here' and machine.devices[0].platform == 'gpu'
    return {'xla_gpu_autotune_level': 0} if absent_gpu else {}


def _memory(analysis: Any) -> Memory:
    arguments, outputs = analysis.argument_size_in_bytes, analysis.output_size_in_bytes
    temporaries = analysis.temp_size_in_bytes
    peak = arguments + outputs + temporaries - analysis.alias_size_in_bytes
    return Memory(arguments, outputs, temporaries, peak)


def _modules(
    machine: Machine, read: hlo.Program, scopes: Mapping[str, int], dtype: str
) -> dict[str, Cost]:
    """Time by module: the compiler's where it gives it, rooflines elsewhere."""
    chip, count = machine.chip, len(machine.devices)
    kernel_bytes = Counter[str]()
    for kernel in read.kernels:
        kernel_bytes[kernel.path] += kernel.bytes
    flops, kernel_flops = Counter[str](), Counter[str]()
    for scope, operations in scopes.items():
        last = scope.rpartition('/')[2]
        inside = last.startswith(('pallas_call', 'dot_product_attention'))
        path = hlo.module_path(scope if inside else f'{scope}/_')
        # Where Pallas interprets a kernel, the program has its operations and no custom call.
        (kernel_flops if inside and path in kernel_bytes else flops)[path] += operations
    moved = read.bytes - kernel_bytes

    def roofline(operations: int, bytes: int) -> float:
        if chip is None:
            return math.nan
        return max(operations / count / chip.flops[dtype], bytes / chip.bandwidth)

    costs = {}
    for path in flops.keys() | moved.keys() | read.cycles.keys():
        operations, bytes = flops[path], moved[path]
        if read.cycles and chip and chip.hertz:
            seconds = read.cycles[path] / chip.hertz
            costs[path] = Cost(operations, bytes, seconds, 'compiler')
        else:
            costs[path] = Cost(operations, bytes, roofline(operations, bytes), 'roofline')
    for path in kernel_bytes.keys() | kernel_flops.keys():
        operations, bytes = kernel_flops[path], kernel_bytes[path]
        seconds = roofline(operations, bytes)
        costs[f'{path} (kernel)'] = Cost(operations, bytes, seconds, 'kernel')

    def expense(item: tuple[str, Cost]) -> tuple[float, int]:
        return (0 if chip is None else -item[1].seconds), -item[1].bytes

    return dict(sorted(costs.items(), key=expense))


def _communication(machine: Machine, collectives: list[hlo.Collective]) -> float:
    """Seconds in rings: every device sends an array once, or twice to reduce it everywhere."""
    if not collectives or machine.chip is None:
        return math.nan if collectives else 0.0
    sent = sum((2 if c.kind == 'all-reduce' else 1) * c.bytes * c.times for c in collectives)
    return sent * (1 - 1 / len(machine.devices)) / machine.chip.link
