import os
import subprocess
import sys

import command
import numpy as np
import prepare
import pytest
from helpers import SCRIPTS
from PIL import Image


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of one photograph, and what is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'photos').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'photos' / 'a.png')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'empty').touch()
    os.mkfifo(tmp_path / 'pipe')
    return tmp_path


@pytest.mark.parametrize('what', ['folder', 'empty', 'pipe', 'none', '', '/dev/null'])
@pytest.mark.parametrize(
    'arguments',
    [
        ['cifar10', '--archive', 'WHAT', '--dir', 'data'],
        ['cifar100', '--archive', 'WHAT', '--dir', 'data'],
        ['imagenet', '--from', 'WHAT', '--dir', 'data'],
        ['shrink', '--from', 'WHAT', '--out', 'out'],
    ],
)
def test_what_cannot_be_read_is_a_line(here, monkeypatch, capsys, arguments, what):
    argv = [what if argument == 'WHAT' else argument for argument in arguments]
    said = fails(monkeypatch, capsys, argv)
    assert said.err.count('\n') == 1 and said.err.startswith('error: ') and not said.out
    assert not (here / 'out').exists()


@pytest.mark.parametrize('out', ['empty', 'pipe', '/dev/null'])
def test_where_nothing_can_be_written_is_a_line(here, monkeypatch, capsys, out):
    said = fails(monkeypatch, capsys, ['shrink', '--from', 'photos', '--out', out])
    assert said.err == f'error: --out must name a folder: {out} is none.\n'


def test_data_that_are_prepared_are_no_error(here, monkeypatch, capsys):
    there = here / 'data' / 'cifar10' / '3.0.2'
    there.mkdir(parents=True)
    (there / 'features.json').touch()
    monkeypatch.setattr(sys, 'argv', ['prepare.py', 'cifar10', '--dir', 'data'])
    with pytest.raises(SystemExit) as stop:
        command.run(prepare.main)
    assert not stop.value.code
    assert capsys.readouterr().out.startswith('cifar10 is already prepared: ')


def fails(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, 'argv', ['prepare.py', *arguments])
    with pytest.raises(SystemExit) as stop:
        command.run(prepare.main)
    assert stop.value.code == 1
    return capsys.readouterr()


@pytest.mark.faults
def test_a_full_stdout_is_a_line_and_the_images_are_there(here):
    argv = [sys.executable, str(SCRIPTS / 'prepare.py'), 'shrink', '--from', 'photos']
    environment = {**os.environ, 'PYTHONPATH': str(SCRIPTS.parent)}
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [*argv, '--out', 'out', '--size', '20'], env=environment, stdout=full,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert done.stderr.startswith('error: ') and 'No space left' in done.stderr
    assert (here / 'out' / 'a.png.jpg').is_file()
