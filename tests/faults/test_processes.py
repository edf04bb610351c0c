"""Commands that are killed, stopped, short of disk, or not alone."""

import contextlib
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from faults.conftest import answer, same
from helpers import SCRIPTS, TINY

from vitjax import activations, loop, runs
from vitjax.runs import checkpoint

FILE = """
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT
from vitjax.experiment.optim import Optim
experiment = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10, dropout=0.1),
    data=Source('digits'), augment=Augment(size=8, shift=0.1),
    optim=Optim(peak=3e-3, ema=0.9), batch_size=64, epochs=12,
)
def grid():
    return {'model.depth': (1, 2)}
"""
faults = pytest.mark.faults


class Commands:
    """Each of the commands that write for long, with what one says that was left alone."""

    def __init__(self, folder):
        self.file, self.whole = folder / 'small.py', folder / 'whole'
        self.file.write_text(FILE)
        flags = os.environ['XLA_FLAGS'].replace('count=8', 'count=1')
        self.environment = {
            **os.environ, 'XLA_FLAGS': flags, 'JAX_ENABLE_COMPILATION_CACHE': 'true',
            'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }  # fmt: skip
        self.answers = {}
        for what in ('train', 'ablate', 'capture'):
            self.finish(what, self.whole / what)
            self.answers[what] = self.answer(what, self.whole / what)

    def start(self, what, out, **more):
        arguments = {
            'train': ['train.py', self.file, '--no-report'],
            'ablate': ['ablate.py', self.file, '--no-report', '--seeds', '2', '--epochs', '4'],
            'capture': ['capture.py', self.whole / 'train', '--batch-size', '4'],
            'evaluate': ['evaluate.py', out],
        }[what]
        arguments += [] if what == 'evaluate' else ['--out', out]
        script, *rest = map(str, arguments)
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *rest],
            env={**self.environment, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, what, out, **more):
        """Runs a command to its end, which must be a good one that nothing was said about."""
        process = self.start(what, out, **more)
        text, _ = process.communicate()
        assert process.returncode == 0, text
        assert 'warning: ' not in text and 'Traceback' not in text, text
        return text

    def fails(self, what, out, **more):
        """Runs a command that must fail with a line or two; returns them."""
        process = self.start(what, out, **more)
        text, _ = process.communicate()
        assert process.returncode == 1, text
        assert 'Traceback' not in text, text
        start = text.index('error: ')
        assert len(text[start:].splitlines()) <= 2, text
        return text[start:]

    def answer(self, what, out):
        if what == 'train':
            return answer(out)
        if what == 'capture':
            found = activations.read(out)
            rows = np.arange(found.examples)
            assert found.hashes
            values = [*map(np.asarray, found.values(rows)), found.hashes(rows), found.labels]
            return [(out / 'index.json').read_text(), values]
        with (out / 'results.csv').open() as file:
            names = ('model.depth', 'status', 'test_accuracy', 'train_flops')
            table = [[row[name] for name in names] for row in csv.DictReader(file)]
        return table, [answer(seed) for seed in sorted((out / 'cells').glob('*/seed_*'))]

    def require_same(self, what, out):
        assert same(self.answer(what, out), self.answers[what])


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp('commands'))


def wait(process, ready, seconds=120):
    """Until something is so, or the process has ended; whether it is so."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if ready():
            return True
        time.sleep(0.001)
    return False


def written(out):
    """When something was last written below a folder."""
    found = (p for p in out.rglob('*') if p.suffix in ('.jsonl', '.json'))
    with contextlib.suppress(FileNotFoundError):
        return max((p.stat().st_mtime_ns for p in found), default=0)
    return 0


def saving(out):
    return any(out.glob('**/checkpoints/*tmp*'))


@faults
@pytest.mark.parametrize(
    ('what', 'moment', 'count'),
    [('train', written, 15), ('train', saving, 15), ('ablate', written, 10),
     ('capture', written, 10)],
)  # fmt: skip
def test_kills_change_nothing(commands, tmp_path, what, moment, count, record_property):
    """Killed at random moments and begun again, until it is done; then once more, to the count."""
    rng, kills, ended = random.Random(f'{what}{moment.__name__}'), 0, 0
    while kills < count:
        out = tmp_path / f'out{ended}'
        while kills < count:
            before = written(out)
            process = commands.start(what, out)
            if moment is saving:
                ready = wait(process, lambda out=out: saving(out) and rng.random() < 0.2)
                time.sleep(rng.uniform(0, 0.1))
            else:
                ready = wait(process, lambda out=out, b=before: written(out) > b)
                time.sleep(rng.uniform(0, 0.7))
            killed = ready and process.poll() is None
            process.kill()
            text, _ = process.communicate()
            assert 'warning: ' not in text and 'Traceback' not in text, text
            kills += killed
            if not killed:
                assert process.returncode in (0, -signal.SIGKILL), text
            if process.returncode == 0:
                break
        commands.finish(what, out)
        commands.require_same(what, out)
        ended += 1
    name = f'{what}.py killed' + (' while it saved' if moment is saving else '')
    record_property('faults', (f'{name}, {ended} results', kills, kills, 0, 0))


@faults
def test_sigterm_during_a_save(commands, tmp_path, record_property):
    rng, stopped = random.Random(0), 0
    for i in range(6):
        out = tmp_path / f'out{i}'
        process = commands.start('train', out)
        ready = wait(process, lambda out=out: saving(out) and rng.random() < 0.2)
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate()
        assert process.returncode == (143 if ready else 0), text
        stopped += ready
        commands.finish('train', out)
        commands.require_same('train', out)
    record_property('faults', ('SIGTERM during a save of train.py', stopped, stopped, 0, 0))


@pytest.fixture
def disk(tmp_path):
    """Makes a small file system, where that is permitted."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def mount(*options):
        command = ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', str(folder)]
        if not shutil.which('mount') or subprocess.run(command, capture_output=True).returncode:
            pytest.skip('mounting is not permitted')
        return folder

    yield mount
    subprocess.run(['umount', str(folder)], capture_output=True)


