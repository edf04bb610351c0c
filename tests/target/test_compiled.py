"""Every architecture compiles for the machines of its users; nothing here needs one.

A process of its own compiles each: the tests' eight CPU devices and missing optimizations are
settings of a whole process.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import pytest

PROGRAMS = pathlib.Path(__file__).parent / 'programs.py'
ROOT = PROGRAMS.parents[2]
ARCHITECTURES = (
    'vit', 'vit_mean', 'vit_registers', 'cait', 'patchconvnet', 'patchconvnet_classes', 'convnet',
    'vgg16',
)  # fmt: skip
EXTRAS = {'h100': ('cuda', 'jax-cuda13-plugin'), 'v5e': ('tpu', 'libtpu')}


def programs(machine, architecture):
    extra, distribution = EXTRAS[machine]
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"compiling for {machine} needs pip install -e '.[{extra}]'.")
    settings = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS), machine, architecture],
        env={**settings, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{')]


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('machine', EXTRAS)
def test_forward_and_training_step_compile(machine, architecture):
    rows = programs(machine, architecture)
    assert {row['what'] for row in rows} == {'forward', 'training'}
    failed = [row for row in rows if row['error']]
    assert not failed, '\n'.join(map(str, failed))
    for row in rows:
        assert (row['cycles'] is None) == (machine == 'h100')
        assert 0 < row['seconds'] < 1
        assert row['kernels'] == kernels(machine, architecture, row)


def kernels(machine, architecture, row):
    """Which attention is a kernel: where an H100's takes it, and never silently another."""
    attention, half = row.get('attention'), row['dtype'] == 'bfloat16'
    found = set()
    if machine == 'h100':
        vit = architecture.startswith('vit')
        dropping = 'attention_dropout' in row
        if vit and half and not dropping and attention in ('auto', 'fused', 'pallas'):
            found |= {'blocks/attention'}
        if architecture == 'cait' and (attention == 'pallas' or half and attention == 'fused'):
            found |= {'blocks/attention'}
        if architecture == 'cait' and half and attention in ('fused', 'pallas'):
            found |= {'class_blocks/attention'}
        if architecture == 'patchconvnet_classes' and half:
            found |= {'class_blocks/attention'}
        if architecture == 'patchconvnet' and half and attention == 'fused':
            found |= {'class_blocks/attention'}
    return sorted(f'{path} (kernel)' for path in found)
