"""Commands in environments that are not as they should be: a line, and the right exit code."""

import os
import platform
import shlex
import subprocess
import sys

import pytest
from helpers import SCRIPTS

ROOT = SCRIPTS.parent
HELP = [sys.executable, str(SCRIPTS / 'summary.py'), '--help']  # imports little
ONCE = {'VITJAX_HUGE_PAGES': '0'}
glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='GLIBC_TUNABLES are of glibc')


def started(command, folder, modules=None, cwd=None, **environment):
    """Runs a command, with modules of the test's own before all others."""
    for name, text in (modules or {}).items():
        (folder / f'{name}.py').write_text(text)
    paths = [str(folder), str(ROOT)]
    there = {k: v for k, v in os.environ.items() if k not in ('GLIBC_TUNABLES', *ONCE)}
    there |= {'PYTHONPATH': os.pathsep.join(paths), **environment}
    there = {name: value for name, value in there.items() if value}
    return subprocess.run(
        command, capture_output=True, text=True, env=there, cwd=cwd, timeout=120,
        shell=isinstance(command, str),
    )  # fmt: skip


KILL = 'import os, signal; os.kill(os.getpid(), signal.SIGINT)'


@pytest.mark.parametrize(
    'module',
    [
        'raise KeyboardInterrupt',
        f'{KILL}; import time; time.sleep(60)',
        f'try:\n    {KILL}\n    sum(range(10**6))\nexcept BaseException:\n    pass',  # swallowed
    ],
    ids=['raised', 'sent', 'swallowed'],
)
@pytest.mark.parametrize(
    ('where', 'argument'), [('dataclasses', '--help'), ('tyro', '--help'), ('jax', 'digits')]
)
def test_ctrl_c_in_an_import(tmp_path, module, where, argument):
    done = started([*HELP[:-1], argument], tmp_path, {where: module}, **ONCE)
    assert (done.returncode, done.stderr, done.stdout) == (130, 'stopped\n', '')


@glibc
def test_ctrl_c_while_python_starts_again_waits_for_the_handler(tmp_path):
    modules = {'sitecustomize': f'import os\nif "GLIBC_TUNABLES" in os.environ:\n    {KILL}'}
    done = started(HELP, tmp_path, modules)
    assert (done.returncode, done.stderr) == (130, 'stopped\n')


def test_ctrl_c_that_is_ignored_stays_so(tmp_path):
    """As of a job that a shell started in the background."""
    ignored = 'import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)'
    done = started(HELP, tmp_path, {'sitecustomize': f'{ignored}; {KILL}'}, **ONCE)
    assert done.returncode == 0 and done.stderr == ''


FULL = 'error: standard output must take what is printed: No space left on device.\n'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('streams', 'code', 'said'),
    [
        ('>&-', 0, ''),
        ('2>&-', 0, ''),
        ('<&-', 0, ''),
        ('<&- >&- 2>&-', 0, ''),
        ('>/dev/full', 1, FULL),
        ('>/dev/full 2>&-', 1, ''),
        ('>/dev/full 2>/dev/full', 1, ''),
        ('| true', 0, ''),
    ],
)
def test_streams_that_cannot_be_written(tmp_path, streams, code, said):
    done = started(f'{shlex.join(HELP)} {streams}', tmp_path, **ONCE)
    assert (done.returncode, done.stderr) == (code, said)


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path):
    opened = f'import sys\nprint(open({str(tmp_path / "a")!r}, "w").fileno(), file=sys.stderr)'
    for streams in ('>&-', '<&-'):
        done = started(f'{shlex.join(HELP)} {streams}', tmp_path, {'tyro': opened}, **ONCE)
        assert int(done.stderr.splitlines()[0]) > 2


def test_a_user_without_a_home(tmp_path):
    nobody = 'import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none'
    done = started(HELP, tmp_path, {'sitecustomize': nobody}, HOME='', **ONCE)
    assert done.returncode == 0 and done.stderr == ''


def test_a_working_directory_that_was_deleted(tmp_path):
    gone = tmp_path / 'gone'
    command = f'mkdir {gone} && cd {gone} && rmdir {gone} && {shlex.join(HELP)}'
    done = started(command, tmp_path)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if 'getcwd' not in line]  # the shell's own
    assert lines == ['error: the working directory must exist: No such file or directory.']


