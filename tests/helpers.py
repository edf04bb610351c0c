"""Helpers of tests: random arrays and parameters, distances of trees, processes."""

import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from vitjax import runs
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.optim import Optim
from vitjax.models import ViT

SCRIPTS = pathlib.Path(__file__).parent.parent / 'scripts'

# A run of a second.
TINY = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10, dropout=0.1),
    data=Source('digits'),
    augment=Augment(size=8, shift=0.1),
    optim=Optim(peak=3e-3, ema=0.9),
    batch_size=64,
    epochs=3,
    parallel='none',
)


def exact(x) -> Any:
    """In float64, for references."""
    return np.asarray(x, np.float64)


def normal(*shape, seed=0, scale=1.0) -> Any:
    """Normal numbers in float32, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=shape, scale=scale).astype(np.float32)


def shapes_of(module, inputs, *args) -> Any:
    """Shapes of the parameters of a module called with these arguments; computes nothing.

    `inputs` may be a `jax.ShapeDtypeStruct`.
    """
    init = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, *args), inputs)
    return init.get('params', {})


def random_like(shapes, *, seed=0, scale=0.3) -> Any:
    """A tree of normal numbers in float32."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape, scale=scale).astype(np.float32), shapes
    )


def random_params(module, inputs, *args, seed=0, scale=0.3) -> Any:
    """Parameters with nothing at its initial value, so that no term goes unseen."""
    return random_like(shapes_of(module, inputs, *args), seed=seed, scale=scale)


def distance(a, b):
    """The norm of the difference over the norm of `b`, of whole trees of one structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.map(np.shape, a) == jax.tree.map(np.shape, b)
    a, b = (np.concatenate([np.ravel(exact(x)) for x in jax.tree.leaves(t)]) for t in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def assert_close(found, expected, tolerance=2e-6):
    """Same shape, and no element further off than `tolerance` times the largest expected one."""
    found, expected = exact(found), exact(expected)
    assert found.shape == expected.shape
    scale = max(np.abs(expected).max(initial=0), 1e-30)
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=tolerance)


def assert_equal(a, b):
    """Two trees of the same structure, to the bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


def as_users_do(program):
    """Runs Python in a process without the tests' quick compilation; it can import the tests."""
    tests = pathlib.Path(__file__).parent
    quick = ('XLA_FLAGS', 'JAX_DISABLE_MOST_OPTIMIZATIONS')
    there = {name: value for name, value in os.environ.items() if name not in quick}
    there['PYTHONPATH'] = os.pathsep.join([str(tests), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, '-c', program], env=there, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def free_port():
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


def processes(count, arguments, script: str | pathlib.Path = SCRIPTS / 'train.py', **more):
    """Starts a script as processes that train as one, of a CPU device each.

    `more` is their environment, in place of what `vitjax.base.processes.join` documents; `INDEX`
    in it stands for the process's number.
    """
    here = {'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1')}
    more = more or {
        'JAX_COORDINATOR_ADDRESS': f'localhost:{free_port()}', 'JAX_NUM_PROCESSES': str(count),
        'JAX_PROCESS_ID': 'INDEX',
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, **here, **{k: v.replace('INDEX', str(i)) for k, v in more.items()}},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(count)
    ]  # fmt: skip


def wait(process, ready):
    """Waits until `ready()` holds or the process has ended; returns whether it holds."""
    while process.poll() is None:
        if ready():
            return True
        time.sleep(0.02)
    return False


def same_run(out, whole):
    """Two runs have the same losses, gradients and parameters, to 1e-5."""
    both = map(runs.records.read_metrics, (out, whole))
    for found, wanted in zip(*both, strict=True):
        assert (found['step'], found['split']) == (wanted['step'], wanted['split'])
        for name in ('loss', 'accuracy', *(['grad_norm'] if 'grad_norm' in wanted else [])):
            off = abs(found[name] - wanted[name]) / max(abs(wanted[name]), 1e-30)
            assert off < 1e-5, (name, found, wanted)
    found, wanted = (runs.load(run, which='latest').params for run in (out, whole))
    assert distance(found, wanted) < 1e-5
