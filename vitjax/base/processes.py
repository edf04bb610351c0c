"""Processes that train as one run, and CPU cores as devices."""

import hashlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vitjax.base import fields

SHOWN = 4  # differences that a message names
HEARTBEAT = 10  # seconds after which a process that is silent counts as dead
_LOST = (
    'gloo',
    'nccl',
    'connection',
    'heartbeat',
    'unavailable',
    'coordination',
    'peer',
    'barrier',
)
joined = False  # whether this process is one of several


def start(parallel: str, batch_size: int, environment: Mapping[str, str] = os.environ) -> None:
    """Spreads a training: `join`, or else `part_cores` where its mode parts each batch.

    Args:
        parallel: an experiment's.
        batch_size: images a step, of all devices.
        environment: this process's, or what to take for it.

    Raises:
        ValueError, RuntimeError: as `join` does.
    """
    if not join(environment) and parallel in ('auto', 'pmap'):
        part_cores(batch_size, environment)


def join(environment: Mapping[str, str] = os.environ) -> bool:
    """Makes this process one of several, where its environment says that it is.

    Under Slurm (`srun`), Open MPI and on TPU there is nothing to set: jax finds the others itself.
    Elsewhere `JAX_COORDINATOR_ADDRESS` (host and port of the first), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID` say it. Processes on CPUs speak through gloo. To be called before anything
    asks jax for its devices.

    Returns:
        Whether it is.

    Raises:
        ValueError: for numbers that are none, or of which one is missing.
        RuntimeError: if the others do not come.
    """
    global joined
    count = index = None
    given = environment.get('JAX_COORDINATOR_ADDRESS')
    if given:
        count, index = (_number(f'JAX_{n}', environment) for n in ('NUM_PROCESSES', 'PROCESS_ID'))
    elif not (_tasks(environment) > 1 or _on_tpu(environment)):
        return False
    if given and None in (count, index) and _tasks(environment) < 2:
        raise ValueError('JAX_COORDINATOR_ADDRESS needs JAX_NUM_PROCESSES and JAX_PROCESS_ID.')
    import jax

    try:
        jax.distributed.initialize(given, count, index, heartbeat_timeout_seconds=HEARTBEAT)
    except ValueError as error:
        if given or _tasks(environment) > 1:
            raise ValueError(f'this process cannot join the others: {error}') from None
        return False  # a TPU that belongs to no pod
    joined = jax.process_count() > 1
    if joined:
        _relay_errors()
    return joined


# What jax's own threads print, and then abort, when another process is gone.
_GONE = """
import re, signal, sys
for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
noise = re.compile(r'[WEF]\\d{4} .*(coordination|preemption|client\\.h)|.*Check failure stack')
ours = re.compile(r'(error|warning): |Traceback|stopped')
held, fatal, said = [], False, False
for line in sys.stdin.buffer:
    text = line.decode(errors='replace')
    if noise.match(text) or (held and not ours.match(text) and not said):
        held.append(text)
        fatal |= text[0] == 'F'
        continue
    said |= 'another process of this run is gone' in text
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()
if not said and fatal:
    why = 'no heartbeat' if 'heartbeat' in ''.join(held).lower() else 'its connection is closed'
    print(f'error: another process of this run is gone ({why}).', file=sys.stderr)
    print('The same command goes on from the last checkpoint, on any number of processes.',
          file=sys.stderr)
elif not said:
    sys.stderr.write(''.join(held))
"""


def _relay_errors() -> None:
    """Sends this process's stderr through a child that says in a line that another one is gone.

    Jax's threads say it in 17 lines and abort this process, whatever Python does.
    """
    sys.stderr.flush()
    child = subprocess.Popen(
        [sys.executable, '-I', '-S', '-c', _GONE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert child.stdin is not None
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()


def part_cores(batch_size: int, environment: Mapping[str, str] = os.environ) -> None:
    """Makes a device of each core of the CPU, 8 at most, where these can part a batch evenly.

    A core with a part of the batch of its own is faster than all of them at one operation after
    the other (`sharding.SLICE`). Has no effect where other devices are used, or the number of the
    CPU's devices is set already (`XLA_FLAGS`, `JAX_NUM_CPU_DEVICES`). To be called before anything
    asks jax for its devices.

    Args:
        batch_size: images a step. Mixup pairs them, so that each device has an even number.
        environment: where the number may be set.
    """
    flags = environment.get('XLA_FLAGS', '')
    if 'JAX_NUM_CPU_DEVICES' in environment or 'host_platform_device_count' in flags:
        return
    import jax

    most = min(cores(), 8)  # each holds the parameters and the moments
    count = max(n for n in range(1, most + 1) if n == 1 or batch_size % (2 * n) == 0)
    jax.config.update('jax_num_cpu_devices', count)


def cores() -> int:
    """The CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def agreed(number: float) -> float:
    """The largest that any process has, in float32: what all of them go on with alike."""
    import jax

    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return float(multihost_utils.process_allgather(np.float32(number)).max())


class Disagreement(ValueError):
    """Processes of one run that were started differently; every one of them raises it."""


def require_agreement(
    values: Mapping[str, Any], gathered: Callable[[bytes], list[bytes]] | None = None
) -> None:
    """Compares JSON values between the processes of a run; all of them must call it.

    Args:
        values: JSON values of this process; nested ones are named by dotted path.
        gathered: takes bytes, of one length in all processes, and returns those of each; None asks
            the processes of jax.

    Raises:
        Disagreement: in all processes, with the names of what differs, if any differ.
    """
    if gathered is None:
        import jax

        if jax.process_count() == 1:
            return
        gathered = _gathered
    own = json.dumps(fields.leaves(dict(values)), sort_keys=True).encode()
    digests = gathered(hashlib.sha256(own).digest())
    if len({*digests}) == 1:
        return
    size = max(int.from_bytes(each) for each in gathered(len(own).to_bytes(8)))
    known = [json.loads(text) for text in gathered(own.ljust(size))]
    other = next(i for i, digest in enumerate(digests) if digest != digests[0])
    found = fields.differences(known[0], known[other])
    more = f'; {len(found) - SHOWN} more' if len(found) > SHOWN else ''
    raise Disagreement(
        'processes of one run must have the same experiment, data and code: process '
        f'{other} differs from process 0 (0 -> {other}): {"; ".join(found[:SHOWN])}{more}.\n'
        'Start all with the same command, packages and data.'
    )


def _gathered(content: bytes) -> list[bytes]:
    """The content that each process has, of one length in all of them."""
    from jax.experimental import multihost_utils

    each = multihost_utils.process_allgather(np.frombuffer(content, np.uint8))
    return [row.tobytes() for row in np.asarray(each)]


def lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    text = str(error).lower()
    return joined and any(word in text for word in _LOST)


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name)
    if text is not None and not text.isdigit():
        raise ValueError(f'{name} must be a whole number: {text!r}.')
    return None if text is None else int(text)


def _tasks(environment: Mapping[str, str]) -> int:
    """Processes of the step that a cluster's launcher started this one in; 1 outside of one."""
    names = 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'
    found = [environment[name] for name in names if environment.get(name, '').isdigit()]
    return max(map(int, found), default=1)


def _on_tpu(environment: Mapping[str, str]) -> bool:
    """Whether jax will run on TPUs that are here, which may belong to a pod."""
    wanted = environment.get('JAX_PLATFORMS', '')
    present = any(pathlib.Path(f'/dev/{name}').exists() for name in ('accel0', 'vfio/0'))
    has = importlib.util.find_spec('libtpu') is not None
    return present and has and (not wanted or 'tpu' in wanted)
