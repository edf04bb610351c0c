"""Data that change between the sessions of a run, and processes that were started differently."""

import dataclasses
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from faults.conftest import answer, same
from helpers import SCRIPTS, TINY, free_port
from PIL import Image

import vitjax
from vitjax import loop
from vitjax.data.source import Source
from vitjax.runs import checkpoint

faults = pytest.mark.faults
DIGITS = SCRIPTS.parent / 'experiments' / 'digits.py'
LAYOUTS = {'classes': ('',), 'a test split': ('train', 'test'), 'validation': ('train', 'val')}


def images(folder, splits):
    rng = np.random.default_rng(0)
    for split in splits:
        for i, name in enumerate('abc'):
            (folder / split / name).mkdir(parents=True)
            for k in range(15):
                pixels = rng.integers(50 * i, 50 * i + 100, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f'{k:02}.png')
    return folder


def facts(folder):
    """Everything about images but for times: which there are, and what is in them."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def change(folder, rng):
    """Changes a folder of images at random; some changes leave everything as it was."""
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    classes = sorted({p.parent for p in files})
    one, other = rng.sample(files, 2)
    kind = rng.choice(['touch', 'copy back', 'class', 'add', 'remove', 'rename', 'swap', 'repaint'])
    if kind == 'touch':
        os.utime(one, (rng.randrange(2**30), rng.randrange(2**30)))
    elif kind == 'copy back':
        content = one.read_bytes()
        one.unlink()
        one.write_bytes(content)
    elif kind == 'class':  # of every split, so that their classes stay alike
        name = rng.choice('ABxyz') + rng.choice('12')
        for path in {p.parent / one.parent.name for p in classes}:
            path.rename(path.with_name(name))
    elif kind == 'add':
        shutil.copy(one, one.with_name(f'{rng.choice("0z")}{rng.random()}.png'))
    elif kind == 'remove':
        one.unlink()
    elif kind == 'rename':
        one.rename(one.with_name(f'{rng.choice("0z")}{rng.random()}.png'))
    elif kind == 'swap':
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        color = tuple(rng.randrange(256) for _ in range(3))
        Image.new('RGB', (8, 8), color).save(one)
    return kind


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, pytest.param(40, marks=faults)])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_run_resumes_on_the_data_that_it_began_with_and_on_no_other(
    tmp_path, layout, count, record_property
):
    folder, rng = images(tmp_path / 'images', LAYOUTS[layout]), random.Random(layout)
    model = TINY.model.clone(num_classes=3)
    experiment = dataclasses.replace(
        TINY, model=model, data=Source(f'folder:{folder}'), batch_size=8, epochs=3
    )
    loop.train(experiment, tmp_path / 'whole', quiet=True)
    wanted, save = answer(tmp_path / 'whole'), checkpoint.save

    def killed(manager, step, *args, **options):
        if len(checkpoint.steps(manager.directory.parent)) or manager.all_steps():
            raise KeyboardInterrupt
        save(manager, step, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, 'save', killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(experiment, tmp_path / 'run', quiet=True)
    folder.rename(tmp_path / 'kept')
    right = refused = 0
    for i in range(count):
        run = shutil.copytree(tmp_path / 'run', tmp_path / f'run{i}')
        shutil.copytree(tmp_path / 'kept', folder)
        done = [change(folder, rng) for _ in range(rng.choice([1, 1, 2]))]
        if facts(folder) == facts(tmp_path / 'kept'):
            loop.train(experiment, run, quiet=True)
            assert same(answer(run), wanted), done
            right += 1
        else:
            before = facts(run)
            with pytest.raises(ValueError, match='was trained on other data') as error:
                loop.train(experiment, run, quiet=True)
            assert len(str(error.value).splitlines()) == 2 and facts(run) == before, done
            refused += 1
        shutil.rmtree(folder)
        shutil.rmtree(run)
    record_property('faults', (f'changed data, {layout}', count, right, 0, refused))


def started(folder, index, port, more, **environment):
    environment = {
        **os.environ, 'XLA_FLAGS': os.environ['XLA_FLAGS'].replace('count=8', 'count=1'),
        'JAX_COORDINATOR_ADDRESS': f'localhost:{port}', 'JAX_NUM_PROCESSES': '2',
        'JAX_PROCESS_ID': str(index), **environment,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / 'train.py'), str(DIGITS), '--no-report', *more],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def refused(running):
    """The one line or two that each process says alike."""
    texts = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [1, 1], texts
    said = [text[text.index('error: ') :] for text in texts]
    assert said[0] == said[1] and len(said[0].splitlines()) == 2 and 'Traceback' not in texts[0]
    return said[0]


@faults
@pytest.mark.parametrize('what', ['setting', 'data', 'code', 'version', 'out'])
def test_processes_that_were_started_differently_train_nothing(tmp_path, what, record_property):
    out, port, environment = tmp_path / 'run', free_port(), {}
    each = [['--out', str(out), '--steps', '4'] for _ in range(2)]
    places = [tmp_path / '0', tmp_path / '1']
    for place in places:
        images(place / 'images', ('',))
    if what == 'setting':
        each[1] += ['--optim.peak', '0.5']
    elif what == 'out':
        each[1] += ['--out', str(tmp_path / 'other')]
    elif what == 'data':
        (places[1] / 'images' / 'c' / '00.png').unlink()
        each = [more + ['--data.name', 'folder:images', '--batch-size', '8'] for more in each]
    elif what == 'code':
        package = shutil.copytree(vitjax.__path__[0], tmp_path / 'code' / 'vitjax')
        with (package / 'signals.py').open('a') as file:
            file.write('# another version\n')
        environment = {'PYTHONPATH': str(tmp_path / 'code')}
    else:
        other = tmp_path / 'packages' / 'optax-99.dist-info'
        other.mkdir(parents=True)
        (other / 'METADATA').write_text('Metadata-Version: 2.1\nName: optax\nVersion: 99\n')
        path = os.environ.get('PYTHONPATH', '')
        environment = {'PYTHONPATH': os.pathsep.join([str(other.parent), path])}
    running = [started(places[i], i, port, each[i], **environment if i else {}) for i in range(2)]
    said = refused(running)
    named = {
        'setting': '-> 0.5', 'data': 'data.', 'code': 'vitjax: ',
        'version': 'versions.optax: ', 'out': '--out: ',
    }[what]  # fmt: skip
    assert named in said and 'process 1 differs from process 0' in said, said
    assert not out.exists() or not checkpoint.steps(out)
    record_property('faults', (f'processes with different {what}', 1, 0, 0, 1))
