import dataclasses
import fcntl
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import SCRIPTS, TINY, wait
from PIL import Image

from vitjax import evaluate, loop, runs
from vitjax.data import kinds
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment.optim import Optim
from vitjax.models import ConvNet
from vitjax.runs import checkpoint
from vitjax.training import trainer
from vitjax.training.step import train_step

TRAIN = SCRIPTS / 'train.py'
STEPS = 60


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'tiny'
    return out, loop.train(dataclasses.replace(TINY, attention_every=3), out, quiet=True)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.mark.slow
def test_a_checkpoint_has_the_lines_of_a_users_hook(tmp_path):
    def largest(moment):
        if moment.evaluates:
            for seed, params in moment.params.items():
                value = max(float(abs(x).max()) for x in jax.tree.leaves(params))
                moment.log(seed, 'weights', {'largest': value})

    record = loop.train(TINY, tmp_path, hooks=(largest,), quiet=True)
    lines = runs.records.read_metrics(tmp_path)
    assert [r['step'] for r in lines if r['split'] == 'weights'] == [20, 40, 60]
    assert checkpoint.position(tmp_path)['lines'] == lines[:-1]  # so that resuming keeps them
    assert runs.records.tested(tmp_path) == record  # no line counts as damaged


@pytest.mark.slow
@pytest.mark.parametrize('split', ['test', 'validation'])
def test_a_hook_writes_no_line_that_could_not_be_read_again(split, tmp_path):
    def wrong(moment):
        moment.log(0, split, {'largest': 1.0})

    with pytest.raises(ValueError, match="must be of train or validation, .*: '"):
        loop.train(TINY, tmp_path, hooks=(wrong,), quiet=True)


def test_a_run_directory_holds_everything(finished):
    out, record = finished
    names = {p.name for p in out.iterdir() if not p.name.startswith('events')}
    assert names == {
        'experiment.json', 'metrics.jsonl', 'attention.jsonl', 'environment.jsonl',
        'predictions.json', 'checkpoints', 'figures',
    }  # fmt: skip
    assert {p.name for p in (out / 'figures').iterdir()} == {
        'learning_curves.png',
        'attention.png',
    }
    assert [note['epoch'] for note in runs.records.read_notes(out, runs.records.ATTENTION)] == [3]
    records = runs.records.read_metrics(out)
    assert [r['step'] for r in records if r['split'] == 'validation'] == [20, 40, 60]
    assert [r['step'] for r in records if r['split'] == 'train'] == [20, 40, 50, 60]
    assert records[-1] == record and record['split'] == 'test' and record['step'] == STEPS
    for r in records:
        assert {'step', 'epoch', 'loss', 'accuracy', 'top5', 'seconds'} <= set(r)
    assert record['accuracy'] > 0.15  # 10 classes, 60 steps
    (start,) = runs.records.read_notes(out, runs.records.ENVIRONMENT)
    assert start['step'] == 0 and start['versions']['jax'] == jax.__version__


