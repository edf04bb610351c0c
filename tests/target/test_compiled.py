"""Every architecture compiles for GPUs and TPUs, which need not be present.

A process of its own compiles each: the tests' eight CPU devices and missing optimizations are
settings of a whole process.
"""

import importlib.metadata
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

PROGRAMS = pathlib.Path(__file__).parent / 'programs.py'
ROOT = PROGRAMS.parents[2]
ARCHITECTURES = (
    'vit', 'vit_current', 'vit_mean', 'vit_registers', 'cait', 'patchconvnet',
    'patchconvnet_classes', 'convnet', 'vgg16',
)  # fmt: skip
EXTRAS = {'h100': ('cuda', 'jax-cuda13-plugin'), 'v5e': ('tpu', 'libtpu')}


def programs(machine, *arguments):
    extra, distribution = EXTRAS[machine.partition(':')[0]]
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"compiling for {machine} needs pip install -e '.[{extra}]'.")
    settings = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XLA_'))}
    ran = subprocess.run(
        [sys.executable, str(PROGRAMS), machine, *arguments],
        env={**settings, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{')]


@pytest.mark.slow
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
    """Attention that runs as a kernel on an H100; a silent fallback to another would fail here."""
    attention, half = row.get('attention'), row['dtype'] == 'bfloat16'
    found = set()
    if machine == 'h100':
        vit = architecture.startswith('vit')
        dropping = 'attention_dropout' in row
        if vit and half and not dropping and attention in ('auto', 'fused'):
            found |= {'blocks/attention'}
        if architecture == 'cait' and half and attention == 'fused':
            found |= {'blocks/attention', 'class_blocks/attention'}
        if architecture == 'patchconvnet_classes' and half:
            found |= {'class_blocks/attention'}
        if architecture == 'patchconvnet' and half and attention == 'fused':
            found |= {'class_blocks/attention'}
    return sorted(f'{path} (kernel)' for path in found)


@pytest.mark.parametrize('architecture', ['vit', 'cait', 'patchconvnet', 'convnet'])
@pytest.mark.parametrize('machine', ['h100:8', 'v5e:2x4'])
def test_many_steps_sharded_over_eight_devices_compile(machine, architecture):
    rows = [programs(machine, architecture, way)[0] for way in ('pmap', 'fsdp')]
    assert [row['error'] for row in rows] == [None, None]
    pmap, fsdp = ([c for c in row['collectives'] if c['bytes'] > 64] for row in rows)
    assert {c['kind'] for c in pmap} == {'all-reduce'}  # of gradients
    assert 'all-gather' in {c['kind'] for c in fsdp}
    assert not activations(pmap) and not activations(fsdp)
    assert rows[1]['memory']['arguments'] < rows[0]['memory']['arguments']


@pytest.mark.parametrize('machine', ['h100:32x8', 'v5e:16x16'])
def test_fsdp_on_256_devices_sends_no_activation(machine):
    (row,) = programs(machine, 'vit', 'fsdp')
    assert row['error'] is None
    assert row['collectives'] and not activations(row['collectives'])


@pytest.mark.parametrize('architecture', ['vit', 'cait', 'patchconvnet'])
@pytest.mark.parametrize('machine', EXTRAS)
def test_seeds_on_an_axis_compile(machine, architecture):
    (row,) = programs(machine, architecture, 'none', '3')
    assert row['error'] is None and row['collectives'] == []
    assert row['kernels'] == kernels(machine, architecture, {'attention': 'auto', **row})


@pytest.mark.parametrize(
    ('machine', 'name', 'cycles', 'temporaries'),
    [
        ('v5e', 'vit_small_patch16', 58e6, 1.9e9),
        ('v5e', 'cait_xxs24', 90e6, 2.4e9),
        ('h100', 'vit_small_patch16', None, 1.8e9),
        ('h100', 'cait_xxs24', None, 2.2e9),
    ],
)
def test_gradients_of_published_sizes_stay_as_fast_and_small(machine, name, cycles, temporaries):
    """Limits are 5% above the estimates of libtpu 0.0.42 and 0.0.52; extra copies exceed them."""
    (row,) = programs(machine, name, 'gradient')
    assert row['error'] is None
    assert row['memory']['temporaries'] < temporaries
    assert cycles is None or 0 < row['cycles'] < cycles


def activations(collectives):
    """Sent arrays with an axis of images: 11 per device, which divides nothing else."""
    sizes = [
        (c['kind'], array, math.prod(int(n) for n in re.findall(r'\d+', array.partition('[')[2])))
        for c in collectives
        for array in c['arrays']
    ]
    return [(kind, array) for kind, array, size in sizes if size and size % 11 == 0]
