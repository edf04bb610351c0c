import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitjax.data.kinds import load
from vitjax.data.prepare import records
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.data.splits import SPLITS


@pytest.fixture
def tree(tmp_path):
    """A folder of two classes of ten images of the same names and sizes in bytes."""
    for name in ('cat', 'dog'):
        (tmp_path / 'here' / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 256, (6, 5 + i, 3), np.uint8)
            pixels[0, 0] = 10 * (name == 'cat')
            Image.fromarray(pixels).save(tmp_path / 'here' / name / f'{i}.bmp')
    return tmp_path / 'here'


def digests(root, **more: Any):
    how: dict[str, Any] = {'size': 8} | more
    source = Source(f'folder:{root}', **how)
    return [load(source, split).digest for split in SPLITS]


def swap(tree):
    (tree / 'cat').rename(tree / 'x')
    (tree / 'dog').rename(tree / 'cat')
    (tree / 'x').rename(tree / 'dog')


CHANGES = {
    'class renamed': lambda tree: (tree / 'cat').rename(tree / 'bat'),
    'classes swapped': swap,
    'image added': lambda tree: shutil.copy(tree / 'cat' / '0.bmp', tree / 'cat' / '00.bmp'),
    'image removed': lambda tree: (tree / 'dog' / '9.bmp').unlink(),
    'image moved': lambda tree: (tree / 'dog' / '9.bmp').rename(tree / 'cat' / 'z.bmp'),
    'images resized': lambda tree: [
        Image.open(path).resize((4, 4)).save(path) for path in tree.rglob('*.bmp')
    ],
}


@pytest.mark.parametrize('change', CHANGES)
def test_data_that_change_change_the_digest(tree, change):
    before = digests(tree)
    assert len({*before}) == 3 and all(len(bytes.fromhex(known)) == 16 for known in before)
    CHANGES[change](tree)
    assert not {*before} & {*digests(tree)}


@pytest.mark.parametrize('share', ['validation', 'test'])
def test_other_shares_change_the_digest(tree, share):
    assert digests(tree)[0] != digests(tree, **{share: 0.5})[0]


def test_a_renamed_image_changes_the_digest(tree):
    source = Source(f'folder:{tree}', size=8, test=0.0, validation=0.0)
    before = load(source, 'train').digest
    (tree / 'dog' / '9.bmp').rename(tree / 'dog' / '99.bmp')
    assert load(source, 'train').digest != before


def test_the_digest_knows_nothing_of_place_size_memory_or_process(tree, monkeypatch):
    before = digests(tree)
    assert digests(tree, size=5, memory=1) == before
    prepared = Preprocessing(16, 0.5)
    assert load(Source(f'folder:{tree}'), 'test', prepared).digest == before[2]
    moved = tree.rename(tree.parent / 'there')
    (tree.parent / 'link').symlink_to(moved)
    monkeypatch.chdir(tree.parent)
    assert digests('there') == digests('link/') == before
    program = f'from vitjax.data.kinds import *; print(load(Source({f"folder:{moved}"!r}, '
    program += "size=8), 'train').digest)"
    root = pathlib.Path(__file__).parents[2]
    there = os.environ | {'PYTHONHASHSEED': '1', 'PYTHONPATH': str(root)}
    done = subprocess.run([sys.executable, '-c', program], env=there, capture_output=True)
    assert done.stdout.decode().strip() == before[0]


def test_prepared_data_have_a_digest(tmp_path):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (6, 6, 3), np.uint8) for _ in range(6)]

    def known(place, labels=(0, 1, 1, 0, 1, 0), names=('cat', 'dog'), images=pixels, **more):
        directory = tmp_path / place / 'it' / '1.0.0'
        directory.mkdir(parents=True)
        records.write(directory, 'it', {'train': (images, list(labels))}, list(names))
        source = Source('tfds:it', dir=str(tmp_path / place), **more)
        return load(source, 'train').digest

    first = known('a', test=0.0, validation=0.0)
    assert known('b', test=0.0, validation=0.0, memory=1) == first
    assert known('c', names=('dog', 'cat'), test=0.0, validation=0.0) != first
    assert known('d', labels=(1, 1, 1, 0, 1, 0), test=0.0, validation=0.0) != first
    assert known('e', images=pixels[::-1][:5] + pixels[:1], test=0.0, validation=0.0) != first
    assert known('f', test=0.5, validation=0.0) != first


def test_digits_have_a_digest():
    known = {load(Source(test=test), split).digest for test in (0.2, 0.5) for split in SPLITS}
    assert len(known) == 6 and load(Source(size=4), 'test').digest in known
