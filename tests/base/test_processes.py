"""Runs of several processes, from the command line."""

import os
import re
import signal
import subprocess
import sys
import threading

import jax
import pytest
from helpers import SCRIPTS, same_run, wait
from helpers import processes as start

from vitjax import loop
from vitjax.base import processes
from vitjax.loop import cluster
from vitjax.runs import checkpoint

# Nothing in it draws by device, as dropout does, or makes much of rounding, as Adam does.
FILE = """
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT
from vitjax.experiment.optim import Optim
experiment = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10), data=Source('digits'),
    augment=Augment(size=8, flip=0.5, mixup=0.2), optim=Optim(name='sgd', peak=0.01),
    batch_size=32, steps=240, evaluate_every=0.5,
)
"""
exec(FILE, made := {})
EXPERIMENT = made['experiment']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The run of one process and one device."""
    out = tmp_path_factory.mktemp('runs') / 'whole'
    loop.train_seeds(EXPERIMENT, {0: out}, quiet=True, devices=jax.devices()[:1])
    return out


@pytest.fixture
def arguments(tmp_path):
    path = tmp_path / 'digit.py'
    path.write_text(FILE)

    def made(out, *more):
        return [str(path), '--no-report', '--out', str(out), *more]

    return made


def finished(running):
    texts = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), texts
    return texts


@pytest.mark.slow
def test_under_slurm_there_is_nothing_to_set(tmp_path, whole, arguments):
    step = {
        'SLURM_JOB_ID': str(os.getpid()), 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2',
        'SLURM_STEP_NUM_TASKS': '2', 'SLURM_PROCID': 'INDEX', 'SLURM_LOCALID': 'INDEX',
    }  # fmt: skip
    out = tmp_path / 'two'
    texts = finished(start(2, arguments(out), **step))
    assert 'on 2 x cpu' in texts[0] and 'on 2 x cpu' not in texts[1]
    same_run(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_what_happens_to_one_ends_the_others_and_fewer_go_on(tmp_path, whole, arguments, how):
    out = tmp_path / 'two'
    command = arguments(out, '--parallel', 'fsdp')
    running = start(2, command)
    assert wait(running[1], lambda: checkpoint.steps(out))
    running[1].send_signal(how)
    text, _ = running[0].communicate()
    if how != signal.SIGTERM:
        running[1].kill()
    other, _ = running[1].communicate()
    assert 'Traceback' not in text, text
    if how == signal.SIGTERM:  # they are asked, and agree on the step
        assert [process.returncode for process in running] == [143, 143], (text, other)
        assert 'stopped at step' in text and text.splitlines()[-1] == other.splitlines()[-1]
    elif how == signal.SIGKILL:
        assert running[0].returncode == 1
        assert 'another process of this run is gone' in text
        assert 'The same command resumes from the last checkpoint' in text
    else:
        assert running[0].returncode and 'is gone (no heartbeat)' in text
        assert '0x' not in text, text
    assert 0 < checkpoint.steps(out)[-1] < 240
    if how == signal.SIGSTOP:
        return  # it goes on as after SIGKILL
    (text,) = finished(start(1, command, JAX_PLATFORMS='cpu'))
    assert 'resumed from step' in text
    same_run(out, whole)


@pytest.mark.slow
def test_all_leave_together_when_all_are_asked(tmp_path):
    script, late = tmp_path / 'stopped.py', tmp_path / 'late'
    os.mkfifo(late)
    script.write_text(
        f'import sys; sys.path.insert(0, {str(SCRIPTS)!r})\n'
        'import command; from vitjax.base import processes\n'
        'def main():\n    processes.join(); import jax\n'
        f'    if jax.process_index():\n        open({str(late)!r}).read()\n'
        '    print("stopped", flush=True); return 143\n'
        'command.guard(main)\n'
    )
    running = start(2, [], script)
    assert any(line == 'stopped\n' for line in running[0].stdout or ())  # of which the other waits
    late.write_text('')
    assert running[1].communicate()[0].splitlines()[-1] == 'stopped'
    running[0].communicate()
    assert [process.returncode for process in running] == [143, 143]


def agreement(values):
    """Returns the error of each of several processes, here threads, or None."""
    barrier, given = threading.Barrier(len(values)), [b''] * len(values)
    raised: list[BaseException | None] = [None] * len(values)

    def one(i):
        def gathered(content):
            given[i] = content
            barrier.wait(10)
            found = [*given]
            barrier.wait(10)
            return found

        try:
            processes.require_agreement(values[i], gathered)
        except BaseException as error:
            raised[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(values))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_processes_agree_or_all_of_them_say_what_differs():
    same = {'--optim.peak': 0.01, 'versions': {'jax': '1', 'python': '3.11'}, 'data': {'train': 5}}
    assert agreement([same, dict(reversed(same.items())), same]) == [None] * 3
    other = {**same, '--optim.peak': 0.5, 'versions': {'jax': '2', 'python': '3.11'}}
    raised = agreement([same, same, other])
    assert len({str(error) for error in raised}) == 1
    assert all(type(error) is processes.Disagreement for error in raised)
    said = str(raised[0]).splitlines()
    assert said[0].endswith(
        'process 2 differs from process 0 (0 -> 2): '
        '--optim.peak: 0.01 -> 0.5; versions.jax: 1 -> 2.'
    )
    assert len(said) == 2
    many = {f'--{i}': i for i in range(9)}
    (error, _) = agreement([many, dict.fromkeys(many, -1)])
    assert '; 5 more.' in str(error)


@pytest.mark.parametrize('noise', [True, False])
def test_walls_of_jax_s_threads_become_a_line_and_other_errors_pass(noise):
    wall = (
        'W1201 08:15:12.01 122 preemption_sync_manager.cc:147] Failed to retrieve\n'
        'Additional GRPC error information\n:UNKNOWN:Error received\n'
        'F1201 08:16:57.37 131 client.h:80] Terminating process because the JAX\n'
        '*** Check failure stack trace: ***\n    @     0x7f5cce440634  absl::SendToLog()\n'
    )
    call = [sys.executable, '-c', processes._GONE]
    text = 'a warning of the host\n'
    done = subprocess.run(call, input=text + wall * noise, capture_output=True, text=True)
    line = 'error: another process of this run is gone (its connection is closed).'
    assert done.stderr.splitlines()[:2] == ['a warning of the host', line][: 1 + noise]
    assert len(done.stderr.splitlines()) == 1 + 2 * noise


@pytest.mark.slow
def test_a_run_is_one_job_of_several_processes(tmp_path, whole, arguments):
    pytest.importorskip('submitit')
    out = tmp_path / 'two'
    job = ('--launcher', 'processes', '--job', 'tasks_per_node=2')
    (text,) = finished(start(1, arguments(out, *job), JAX_PLATFORMS='cpu'))
    assert 'is submitted; its logs' in text and 'is done' in text
    log = next((tmp_path / 'two-jobs').glob('*_0_log.out')).read_text()
    assert 'on 2 x cpu' in log
    same_run(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize('tasks', [1, 2])
def test_a_job_that_fails_says_where_to_look(tmp_path, arguments, tasks):
    pytest.importorskip('submitit')
    job = ('--launcher', 'processes', '--job', f'tasks_per_node={tasks}', '--batch-size', '9999')
    (running,) = start(1, arguments(tmp_path / 'two', *job), JAX_PLATFORMS='cpu')
    text, _ = running.communicate()
    assert running.returncode == 1 and 'Traceback' not in text
    assert re.search(r'job \d+ failed: .*9999.*; see its logs\.$', text.strip()), text


def test_a_job_that_is_stopped_early_is_submitted_again_as_it_was():
    pytest.importorskip('submitit')
    again = cluster.Training().checkpoint('{}', 'run', False)
    assert isinstance(again.function, cluster.Training) and again.args == ('{}', 'run', False)


def test_a_launcher_without_submitit_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ValueError, match=r'pip install -e .\.\[cluster\]'):
        cluster.train(EXPERIMENT, tmp_path / 'run', 'slurm')


@pytest.mark.parametrize(
    ('cores', 'batch', 'devices'),
    [(2, 128, 2), (2, 6, 1), (3, 128, 2), (6, 96, 6), (64, 256, 8), (1, 128, 1), (12, 20, 5)],
)
def test_cores_that_can_part_a_batch_evenly_are_devices(monkeypatch, cores, batch, devices):
    set_to = {}
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr('jax.config.update', set_to.__setitem__)
    processes.part_cores(batch, {})
    assert set_to == {'jax_num_cpu_devices': devices}


@pytest.mark.slow
def test_jax_has_a_device_for_each_core():
    code = """import jax; from vitjax.base import processes; from vitjax.runs import environment
