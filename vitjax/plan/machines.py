"""Machines to compile for by name, present or only described.

XLA compiles for GPUs and TPUs that are absent. Needs the extra `cuda` or `tpu`, and no hardware.
"""

import dataclasses
import glob
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from vitjax.plan.timing import device_bytes


@dataclasses.dataclass(frozen=True)
class Chip:
    """Kind of accelerator, from its maker's data sheet.

    Attributes:
        memory: bytes; for TPUs without those that their compiler reserves.
        bandwidth: bandwidth of that memory in bytes per second.
        flops: FLOP/s of dense matrix products, by dtype of their operands. That of float32 is at
            jax's default precision: TF32 on GPUs, one pass of bfloat16 on TPUs.
        link: bytes per second sent to its neighbours, over all links together.
        hertz: clock of a TPU's cycles; None if the compiler estimates none.
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

# Facts that XLA asks of a GPU besides those of `Chip`: compute capability, shared memory of a core
# and the most that a block may request, cores, 32-bit units of a core, L2, clock in GHz, its name.
_FACTS = ('major', 'shared', 'optin', 'cores', 'units', 'cache', 'clock', 'name')
_GPUS = {
    'a100': (8, 167936, 166912, 108, 64, 41943040, 1.41, 'NVIDIA A100-SXM4-80GB'),
    'h100': (9, 233472, 232448, 132, 128, 52428800, 1.98, 'NVIDIA H100 80GB HBM3'),
    'h200': (9, 233472, 232448, 132, 128, 52428800, 1.98, 'NVIDIA H200 141GB HBM3e'),
}

# A `GpuTargetConfigProto` in text; its numbers are those of XLA's specifications.
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
        name: name as the user wrote it.
        devices: jax's devices; only those of `here` can run anything.
        chip: their kind; None if no table has it.
    """

    name: str
    devices: tuple[Any, ...]
    chip: Chip | None

    @property
    def memory(self) -> float:
        """Bytes of one device that a program can have.

        On a GPU the fraction that jax reserves: `XLA_CLIENT_MEM_FRACTION`, by default 0.75.
        """
        if self.chip is None or self.name == 'here':
            return device_bytes()
        fraction = os.environ.get('XLA_CLIENT_MEM_FRACTION') or 0.75
        return self.chip.memory * (float(fraction) if self.devices[0].platform == 'gpu' else 1)


@dataclasses.dataclass(frozen=True)
class Name:
    """Parts of a machine's name.

    Attributes:
        kind: `here`, or a key of `CHIPS`.
        topology: hosts and GPUs per host, or TPU chips along each axis; empty for one TPU chip.
    """

    kind: str
    topology: tuple[int, ...] = ()


HOST = 8  # GPUs of one host
HOSTS = 512  # compilers take long for more, and nobody has them
_PODS = {'v4': 4096, 'v5e': 256, 'v5p': 8960, 'v6e': 256}  # chips of the largest slice
_SIZES = '[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})*'


def named(name: str) -> Name:
    """Parts of a machine's name; compiles nothing and asks no device.

    >>> named('h100:2x8')
    Name(kind='h100', topology=(2, 8))

    Raises:
        ValueError: if `machine` takes no such name.
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
        ValueError: if the chip's data sheet has none.
    """
    if chip is None:
        return math.nan
    if dtype not in chip.flops:
        raise ValueError(f'--model.dtype must be one of {", ".join(chip.flops)}: {dtype!r}.')
    return chip.flops[dtype]


def machine(name: str) -> Machine:
    """Machine by name: `here`, GPUs as `h100` or `h100:8`, TPUs as `v5e` or `v5e:2x4`.

    GPUs (SXM boards): a100, h100, h200. `:8` are eight in one host, `:2x8` eight in each of two
    hosts. TPUs: v4, v5e, v5p, v6e with a topology of chips; without one, a single chip.

    Call it before jax has started if no accelerator is present: jax's plug-ins otherwise look for
    one first and then refuse to compile.

    Raises:
        ValueError: if the name is unknown, or the extra that compiles for it is missing.
    """
    parts = named(name)
    if parts.kind == 'here':
        kinds = {facts[-1]: CHIPS[gpu] for gpu, facts in _GPUS.items()}
        devices = tuple(jax.devices())
        return Machine(name, devices, kinds.get(devices[0].device_kind))
    if not glob.glob('/dev/nvidiactl') + glob.glob('/dev/accel*') + glob.glob('/dev/vfio/*'):
        jax.config.update('jax_platforms', 'cpu')
    platform, describe = ('cuda', _gpus) if parts.kind in _GPUS else ('tpu', _tpus)
    try:
        devices = describe(parts)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise _refused(name, platform, error) from None
    return Machine(name, tuple(devices), CHIPS[parts.kind])


def _gpus(name: Name) -> list[Any]:
    chip = CHIPS[name.kind]
    facts: dict[str, Any] = dict(zip(_FACTS, _GPUS[name.kind], strict=True))
    features = 'ACCELERATED_FEATURES' if facts['major'] >= 9 else 'NONE'
    config = _GPU_CONFIG.format(
        **facts, features=features, bandwidth=chip.bandwidth, memory=chip.memory
    )  # fmt: skip
    shape = 'x'.join(map(str, (1, *name.topology)))
    return topologies.get_topology_desc(
        name.kind, platform='cuda', topology=shape, target_config=config
    ).devices


def _tpus(name: Name) -> list[Any]:
    # libtpu otherwise asks the cloud's metadata server for this machine's type, for minutes.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-8')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')  # several processes compile at once
    least = (2, 2, 1) if name.kind in ('v4', 'v5p') else (2, 2)  # libtpu's smallest
    topology = f'{name.kind}:{"x".join(map(str, name.topology or least))}'
    # Both cores of a v4 are one device, as in jax on a v4.
    config = {'chip_config_name': 'megacore'} if name.kind == 'v4' else {}
    devices = topologies.get_topology_desc(topology, platform='tpu', **config).devices
    return devices if name.topology else devices[:1]


def _refused(name: str, extra: str, error: Exception) -> ValueError:
    said = str(error).splitlines()[0][:200]
    if any(text in said for text in ('not installed', 'not implemented', 'not in the list')):
        return ValueError(
            f"{name}: compiling for it needs pip install -e '.[{extra}]', and JAX_PLATFORMS=cpu "
            'if no accelerator is present.'
        )
    return ValueError(f'{name}: {said}')
