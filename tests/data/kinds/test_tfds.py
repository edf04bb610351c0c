import ast
import shlex
import socket
from typing import Any

import numpy as np
import pytest

from vitjax.data import notices, paths
from vitjax.data.kinds import load
from vitjax.data.prepare import records
from vitjax.data.preprocess import Preprocessing, squares
from vitjax.data.source import Encoded, Source
from vitjax.data.splits import SPLITS


@pytest.fixture
def prepared_data(tmp_path):
    """Directories of prepared data: `equal` with images of one size, `unequal` with others."""
    made = {}
    for name, sizes in (('equal', [(9, 6)] * 3), ('unequal', [(9, 6), (7, 7), (6, 20)])):
        rng = np.random.default_rng(0)
        pixels = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        directory = tmp_path / name / '1.0.0'
        directory.mkdir(parents=True)
        records.write(directory, name, {'train': (pixels, [0, 1, 1])}, ['cat', 'dog'])
        made[name] = pixels
    return tmp_path, made


def source(name, directory, **more):
    return Source(f'tfds:{name}', dir=str(directory), validation=0, test=0, **more)


def test_images_of_one_size_are_left_to_the_device(prepared_data):
    directory, made = prepared_data
    data = load(source('equal', directory, size=4), 'train', Preprocessing(8, 0.8))
    assert data.prepared is None
    assert data.classes == ('cat', 'dog') and list(data.labels) == [0, 1, 1]
    np.testing.assert_array_equal(data.images, made['equal'])


@pytest.mark.parametrize('name', ['.draft-5.1.0', '.0f.vitjax-draft', 'incomplete.AB12_1.0.0'])
def test_what_is_still_being_written_is_not_read(prepared_data, name):
    directory, made = prepared_data
    (directory / 'equal' / '1.0.0').rename(directory / 'equal' / name)
    with pytest.raises(ValueError, match='equal is not prepared in'):
        load(source('equal', directory), 'train')
    records.write(
        directory / 'equal', 'equal', {'train': (made['equal'], [0, 1, 1])}, ['cat', 'dog']
    )
    assert len(load(source('equal', directory), 'train')) == 3


def test_a_test_split_with_secret_labels_is_none(tmp_path):
    directory = tmp_path / 'secret' / '1.0.0'
    directory.mkdir(parents=True)
    pixels = [np.full((6, 6, 3), value, np.uint8) for value in range(10)]
    splits = {'train': (pixels[:5], [0] * 5), 'validation': (pixels[5:7], [0, 0])}
    records.write(directory, 'secret', splits | {'test': (pixels[7:], [-1] * 3)}, ['cat'])
    secret = Source('tfds:secret', dir=str(tmp_path), validation=0.2)
    assert [len(load(secret, split)) for split in SPLITS] == [4, 1, 2]
    np.testing.assert_array_equal(load(secret, 'test').images, pixels[5:7])


@pytest.mark.parametrize('memory', [2**30, 1])
def test_images_of_unequal_sizes_become_squares(prepared_data, memory):
    directory, made = prepared_data
    unequal = source('unequal', directory, size=5, memory=memory)
    data = load(unequal, 'train')
    assert data.prepared is None and isinstance(data.images, Encoded) == (memory == 1)
    wanted = squares(made['unequal'], Preprocessing(5, 1.0))
    np.testing.assert_array_equal(data.images[np.arange(3)], wanted)
    prepared = Preprocessing(8, 0.8)
    data = load(unequal, 'train', prepared)
    assert data.prepared == prepared
    wanted = squares(made['unequal'], prepared)
    np.testing.assert_array_equal(data.images[np.arange(3)], wanted)


def test_labels_of_what_streams_are_read_once(prepared_data):
    directory, _ = prepared_data
    unequal = source('unequal', directory, size=5, memory=1)
    kept = directory / 'unequal' / '1.0.0' / 'labels-train.npy'
    assert load(unequal, 'train').images.streams and list(np.load(kept)) == [0, 1, 1]
    written = kept.stat().st_mtime_ns
    assert list(load(unequal, 'train').labels) == [0, 1, 1] and kept.stat().st_mtime_ns == written
    np.save(kept, np.array([1, 0, 1], np.int32))  # of records that were there before
    assert list(load(unequal, 'train').labels) == list(np.load(kept)) == [0, 1, 1]
    kept.write_bytes(b'damaged')
    assert list(load(unequal, 'train').labels) == [0, 1, 1]


def test_unequal_sizes_need_a_size(prepared_data):
    match = r'6x9 and 7x7 pixels in tfds:unequal train\[1\]'
    with pytest.raises(ValueError, match=match):
        load(source('unequal', prepared_data[0]), 'train')


def written(directory, splits, name='it', labels=(0, 1), classes=('cat', 'dog')):
    """A dataset whose splits have so many images each, of its own grey."""
    directory = directory / name / '1.0.0'
    directory.mkdir(parents=True)
    made = {
        split: ([np.full((6, 6, 3), grey, np.uint8)] * count, [labels[i % 2] for i in range(count)])
        for grey, (split, count) in enumerate(splits.items())
    }
    records.write(directory, name, made, [*classes])
    return Source(f'tfds:{name}', dir=str(directory.parents[1]), validation=0.25)