def test_the_test_record_is_the_best_parameters(finished):
    out, record = finished
    experiment, params, _ = runs.load(out)
    assert experiment.data and experiment.preprocessing
    data = kinds.load(experiment.data, 'test')
    logits = evaluate.predict(experiment.model, params, data, experiment.preprocessing, 100)
    kept = runs.records.read_predictions(out)
    np.testing.assert_array_equal(kept['labels'], data.labels)
    np.testing.assert_array_equal(kept['predicted'], logits.argmax(1))
    odds = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(kept['probability'], odds.max(1), atol=1e-5)
    of_label = odds[np.arange(len(odds)), data.labels]
    np.testing.assert_allclose(kept['probability_of_label'], of_label, atol=1e-5)
    assert evaluate.scores(logits, data.labels)['accuracy'] == pytest.approx(record['accuracy'])
    assert experiment.classes == tuple('0123456789')
    train = kinds.load(experiment.data, 'train').images / 255
    np.testing.assert_allclose(experiment.preprocessing.mean, train.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(experiment.preprocessing.deviation, train.std((0, 1, 2)), atol=1e-5)


def test_a_finished_run_says_so(finished, capsys):
    out, record = finished
    before = (out / 'metrics.jsonl').read_text()
    assert loop.train(dataclasses.replace(TINY, attention_every=3), out) == record
    assert 'is finished' in capsys.readouterr().out
    assert (out / 'metrics.jsonl').read_text() == before


def test_another_configuration_is_refused(finished):
    out, _ = finished
    other = dataclasses.replace(TINY, attention_every=3, seed=1, model=TINY.model.clone(depth=2))
    with pytest.raises(ValueError, match='another configuration') as error:
        loop.train(other, out, quiet=True)
    assert 'model.depth: 1 -> 2' in str(error.value) and 'seed: 0 -> 1' in str(error.value)


def test_a_foreign_directory_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(ValueError, match='experiment.json'):
        loop.train(TINY, tmp_path, quiet=True)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path):
    optim = Optim(name='sgd', start=0.0, peak=1e12, warmup=0.9, clip=0.0)
    wild = dataclasses.replace(TINY, optim=optim, evaluate_every=0.05)
    with pytest.raises(ValueError, match=r'must stay finite: it is (nan|inf) at step \d+') as error:
        loop.train(wild, tmp_path / 'run', quiet=True)
    kept = checkpoint.steps(tmp_path / 'run')[-1]
    assert f'{tmp_path / "run"} keeps the checkpoint of step {kept}. ' in str(error.value)
    assert str(error.value).endswith('Try a lower --optim.peak.')
    params = runs.load(tmp_path / 'run', which='latest').params
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_a_loss_that_is_not_finite_names_the_module_and_no_checkpoint(tmp_path):
    """The step before diverges in the activations; what is looked for is found by taking it again.

    A rate of 1e30 makes all parameters of the second step so large that the first product of two
    of them, that of the queries, overflows.
    """
    wild = dataclasses.replace(TINY, optim=Optim(name='sgd', peak=1e30, clip=0.0, warmup=0.0))
    with pytest.raises(ValueError, match='must stay finite') as error:
        loop.train(wild, tmp_path / 'run', quiet=True)
    said, advice = str(error.value).splitlines()
    assert said == (
        'loss must stay finite: it is nan at step 2; first: activations of blocks/attention/qkv, '
        'layer 1.'
    )
    assert advice == 'Try a lower --optim.peak.' and not checkpoint.steps(tmp_path / 'run')


def test_a_run_that_ends_before_attention_is_drawn_says_so(tmp_path, capsys):
    loop.train(dataclasses.replace(TINY, attention_every=5, epochs=1), tmp_path / 'run')
    said = capsys.readouterr().out
    assert 'attention is not drawn: --attention-every is 5 epochs, the run has 1' in said


@pytest.mark.slow
def test_data_size_a_head_unless_it_asks_otherwise(tmp_path, capsys):
    short = dataclasses.replace(TINY, epochs=None, steps=2)
    for i, model in enumerate(TINY.model.clone(num_classes=n) for n in (1000, 0)):
        out = tmp_path / f'run{i}'
        loop.train(dataclasses.replace(short, model=model), out)
        assert 'head: 10 outputs, one for each class' in capsys.readouterr().out
        assert runs.read_experiment(out).model == TINY.model
        loop.train(dataclasses.replace(short, model=model), out)
        assert 'is finished' in capsys.readouterr().out
    loop.train(
        dataclasses.replace(short, model=TINY.model.clone(num_classes=12)), tmp_path / 'more'
    )
    line = 'the head has 12 outputs for 10 classes; without a class: class 10 to class 11'
    assert line in capsys.readouterr().out
    loop.train(short, tmp_path / 'run')
    assert 'outputs' not in capsys.readouterr().out


