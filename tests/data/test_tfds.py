import time

import numpy as np
import pytest

from vitjax.data import cifar
from vitjax.data.preprocess import Preprocessing, squares
from vitjax.data.sources import SPLITS, Encoded, Source, load


@pytest.fixture
def prepared_data(tmp_path):
    """Directories of prepared data: `equal` with images of one size, `unequal` with others."""
    made = {}
    for name, sizes in (('equal', [(9, 6)] * 3), ('unequal', [(9, 6), (7, 7), (6, 20)])):
        rng = np.random.default_rng(0)
        pixels = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        directory = tmp_path / name / '1.0.0'
        directory.mkdir(parents=True)
        cifar.write_tfds(directory, name, {'train': (pixels, [0, 1, 1])}, ['cat', 'dog'])
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
    cifar.write_tfds(
        directory / 'equal', 'equal', {'train': (made['equal'], [0, 1, 1])}, ['cat', 'dog']
    )
    assert len(load(source('equal', directory), 'train')) == 3


def test_a_test_split_with_secret_labels_is_none(tmp_path):
    directory = tmp_path / 'secret' / '1.0.0'
    directory.mkdir(parents=True)
    pixels = [np.full((6, 6, 3), value, np.uint8) for value in range(10)]
    splits = {'train': (pixels[:5], [0] * 5), 'validation': (pixels[5:7], [0, 0])}
    cifar.write_tfds(directory, 'secret', splits | {'test': (pixels[7:], [-1] * 3)}, ['cat'])
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
    np.save(kept, np.array([1, 0, 1], np.int32))
    assert list(load(unequal, 'train').labels) == [1, 0, 1]
    kept.write_bytes(b'damaged')
    assert list(load(unequal, 'train').labels) == [0, 1, 1]


def test_unequal_sizes_need_a_size(prepared_data):
    match = r'6x9 and 7x7 pixels in tfds:unequal train\[1\]'
    with pytest.raises(ValueError, match=match):
        load(source('unequal', prepared_data[0]), 'train')


@pytest.mark.parametrize(('name', 'says'), [('cifar10', 'scripts/prepare.py cifar10'),
                                            ('mnist', 'download_and_prepare')])  # fmt: skip
def test_unprepared_data_say_what_to_run_at_once(tmp_path, name, says):
    start = time.monotonic()
    with pytest.raises(ValueError, match=says):
        load(Source(f'tfds:{name}', dir=str(tmp_path)), 'train')
    assert time.monotonic() - start < 2  # the promise is to the user, not to a benchmark
