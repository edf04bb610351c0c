"""Processes that train as one run, and CPU cores as devices."""

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

SHOWN = 4  # differences named in a message
HEARTBEAT = 10  # seconds of silence after which a process counts as dead
_LOST = 'gloo nccl connection heartbeat unavailable coordination peer barrier'.split()
joined = False  # True in one of several processes


def start(parallel: str, batch_size: int, environment: Mapping[str, str] = os.environ) -> None:
    """Joins other processes, or else makes devices of cores if the mode shards each batch.

    Args:
        parallel: an experiment's mode.
        batch_size: images a step, over all devices.
        environment: environment variables.

    Raises:
        ValueError, RuntimeError: as `join`.
    """
    if not join(environment) and parallel in ('auto', 'pmap'):
        part_cores(batch_size, environment)


def join(environment: Mapping[str, str] = os.environ) -> bool:
    """Joins the distributed job that the environment describes.

    Under Slurm (`srun`), Open MPI and on TPU there is nothing to set: jax finds the others itself.
    Elsewhere set `JAX_COORDINATOR_ADDRESS` (host and port of the first), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`. Processes on CPUs communicate through gloo. Call it before anything asks jax
    for its devices.

    Returns:
        True if this process is one of several.

    Raises:
        ValueError: if a number is missing, or not a number.
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


# Filter for the lines that jax's own threads print before they abort this process.
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
    """Sends this process's stderr through a child that reports a lost process in a line.

    Jax's own threads print 17 lines and abort this process; Python cannot prevent it.
    """
    sys.stderr.flush()
    child = subprocess.Popen(
        [sys.executable, '-I', '-S', '-c', _GONE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert child.stdin is not None
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()


def part_cores(batch_size: int, environment: Mapping[str, str] = os.environ) -> None:
    """Makes a device of each CPU core, 8 at most, if these shard a batch evenly.

    A core with its own shard is faster than all of them at one operation after the other
    (`layout.SLICE`). Has no effect on other devices, or if the number of CPU devices is set already
    (`XLA_FLAGS`, `JAX_NUM_CPU_DEVICES`). Call it before anything asks jax for its devices.

    Args:
        batch_size: images a step. Mixup pairs them, so that each device has an even number.
        environment: environment variables.
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
    known = hasattr(os, 'sched_getaffinity')  # on Linux alone
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def agreed(number: float) -> float:
    """The largest number of any process, in float32, for all of them to continue with."""
    import jax

    return number if jax.process_count() == 1 else float(_gathered(np.float32(number)).max())


class Disagreement(ValueError):
    """Error of processes of one run that were started differently; all of them raise it."""


def require_agreement(
    values: Mapping[str, Any], gathered: Callable[[bytes], list[bytes]] | None = None
) -> None:
    """Compares JSON values between the processes of a run; all of them must call it.

    Args:
        values: JSON values of this process; nested ones are named by dotted path.
        gathered: all-gather of bytes of one length; None uses jax's.

    Raises:
        Disagreement: in all processes if any values differ, naming them.
    """
    if gathered is None:
        import jax

        if jax.process_count() == 1:
            return
        gathered = _gathered_bytes
    own = json.dumps(fields.leaves(dict(values)), sort_keys=True).encode()
    size = max(int.from_bytes(each) for each in gathered(len(own).to_bytes(8)))
    texts = gathered(own.ljust(size))
    other = next((i for i, text in enumerate(texts) if text != texts[0]), 0)
    if not other:
        return
    found = fields.differences(json.loads(texts[0]), json.loads(texts[other]))
    more = [f'{len(found) - SHOWN} more'] if len(found) > SHOWN else []
    said = f'process {other} differs from process 0 (0 -> {other})'
    raise Disagreement(
        f'processes of one run must have the same experiment, data and code: {said}: '
        f'{"; ".join(found[:SHOWN] + more)}.\nStart all with the same command, packages and data.'
    )


def _gathered(own: Any) -> np.ndarray:
    """All-gather of arrays of one shape."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(own))


def _gathered_bytes(content: bytes) -> list[bytes]:
    return [row.tobytes() for row in _gathered(np.frombuffer(content, np.uint8))]


def lost(error: BaseException) -> bool:
    """Returns True if an error means that another process is gone."""
    text = str(error).lower()
    return joined and any(word in text for word in _LOST)


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name)
    if text is not None and not text.isdigit():
        raise ValueError(f'{name} must be a whole number: {text!r}.')
    return None if text is None else int(text)


def _tasks(environment: Mapping[str, str]) -> int:
    """Number of processes of this one's step on a cluster; 1 outside of a cluster."""
    names = 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE'
    found = [environment[name] for name in names if environment.get(name, '').isdigit()]
    return max(map(int, found), default=1)


def _on_tpu(environment: Mapping[str, str]) -> bool:
    """Returns True if jax will run on local TPUs, which may belong to a pod."""
    wanted = environment.get('JAX_PLATFORMS', '')
    present = any(pathlib.Path(f'/dev/{name}').exists() for name in ('accel0', 'vfio/0'))
    has = importlib.util.find_spec('libtpu') is not None
    return present and has and (not wanted or 'tpu' in wanted)
