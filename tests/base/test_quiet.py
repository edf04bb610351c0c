"""Importing and using this project leaves the host process as it was."""

import logging
import subprocess
import sys
import threading
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vitjax.base import quiet
from vitjax.data import images
from vitjax.runs import checkpoint

IMPORTED = """
import importlib, logging, os, pkgutil, signal, sys, threading, warnings
# These change the process themselves.
import absl.logging, jax, matplotlib.pyplot, numpy, orbax.checkpoint, scipy.special, sklearn.metrics
import vitjax

def state():
    known = logging.root.manager.loggerDict
    loggers = {n: l for n, l in known.items() if isinstance(l, logging.Logger)}
    return {
        'levels': {n: l.level for n, l in [('', logging.root), *loggers.items()] if l.level},
        'filters of loggers': {n: l.filters[:] for n, l in loggers.items() if l.filters},
        'handlers': logging.root.handlers[:],
        'filters': warnings.filters[:],
        'hooks': (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        'signals': {n: signal.getsignal(n) for n in signal.valid_signals()},
        'environment': dict(os.environ),
        'numpy': (numpy.geterr(), numpy.get_printoptions()),
        'jax': dict(jax.config.values),
        'matplotlib': dict(matplotlib.rcParams),
        'recursion': sys.getrecursionlimit(),
    }

before = state()
names = [m.name for m in pkgutil.walk_packages(vitjax.__path__, 'vitjax.')]
assert len(names) > 100
for name in names:
    importlib.import_module(name)
after = state()
assert after == before, {k: (before[k], after[k]) for k in before if before[k] != after[k]}
"""


@pytest.mark.slow
def test_imports_leave_the_process_as_it_was():
    done = subprocess.run([sys.executable, '-c', IMPORTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def state():
    loggers = [logging.getLogger(name) for name in ('absl', 'asyncio')]
    return [(x.level, x.filters[:]) for x in loggers], warnings.filters[:], sys.unraisablehook


def test_a_save_leaves_the_process_as_it_was_also_by_threads(tmp_path):
    before, errors = state(), []

    def save(name):
        try:
            with checkpoint.writing(tmp_path / name) as manager:
                checkpoint.save(manager, 1, {'params': {'a': jnp.ones(3)}}, {}, wait=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and state() == before
    found = checkpoint.restore(tmp_path / '0', 1, {'params': {'a': jnp.ones(3)}})
    assert found['params']['a'].sum() == 3 and state() == before
    with pytest.raises(ValueError, match='mine'), checkpoint.writing(tmp_path / 'x'):
        raise ValueError('mine')
    assert state() == before


def test_only_orbax_is_silenced_while_it_works(caplog):
    def record(name, path, text):
        return logging.LogRecord(name, logging.ERROR, path, 1, text, (), None)

    with quiet.orbax():
        for name in ('absl', 'asyncio'):
            logging.getLogger(name).handle(record(name, '/host/program.py', 'of the host'))
            logging.getLogger(name).handle(record(name, '/lib/orbax/checkpoint/x.py', 'of orbax'))
        task = 'Task <coro=<save() defined at /lib/orbax/checkpoint/x.py:3>> was never retrieved'
        logging.getLogger('asyncio').handle(record('asyncio', '/lib/asyncio/tasks.py', task))
        assert logging.getLogger('absl').isEnabledFor(logging.ERROR)
    assert [r.getMessage() for r in caplog.records] == ['of the host'] * 2


def test_the_last_to_leave_takes_away_what_the_first_added():
    before = warnings.filters[:]
    first, second = quiet.warning(DeprecationWarning), quiet.warning(DeprecationWarning)
    with first:
        with second:
            assert len(warnings.filters) == len(before) + 1
        warnings.warn('still ignored', DeprecationWarning, stacklevel=1)
    assert warnings.filters == before
    with pytest.warns(DeprecationWarning):
        warnings.warn('not any more', DeprecationWarning, stacklevel=1)


def test_an_equal_filter_of_the_host_stays():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        before = warnings.filters[:]
        with quiet.warning(DeprecationWarning):
            pass
        assert warnings.filters == before


def test_threads_that_linger_after_a_save_that_failed(monkeypatch):
    left = threading.Event()
    monkeypatch.setattr(quiet, 'LINGER', 0)
    monkeypatch.setattr(quiet, '_hush', lambda: left.set)
    with pytest.raises(OSError), quiet.orbax(lambda error: True):
        raise OSError
    assert left.wait(10)


def test_large_images_are_read_without_a_warning_and_warn_the_host(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500)
    assert images.read(tmp_path / 'a.png').shape == (30, 30, 3)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(tmp_path / 'a.png'):
        pass
