"""Eight simulated devices and quick compilation, set before jax starts; a folder for each test."""

import importlib.metadata
import itertools
import os
import pathlib
import signal

import pytest

flags = '--xla_force_host_platform_device_count=8'
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # others don't know this one
    flags += ' --xla_cpu_use_fusion_emitters=false'  # compiles in half the time
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip()
os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS', 'cpu')
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'  # the user's own is no business of the tests
if os.environ['JAX_PLATFORMS'] == 'cpu':
    # Most tests compile much and run it once: without optimizations that takes half the time.
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would the commands that tests send it to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


def pytest_collection_modifyitems(items):
    """What reads modules' names from traces comes first.

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