@pytest.mark.slow
def test_a_head_that_an_earlier_version_did_not_size_stays(tmp_path):
    """Trained with the 1,000 outputs of its class by default, and asked for as it was then."""
    begun = dataclasses.replace(TINY, model=TINY.model.clone(num_classes=1001), epochs=1)
    loop.train(begun, tmp_path / 'run', quiet=True)
    known = runs.read_experiment(tmp_path / 'run')
    asked = dataclasses.replace(begun, model=TINY.model.clone(num_classes=1000))
    assert runs.with_head_of(tmp_path / 'run', asked).model == known.model
    runs.require_same(asked, tmp_path / 'run')


def test_two_runs_in_one_directory_are_refused(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        with pytest.raises(ValueError, match='another process is training in'):
            loop.train(TINY, tmp_path, quiet=True)
    finally:
        os.close(directory)
    assert list(tmp_path.iterdir()) == []


def losses(out):
    return [r['loss'] for r in runs.records.read_metrics(out) if r['split'] == 'train']


@pytest.mark.slow
def test_seeds_train_together_as_each_does_alone(finished, tmp_path):
    """The same runs, in directories like any other, and the same program for both of them."""
    out, record = finished
    experiment = dataclasses.replace(TINY, attention_every=3)
    outs = {seed: tmp_path / f'seed_{seed}' for seed in (0, 1)}
    records = loop.train_seeds(experiment, outs, quiet=True)
    np.testing.assert_allclose(losses(outs[0]), losses(out), rtol=1e-4)
    assert records[0]['loss'] == pytest.approx(record['loss'], rel=1e-4)
    other = loop.train(dataclasses.replace(experiment, seed=1), tmp_path / 'alone', quiet=True)
    np.testing.assert_allclose(losses(outs[1]), losses(tmp_path / 'alone'), rtol=1e-4)
    assert records[1]['loss'] == pytest.approx(other['loss'], rel=1e-4)
    assert not np.allclose(losses(outs[1]), losses(outs[0]), rtol=1e-3)  # seeds differ
    read = runs.load(outs[1], which='latest').experiment
    assert read.seed == 1 and read.classes == tuple('0123456789')


@pytest.mark.slow
def test_seeds_stopped_go_on_from_the_checkpoint_they_share(tmp_path, monkeypatch):
    whole = {seed: tmp_path / f'whole_{seed}' for seed in (3, 4)}
    watched = dataclasses.replace(TINY, watch=('cka', 'rank'), model=TINY.model.clone(depth=2))
    loop.train_seeds(watched, whole, quiet=True)
    outs = {seed: tmp_path / f'seed_{seed}' for seed in (3, 4)}
    save, saved = checkpoint.save, []

    def killed(*args, **options):  # between the two saves of the second checkpoint
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(args[1])
        save(*args, **options)

    monkeypatch.setattr(checkpoint, 'save', killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train_seeds(watched, outs, quiet=True)
    monkeypatch.undo()
    assert checkpoint.steps(outs[3])[-1] == 40 and checkpoint.steps(outs[4]) == [20]
    loop.train_seeds(watched, {**outs, 5: tmp_path / 'seed_5'}, quiet=True)
    for seed in (3, 4):
        assert losses(outs[seed]) == losses(whole[seed])
        assert equal(runs.load(outs[seed]).params, runs.load(whole[seed]).params)
        seen = (whole[seed] / 'watch.jsonl').read_text()
        assert (outs[seed] / 'watch.jsonl').read_text() == seen and seen.count('\n') == 3
        with Image.open(outs[seed] / 'figures' / 'watch.gif') as film:
            assert getattr(film, 'n_frames', 1) == 3
    assert runs.records.tested(tmp_path / 'seed_5')


@pytest.mark.slow
def test_runs_that_differ_in_numbers_share_their_program(tmp_path, monkeypatch):
    """A learning rate, a length, a strength or a seed is an argument of what was compiled."""
    traced = []

    def counted(*args, **options):
        traced.append(1)
        return train_step(*args, **options)

    monkeypatch.setattr(trainer, 'train_step', counted)
    fresh = TINY.model.clone(width=18)  # a model that no other test has compiled
    short = dataclasses.replace(TINY, model=fresh, epochs=1)
    loop.train(short, tmp_path / 'a', quiet=True)
    count = len(traced)
    optim = dataclasses.replace(TINY.optim, peak=1e-4, decay=0.3, warmup=0.2)
    changed = dataclasses.replace(
        short,
        optim=optim,
        augment=Augment(size=8, shift=0.2),
        seed=2**32 - 1,
        steps=25,
        epochs=None,
    )
    loop.train(changed, tmp_path / 'b', quiet=True)
    assert len(traced) == count
    loop.train(dataclasses.replace(short, batch_size=32), tmp_path / 'c', quiet=True)
    assert len(traced) > count


@pytest.mark.slow
def test_patience_stops_early_and_a_run_into_a_file_says_what_it_does(tmp_path, capsys):
    frozen = Optim(peak=0.0, train='head.*')
    patient = dataclasses.replace(TINY, optim=frozen, patience=2, epochs=20)
    record = loop.train(patient, tmp_path / 'run')
    assert record['epoch'] == 3  # the first is the best, two more are waited for
    data, model, compiled, *others, stopped, result = capsys.readouterr().out.splitlines()
    assert data == (
        'digits: 1,294 training, 144 validation and 359 test images of 8x8 pixels, 10 classes'
    )
    assert '170 of them train, input 8x8 pixels; 400 steps of 64 images (20 epochs) on' in model
    assert compiled.startswith('compiled in ')
    evaluations = [line.split('  ')[0] for line in others if not line.startswith('training ')]
    assert evaluations == ['epoch 1', 'epoch 2', 'epoch 3']  # others are estimates
    best = max(r['accuracy'] for r in runs.records.read_metrics(tmp_path / 'run')[:-1:2])
    assert stopped == (
        'stopped early after epoch 3 of 20: no validation accuracy above '
        f'{best:.2%}, of epoch 1, in 2 epochs (patience)'
    )
    assert result.startswith('test accuracy ') and ', top-5 ' in result


def test_quiet_prints_nothing(tmp_path, capfd):
    loop.train(dataclasses.replace(TINY, epochs=None, steps=2), tmp_path / 'run', quiet=True)
    said = capfd.readouterr()
    assert said.out == said.err == ''


@pytest.mark.slow
def test_data_that_do_not_fit_train_to_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate('ab'):
        folder = tmp_path / 'images' / name
        folder.mkdir(parents=True)
        for k in range(30):
            pixels = rng.integers(100 * i, 100 * i + 150, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f'{k}.png')
    ends = []
    for memory in (2**30, 1):
        source = Source(f'folder:{tmp_path / "images"}', memory=memory)
        experiment = dataclasses.replace(TINY, data=source, batch_size=8, epochs=2)
        out = tmp_path / f'run{memory}'
        loop.train(experiment, out, quiet=True)
        ends.append(runs.load(out, which='latest').params)
    assert equal(*ends)


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        ({'epochs': None}, 'epochs or steps, one of them: epochs=None, steps=None'),
        ({'steps': 5}, 'one of them: epochs=3, steps=5'),
        ({'epochs': 1e-9}, 'at least one step'),
        ({'batch_size': 2000}, 'batch_size=2000, 1294 images'),
        (
            {'model': TINY.model.clone(num_classes=9)},
            '--model.num-classes 9, digits has 10 classes',
        ),
        (
            {'model': TINY.model.clone(pool='flatten'), 'attention_every': 1},
            'ViT with --model.pool flat',
        ),
        ({'model': ConvNet(num_classes=10), 'attention_every': 1}, 'class token: ConvNet has none'),
        ({'attention_every': 1, 'evaluate_every': 0.7, 'epochs': 2.1}, '--evaluate-every 0.7'),
        ({'model': TINY.model.clone(patch_size=3)}, 'patch_size must divide the image'),
        ({'model': ConvNet(num_classes=10), 'watch': ('cka',)}, 'ConvNet has none'),
        ({'weights': 'no/such.safetensors'}, 'no/such.safetensors'),
    ],
)
def test_bad_experiments_leave_nothing(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        loop.train(dataclasses.replace(TINY, **change), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


# The command, killed. One process after the other on a small experiment written to a file.

FILE = """
import dataclasses
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.models import ViT
from vitjax.experiment.optim import Optim
from vitjax.training.step import train_step
experiment = Experiment(
    ViT(patch_size=4, width=16, depth=1, num_heads=2, num_classes=10, dropout=0.1),
    data=Source('digits'), augment=Augment(size=8, shift=0.1),
    optim=Optim(peak=3e-3, ema=0.9), batch_size=64,
    epochs=20, evaluate_every=1,
)
"""


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    path = tmp_path_factory.mktemp('experiment') / 'small.py'
    path.write_text(FILE)
    flags = os.environ['XLA_FLAGS'].replace('count=8', 'count=1')

    def start(out, **more):
        arguments = [sys.executable, str(TRAIN), str(path), '--no-report', '--out', str(out)]
        return subprocess.Popen(
            arguments,
            env={**os.environ, 'XLA_FLAGS': flags, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def wait_for_lines(out, count, process):
    """Waits until `metrics.jsonl` has `count` lines, or the process ends by itself."""
    metrics = out / 'metrics.jsonl'
    wait(process, lambda: metrics.exists() and metrics.read_text().count('\n') >= count)


def values(run):
    timed = ('seconds', 'images_per_second')
    return [{k: v for k, v in r.items() if k not in timed} for r in runs.records.read_metrics(run)]


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, command):
    out = tmp_path_factory.mktemp('runs') / 'whole'
    process = command(out)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert 'test accuracy' in text and 'scripts/evaluate.py' in text
    return out


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(tmp_path, command, uninterrupted):
    out = tmp_path / 'killed'
    kills = 0
    for lines in (1, 13, 31):  # before the first checkpoint, and at two later moments
        process = command(out)
        wait_for_lines(out, lines, process)
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills == 3
    text, _ = command(out).communicate()
    assert 'resumed from step' in text
    for which in ('latest', 'best'):
        a, b = (runs.load(run, which=which).params for run in (out, uninterrupted))
        assert equal(a, b)

    assert values(out) == values(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_leave(tmp_path, command, uninterrupted, number, code):
    out = tmp_path / 'stopped'
    process = command(out)
    wait_for_lines(out, 5, process)
    process.send_signal(number)
    text, _ = process.communicate()
    assert process.returncode == code, text
    assert 'the same command resumes' in text
    stopped_at = int(text.split('stopped at step ')[1].split(';')[0])
    assert checkpoint.steps(out)[-1] == stopped_at
    if number == signal.SIGTERM:
        resumed = command(out)
        text, _ = resumed.communicate()
        assert resumed.returncode == 0 and f'resumed from step {stopped_at}' in text, text
        assert values(out) == values(uninterrupted)
        a, b = (runs.load(run, which='latest').params for run in (out, uninterrupted))
        assert equal(a, b)


@pytest.mark.slow
def test_bad_commands_fail_in_a_line_or_two(tmp_path):
    def fails(*arguments):
        done = subprocess.run(
            [sys.executable, str(TRAIN), *arguments],
            cwd=tmp_path,  # where `runs/digits` is not a run of the user's
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (1, 2) and 'Traceback' not in done.stdout + done.stderr
        return done.stdout + done.stderr

    assert 'close: digits' in fails('digit')
    assert 'batch_size=9999' in fails('digits', '--steps', '5', '--batch-size', '9999')
    assert '--epochs' in fails('digits', '--epoch', '3')
    out = fails('digits', '--data.name', 'tfds:cifar10', '--data.dir', str(tmp_path), '--out', 'x')
    assert 'scripts/prepare.py cifar10' in out
