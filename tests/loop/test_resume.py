"""A run that an earlier version of the code left resumes to the bits that it would have had."""

import hashlib
import importlib.metadata
import json
import pathlib
import zipfile
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import pytest

from vitjax import loop, runs

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden'


def machine():
    """Name of the compiler and the processor's instructions: the same ones give the same bits."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        flags = next(line for line in lines if line.startswith('flags')).split(':')[1].split()
    except (OSError, StopIteration):
        flags = []
    digest = hashlib.sha256(' '.join(sorted(flags)).encode()).hexdigest()[:16]
    return f'jaxlib {importlib.metadata.version("jaxlib")}, {digest}'


def values(lines):
    timed = ('seconds', 'images_per_second')
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='the run was trained on CPU')
def test_an_earlier_version_s_run_resumes_to_the_same_bits(tmp_path):
    """A CaiT with dropout, mixup and an EMA, stopped at step 40 of 60 by commit 6751a64."""
    with zipfile.ZipFile(GOLDEN / 'run.zip') as archive:
        archive.extractall(tmp_path / 'run')
    experiment = runs.read_experiment(tmp_path / 'run')
    loop.train(experiment, tmp_path / 'run', quiet=True)
    params = runs.load(tmp_path / 'run', which='latest').params
    got: Any = flax.traverse_util.flatten_dict(params, sep='/')
    lines = values(runs.records.read_metrics(tmp_path / 'run'))
    with np.load(GOLDEN / 'resumed.npz') as file:
        exact = str(file['machine']) == machine()
        wanted = values(map(json.loads, str(file['metrics']).splitlines()))
        assert set(got) == set(file.files) - {'machine', 'metrics'}
        for path, value in got.items():
            # Elsewhere rounding differs, and 20 steps of AdamW make more of it.
            np.testing.assert_allclose(value, file[path], atol=0 if exact else 1e-3, rtol=0)
    if exact:
        assert lines == wanted
    assert [line['step'] for line in lines] == [line['step'] for line in wanted]
