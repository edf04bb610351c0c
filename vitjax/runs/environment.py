"""Commit, versions and hardware of a run, for readers of its numbers."""

import datetime
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence
from typing import Any

import jax

from vitjax.base.processes import cores

CODE = ('vitjax', 'experiments/*.py', 'scripts', 'pyproject.toml')  # not gallery and results
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')


def describe(devices: Sequence[Any]) -> dict[str, Any]:
    """Circumstances besides its experiment that a run's numbers may depend on, as JSON values.

    Args:
        devices: devices that the run trains on.

    Returns:
        `started` (UTC); `commit` of the project's checkout, and `changed`, True if code differs
        from it or an experiment file is new (both None outside a checkout); `python` and the
        `versions` of packages; `system`, `cpu`, `cores` and `memory` (GB) of this process's
        machine; `devices` and `processes`.
    """
    kinds = [device.device_kind for device in devices]
    named = (f'{kinds.count(kind)} x {kind}' for kind in dict.fromkeys(kinds))
    now = datetime.datetime.now(datetime.UTC)
    return {
        'started': now.isoformat(sep=' ', timespec='seconds'), **_machine(),
        'devices': ', '.join(named), 'processes': jax.process_count(),
    }  # fmt: skip


@functools.cache
def software() -> dict[str, Any]:
    """Versions of packages and of Python, and a digest of this project's code, as JSON values.

    All processes of a run must agree in them.
    """
    out, root = hashlib.sha256(), pathlib.Path(__file__).parents[1]
    for path in sorted(root.rglob('*.py')):
        out.update(f'{path.relative_to(root)}\n'.encode() + path.read_bytes())
    python = '.'.join(platform.python_version_tuple()[:2])
    return {'versions': {**_versions(), 'python': python}, 'vitjax': out.hexdigest()[:12]}


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def _machine() -> dict[str, Any]:
    commit, changed = _commit(pathlib.Path(__file__).resolve().parents[2])
    return {
        'commit': commit, 'changed': changed, 'python': platform.python_version(),
        'versions': _versions(), 'system': platform.platform(), 'cpu': _cpu(), 'cores': cores(),
        'memory': _memory(),
    }  # fmt: skip


def _commit(root: pathlib.Path) -> tuple[str | None, bool | None]:
    """The commit of a checkout, and True if its code differs: changed files, or new ones."""
    if not (root / '.git').exists():  # installed, perhaps inside a checkout of something else
        return None, None
    try:
        commit = _git(root, 'rev-parse', 'HEAD').strip()
        return commit, bool(_git(root, 'status', '--porcelain', '-uall', '--', *CODE).strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: pathlib.Path, *arguments: str) -> str:
    command = ['git', '-C', str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout


def _cpu() -> str:
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.partition(':')[2].strip() for line in lines if line.startswith('model n'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None