processes.part_cores(2 * 840)  # one to eight divide the half of it
print(jax.device_count('cpu'), environment.describe(jax.devices())['cores'])"""
    environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    call = [sys.executable, '-c', code]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    devices, cores = map(int, done.stdout.split())
    assert devices == min(cores, 8)


@pytest.mark.parametrize(
    'environment',
    [{'JAX_NUM_CPU_DEVICES': '3'}, {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}],
)
def test_a_number_of_devices_that_is_set_stays(monkeypatch, environment):
    monkeypatch.setattr('jax.config.update', pytest.fail)
    processes.part_cores(128, environment)


@pytest.mark.parametrize(
    ('parallel', 'parts'), [('auto', 1), ('pmap', 1), ('fsdp', 0), ('none', 0)]
)
def test_a_training_alone_parts_cores_where_its_mode_parts_batches(monkeypatch, parallel, parts):
    calls = []
    monkeypatch.setattr(processes, 'part_cores', lambda *given: calls.append(given))
    processes.start(parallel, 128, {})
    assert calls == [(128, {})] * parts


def test_alone_there_is_nobody_to_join(monkeypatch):
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *_, **__: pytest.fail('joined'))
    for environment in ({}, {'SLURM_NTASKS': '4'}, {'SLURM_STEP_NUM_TASKS': '1'}):
        assert not processes.join(environment)
    assert not processes.lost(RuntimeError('Connection reset by peer'))


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ({'JAX_NUM_PROCESSES': 'two'}, "JAX_NUM_PROCESSES must be a whole number: 'two'"),
        (
            {'JAX_NUM_PROCESSES': '2'},
            'JAX_COORDINATOR_ADDRESS needs JAX_NUM_PROCESSES and JAX_PROCESS_ID',
        ),
    ],
)
def test_numbers_that_are_missing_or_none(more, said):
    with pytest.raises(ValueError, match=said):
        processes.join({'JAX_COORDINATOR_ADDRESS': 'localhost:1', **more})