@faults
@pytest.mark.parametrize('what', ['train', 'capture'])
def test_a_disk_that_fills_at_every_stage(commands, tmp_path, disk, what, record_property):
    """The first command fails in a line; the second, with more room, ends as if it was alone."""
    needed = sum(p.stat().st_size for p in (commands.whole / what).rglob('*') if p.is_file())
    refused = right = 0
    for share in (0.001, 0.05, 0.15, 0.3, 0.45, 0.6, 0.8, 0.95, 1.1, 1.3, 1.6):
        folder = disk(f'size={max(4096, int(share * needed))}')
        process = commands.start(what, folder / 'out')
        text, _ = process.communicate()
        assert 'Traceback' not in text, text
        if process.returncode == 0:
            right += 1
        else:
            refused += 1
            last = text[text.index('error: ') :].splitlines()
            assert process.returncode == 1 and len(last) <= 2, text
            assert 'disk' in last[0] or 'space' in last[0], text
            disk('remount', 'size=256m')
            commands.finish(what, folder / 'out')
        commands.require_same(what, folder / 'out')
        subprocess.run(['umount', str(folder)], check=True)
    assert refused > 3
    record_property('faults', (f'full disks, {what}.py', right + refused, right, 0, refused))


@faults
def test_a_read_only_home(commands, tmp_path, disk, record_property):
    homes = ['/dev/null/home', str(disk('ro'))]
    for i, home in enumerate(homes):
        more = {'HOME': home}
        gone = ('JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME', 'MPLCONFIGDIR')
        kept = {k: v for k, v in commands.environment.items() if k not in gone}
        own = Commands.__new__(Commands)
        own.file, own.whole, own.environment = commands.file, commands.whole, kept
        text = own.finish('train', tmp_path / f'run{i}', **more)
        assert 'test accuracy' in text
        commands.require_same('train', tmp_path / f'run{i}')
        assert 'accuracy' in own.finish('evaluate', tmp_path / f'run{i}', **more)
        own.finish('capture', tmp_path / f'capture{i}', **more)
        commands.require_same('capture', tmp_path / f'capture{i}')
    record_property(
        'faults', ('a home that cannot be written', 3 * len(homes), 3 * len(homes), 0, 0)
    )


@faults
@pytest.mark.parametrize('what', ['train', 'capture'])
def test_two_processes_in_one_directory(commands, tmp_path, what, record_property):
    for i in range(4):
        out = tmp_path / f'out{i}'
        processes = [commands.start(what, out) for _ in range(3)]
        texts = [process.communicate()[0] for process in processes]
        codes = [process.returncode for process in processes]
        assert 0 in codes and set(codes) <= {0, 1}, texts
        for code, text in zip(codes, texts, strict=True):
            assert 'Traceback' not in text, text
            if code:
                line = text[text.index('error: ') :].splitlines()
                assert len(line) == 1 and 'another process is' in line[0], text
        commands.require_same(what, out)
    record_property('faults', (f'three processes in one directory, {what}.py', 4, 4, 0, 0))


def test_two_captures_in_one_directory(captured, tmp_path):
    out = shutil.copytree(captured.stopped, tmp_path / 'capture')
    with runs.lock(out), pytest.raises(ValueError, match='another process is capturing in'):
        captured.write(out)
    captured.write(out)
    assert same(captured.read(out), captured.answer)


@pytest.mark.slow
def test_clocks_that_jump(trained, tmp_path, monkeypatch):
    """A day back, a year on, files from the future: the same numbers."""
    rng, real, off, save = random.Random(0), time.time, [0.0], checkpoint.save

    def jump(*args, **options):
        args[0].wait_until_finished()
        off[0] = rng.uniform(-86400, 3e7)
        save(*args, **options)

    monkeypatch.setattr(time, 'time', lambda: real() + off[0])
    monkeypatch.setattr(time, 'time_ns', lambda: int(1e9 * time.time()))
    monkeypatch.setattr(checkpoint, 'save', jump)
    run = shutil.copytree(trained.killed, tmp_path / 'run')
    for i, path in enumerate(sorted(run.rglob('*'))):
        age = real() + 1e7 - 1e5 * i
        os.utime(path, (age, age))
    loop.train(TINY, run, quiet=True)
    assert same(answer(run), trained.answer)
