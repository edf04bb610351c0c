"""A tiny run and a tiny capture, whole and stopped, made once for all damages."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from helpers import TINY
from streams import VIT, experiment_of, images_of, stream_of

from vitjax import activations, evaluate, loop, runs
from vitjax.loop import hooks
from vitjax.runs import checkpoint


@pytest.fixture
def falling(monkeypatch):
    """Validation accuracies that fall, so that the best checkpoint is not the last."""

    def scores(logits, labels):
        accuracy = 1 / (1 + float(np.square(logits).mean(dtype=np.float64)))
        return {**evaluate.scores(logits, labels), 'accuracy': accuracy}

    monkeypatch.setattr(loop, 'scores', scores)
    monkeypatch.setattr(hooks, 'scores', scores)


def answer(run):
    """All that a finished run says: its metrics but for times, its best and its last parameters."""
    timed = ('seconds', 'images_per_second')
    lines = [{k: v for k, v in r.items() if k not in timed} for r in runs.records.read_metrics(run)]
    best, last = (runs.load(run, which=which).params for which in ('best', 'latest'))
    return lines, jax.tree.map(np.asarray, best), jax.tree.map(np.asarray, last)


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.all(x == y)), a, b))
    )


class Runs:
    """A run that was killed after two of three checkpoints, and what it says once it is finished.

    Step 20 is its best checkpoint, step 40 its last.
    """

    def __init__(self, folder):
        self.killed, self.finished, self.copy = (folder / n for n in ('killed', 'whole', 'copy'))
        loop.train(TINY, self.finished, quiet=True)
        self.answer = answer(self.finished)
        save = checkpoint.save

        def killed(manager, step, *args, **options):
            if step == 60:
                raise KeyboardInterrupt
            save(manager, step, *args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, 'save', killed)
            with pytest.raises(KeyboardInterrupt):
                loop.train(TINY, self.killed, quiet=True)
        assert checkpoint.steps(self.killed) == [20, 40]
        assert checkpoint.steps(self.finished) == [20, 60]

    def copied(self, run):
        shutil.rmtree(self.copy, ignore_errors=True)
        return shutil.copytree(run, self.copy)


made = {}  # once for a process: `falling` is of a test


@pytest.fixture
def trained(falling, tmp_path_factory):
    if 'runs' not in made:
        made['runs'] = Runs(tmp_path_factory.mktemp('faults'))
    return made['runs']


class Captures:
    """A capture that was stopped, and what a whole one holds."""

    def __init__(self, folder):
        self.stopped, self.whole, self.copy = (folder / n for n in ('stopped', 'whole', 'copy'))
        model = dataclasses.replace(VIT, depth=2)
        self.stream = stream_of(
            experiment_of(model), images_of(21), keep='blocks|embed', tokens='mean'
        )
        self.write(self.whole)

        def stop(done, total=0, /, *, now=''):
            if done == 16:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            activations.write(self.stream, self.stopped, batch_size=8, report=stop)
        self.answer = self.read(self.whole)

    def write(self, out):
        activations.write(self.stream, out, batch_size=8)

    @staticmethod
    def read(out):
        found, rows = activations.read(out), np.arange(21)
        assert found.hashes
        return [*map(np.array, found.values(rows)), np.array(found.hashes(rows)), found.labels]

    def copied(self, capture):
        shutil.rmtree(self.copy, ignore_errors=True)
        return shutil.copytree(capture, self.copy)


@pytest.fixture(scope='session')
def captured(tmp_path_factory):
    return Captures(tmp_path_factory.mktemp('faults'))