@pytest.mark.parametrize('name', ['val', 'valid', 'dev', 'validation', 'VAL'])
def test_usual_names_of_validation_splits_are_read(tmp_path, capsys, name):
    source = written(tmp_path, {'train': 24, name: 4, 'extra': 3})
    parts = [load(source, split) for split in SPLITS]
    assert [len(p) for p in parts] == [18, 6, 4] and (parts[2].images == 1).all()
    assert capsys.readouterr().err.splitlines() == [
        'tfds:it: splits not read: extra',
        f'tfds:it has no test split: {name} is tested on, and 0.25 of train is held out for '
        'validation',
    ]
    source = written(tmp_path / 'all', {'train': 8, name: 4, 'test': 2})
    assert [len(load(source, split)) for split in SPLITS] == [8, 4, 2]


@pytest.fixture(autouse=True)
def _everything_is_said_again():
    notices.tell.cache_clear()


@pytest.mark.parametrize(
    ('splits', 'match'),
    [
        ({'test': 4}, 'tfds:it must have a train split: it has test'),
        ({'train': 4, 'val': 4, 'dev': 4}, 'must have one validation split: it has (val|dev)'),
    ],
)
def test_splits_that_cannot_be_used_are_refused_by_name(tmp_path, splits, match):
    source = written(tmp_path, splits)
    for split in SPLITS:
        with pytest.raises(ValueError, match=match):
            load(source, split)


def test_labels_that_are_no_class_are_refused(tmp_path):
    source = written(tmp_path, {'train': 8}, labels=(0, -1))
    with pytest.raises(ValueError, match='labels of tfds:it train must be from 0 to 1: .* -1 to 0'):
        load(source, 'train')


def test_secret_labels_are_said(tmp_path, capsys):
    directory = tmp_path / 'it' / '1.0.0'
    directory.mkdir(parents=True)
    pixels = [np.zeros((6, 6, 3), np.uint8)] * 4
    splits = {'train': (pixels, [0] * 4), 'test': (pixels, [-1] * 4)}
    records.write(directory, 'it', splits, ['cat'])
    load(Source('tfds:it', dir=str(tmp_path), validation=0.25, test=0.25), 'test')
    said = 'tfds:it: splits not read: test (its labels are secret)\n'
    assert capsys.readouterr().err == said


@pytest.mark.parametrize('directory', [None, 'here', 'a folder', "it's $HOME", '~/data'])
@pytest.mark.parametrize('name', ['cifar10', 'cifar100', 'cifar10/3.0.2', 'imagenet2012'])
def test_the_command_prepares_what_was_asked_where_it_was_asked(
    tmp_path, name, directory, monkeypatch
):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    monkeypatch.setattr(socket.socket, 'connect', lambda *_: pytest.fail('asks the network'))
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: pytest.fail('asks the network'))
    with pytest.raises(ValueError, match='prepare it with\n  python scripts/prepare.py') as error:
        load(Source(f'tfds:{name}', dir=directory), 'train')
    words = shlex.split(str(error.value).splitlines()[1])
    asked = {'imagenet2012': ['imagenet', '--from', 'ARCHIVES']}.get(name, [name.split('/')[0]])
    assert words[2:] == asked + (['--dir', directory] if directory else [])
    assert f'is not prepared in {paths.tfds_folder(directory)};' in str(error.value)


@pytest.mark.parametrize(
    ('name', 'called'),
    [
        ('mnist', 'mnist'),
        ('a/b', 'a/b'),
        ('mnist/3.0.1', 'mnist:3.0.1'),
        ('a/b/1.0.0', 'a/b:1.0.0'),
    ],
)
@pytest.mark.parametrize('directory', [None, 'here', "it's"])
def test_the_program_prepares_what_was_asked_where_it_was_asked(name, called, directory):
    with pytest.raises(ValueError, match='prepare it with') as error:
        load(Source(f'tfds:{name}', dir=directory), 'train')
    python, flag, program, *aside = shlex.split(str(error.value).splitlines()[1])
    assert (python, flag, ' '.join(aside)) == (
        'python', '-c', '(needs tensorflow, and a data set of TFDS of that name)',
    )  # fmt: skip
    download: Any = ast.parse(program).body[1]
    call = download.value.func.value
    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    assert ast.literal_eval(call.args[0]) == called
    assert given == {'file_format': 'array_record'} | ({'data_dir': directory} if directory else {})


def test_folders_that_are_not_there_are_said():
    with pytest.raises(ValueError, match='is not prepared in /no/such'):
        load(Source('tfds:cifar10', dir='/no/such'), 'train')
    with pytest.raises(ValueError, match='must be a name in'):
        load(Source('tfds:.', dir='/no/such'), 'train')
    with pytest.raises(ValueError, match='~nosuchuser must be a home folder that is known here'):
        load(Source('tfds:cifar10', dir='~nosuchuser/x'), 'train')