@pytest.mark.slow
@pytest.mark.parametrize(
    'environment',
    [
        {'COLUMNS': '1'},
        {'COLUMNS': '-3', 'TERM': 'dumb'},
        {'COLUMNS': 'x', 'LC_ALL': 'xx_YY.UTF-8'},
        {'PYTHONIOENCODING': 'ascii'},
        {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'},
        {'XDG_CACHE_HOME': '/dev/null'},
        {'XDG_CACHE_HOME': '~nosuch', 'HOME': '~nosuch'},
    ],
    ids=str,
)
def test_terminals_and_caches_that_are_odd(tmp_path, environment):
    done = started(HELP, tmp_path, **ONCE, **environment)
    assert done.returncode == 0 and done.stderr == '' and '--image-size' in done.stdout


@pytest.mark.slow
def test_a_home_that_takes_no_files_costs_time_and_no_lines(tmp_path):
    """Compiled programs and matplotlib's list of fonts cannot be kept."""
    code = 'import command, jax, matplotlib as m; jax.jit(lambda x: x * 2)(1.0); print("done")'
    code += '; m.get_configdir(); m.get_cachedir()'
    environment = {
        'HOME': '/dev/null', 'XDG_CACHE_HOME': '', 'XDG_CONFIG_HOME': '', 'MPLCONFIGDIR': '',
        'JAX_COMPILATION_CACHE_DIR': '', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_ENABLE_COMPILATION_CACHE': 'true', 'TMPDIR': str(tmp_path),
    }  # fmt: skip
    done = started([sys.executable, '-c', code], tmp_path, cwd=SCRIPTS, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'done\n', '')


# ---- Huge pages --------------------------------------------------------------------------------

COUNTED = """import os
with open(os.environ['STARTS'], 'a') as file:
    print(os.environ.get('GLIBC_TUNABLES', ''), file=file)
"""


def tunables(folder, command, site=COUNTED, **more):
    """GLIBC_TUNABLES at each start of Python that a command makes."""
    file = folder / 'starts'
    done = started(command, folder, {'sitecustomize': site}, STARTS=str(file), **more)
    assert done.returncode == 0, done.stderr
    return file.read_text().splitlines()


@pytest.mark.slow
@glibc
@pytest.mark.parametrize(
    ('environment', 'found'),
    [
        ({}, ['', 'glibc.malloc.hugetlb=1']),
        ({'VITJAX_HUGE_PAGES': '1'}, ['', 'glibc.malloc.hugetlb=1']),
        ({'VITJAX_HUGE_PAGES': '0'}, ['']),
        ({'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0'}, ['glibc.malloc.hugetlb=0']),
        (
            {'GLIBC_TUNABLES': 'glibc.malloc.perturb=0'},
            ['glibc.malloc.perturb=0', 'glibc.malloc.perturb=0:glibc.malloc.hugetlb=1'],
        ),
    ],
    ids=str,
)
def test_python_starts_once_more_for_huge_pages_unless_it_is_told_not_to(
    tmp_path, environment, found
):
    assert tunables(tmp_path, HELP, **environment) == found


@glibc
def test_it_does_not_start_again_and_again(tmp_path):
    """The environment of a process with more rights than its user loses GLIBC_TUNABLES."""
    site = COUNTED + "os.environ.pop('GLIBC_TUNABLES', None)\n"
    assert len(tunables(tmp_path, HELP, site)) == 2


@pytest.mark.slow
@glibc
@pytest.mark.parametrize(
    ('command', 'starts'),
    [
        ([sys.executable, 'summary.py', '--help'], 2),
        ([sys.executable, '-u', './summary.py', '--help'], 2),
        ([sys.executable, '../scripts/summary.py', '--help', '', "a 'b'", '-m', '-c'], 2),
        ([sys.executable, '-m', 'summary', '--help'], 1),
        ([sys.executable, '-m', 'runpy', 'summary', '--help'], 1),
        ([sys.executable, '-c', 'import command', '--help'], 1),
        (
            [sys.executable, '-c', 'import sys; sys.argv = ["summary.py"]; import command'],
            1,
        ),
        (f'echo import command | {sys.executable} -', 1),
    ],
    ids=str,
)
def test_only_a_command_s_own_process_starts_again(tmp_path, command, starts):
    more = {'PYTHONSAFEPATH': ''}
    assert len(tunables(tmp_path, command, cwd=SCRIPTS, **more)) == starts


@pytest.mark.slow
@glibc
def test_the_installed_command_starts_again_once(tmp_path):
    script = tmp_path / 'vitjax'  # as pip writes it
    script.write_text('import sys\nfrom vitjax.__main__ import main\nsys.exit(main())\n')
    assert len(tunables(tmp_path, [sys.executable, str(script), 'summary', '--help'])) == 2


@pytest.mark.faults
def test_every_command_in_every_hostile_environment(tmp_path, record_property):
    """A mistake, and help that cannot be printed: no traceback, at most two lines of error."""
    nobody = 'import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none'
    (tmp_path / 'sitecustomize.py').write_text(nobody)
    environments = [
        {'HOME': ''}, {'COLUMNS': '1', 'TERM': 'dumb'}, {'PYTHONIOENCODING': 'ascii'},
        {'JAX_PLATFORMS': 'cuda'}, {'JAX_PLATFORMS': 'nonsense'}, {'XDG_CACHE_HOME': '/dev/null'},
    ]  # fmt: skip
    names = sorted(path.stem for path in SCRIPTS.glob('*.py'))
    count = 0
    for name in names:
        command = [sys.executable, str(SCRIPTS / f'{name}.py')]
        for environment in environments:
            done = started([*command, '~nosuch/x', 'all'], tmp_path, cwd=tmp_path, **environment)
            errors = done.stderr[done.stderr.find('error: ') :].splitlines()
            assert done.returncode in (1, 2) and 1 <= len(errors) <= 2, (name, done.stderr)
            assert 'Traceback' not in done.stderr, (name, environment, done.stderr)
            count += 1
        for streams in ('>&-', '2>&-', '>/dev/full'):
            done = started(f'{shlex.join(command)} --help {streams}', tmp_path, cwd=tmp_path)
            assert 'Traceback' not in done.stderr
            assert done.returncode == (streams == '>/dev/full'), (name, streams, done.stderr)
            count += 1
    record_property('faults', ('commands in odd environments', count, 0, 0, count))
