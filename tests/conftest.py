"""Eight simulated devices and quick, shared compilation, set before jax starts; a folder a test."""

import importlib.metadata
import itertools
import os
import pathlib
import shutil
import signal
import sys
import tempfile

import pytest

flags = '--xla_force_host_platform_device_count=8'
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # others don't know this one
    flags += ' --xla_cpu_use_fusion_emitters=false'  # compiles in half the time
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()
os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS', 'cpu')
# Compiled code is read by later tests, workers, commands and sessions: a second run of
# `ops/test_attention.py` takes two thirds of the processor's time. The folder is the tests' own,
# and local as it holds machine code.
COMPILED = pathlib.Path(tempfile.gettempdir()) / f'vitjax-tests-{os.getuid()}'
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'true'
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(COMPILED)
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
if os.environ['JAX_PLATFORMS'] == 'cpu':
    # Most tests compile much and run it once: without optimizations that takes half the time.
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'

# A shell's background jobs ignore Ctrl-C, nohup's a closed terminal; tests' commands inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ENDED = itertools.count(1)  # tests of this process
MAPPINGS = pathlib.Path('/proc/self/maps')


@pytest.fixture(autouse=True)
def _folder_of_its_own(tmp_path_factory, monkeypatch):
    """Each test runs in an empty folder: what the user has in theirs is no business of a test."""
    monkeypatch.chdir(tmp_path_factory.mktemp('here'))


@pytest.fixture(autouse=True)
def _compiled_code_in_bounds():
    """Drops compiled code before there are more mappings of memory than Linux lets a process have.

    Each compiled function takes some, and half of the suite takes more than the 65,530 allowed,
    after which compiling ends the process.
    """
    yield
    if next(ENDED) % 25 == 0 and MAPPINGS.exists():  # counting takes as long as a short test
        with MAPPINGS.open() as lines:
            if sum(1 for _ in lines) > 25_000:
                import jax  # after the settings above

                jax.clear_caches()


def pytest_sessionstart(session):
    """Drops compiled code of many versions once it takes 2 GB."""
    alone = not hasattr(session.config, 'workerinput')  # no worker of xdist
    if alone and COMPILED.exists():
        if sum(file.stat().st_size for file in os.scandir(COMPILED)) > 2e9:
            shutil.rmtree(COMPILED)


def pytest_collection_finish():
    """Reads compiled code again, which an import of `scripts/benchmark.py` ends."""
    if 'jax' in sys.modules:
        import jax
        from jax.experimental.compilation_cache import compilation_cache

        jax.config.update('jax_enable_compilation_cache', True)
        compilation_cache.reset_cache()


def pytest_collection_modifyitems(items):
    """Puts tests that read modules' names from traces first.

    After some of the other tests in the same process those names were of classes; which test does
    that is not known yet.
    """
    first = ('test_flops.py', 'test_forecast.py', 'test_machines.py', 'test_target.py')
    items.sort(key=lambda item: item.path.name not in first)


def pytest_terminal_summary(terminalreporter):
    """The faults on purpose as a table: how many, and how they ended."""
    reports = [r for found in terminalreporter.stats.values() for r in found]
    rows = [
        value
        for report in reports
        for name, value in getattr(report, 'user_properties', ())
        if name == 'faults' and report.when == 'call'
    ]
    if rows and terminalreporter.config.option.markexpr == 'faults':
        terminalreporter.write_line('| faults | tried | right | right, and said | refused |')
        terminalreporter.write_line('| --- | --- | --- | --- | --- |')
        for row in rows:
            terminalreporter.write_line(f'| {" | ".join(map(str, row))} |')
