import io
import tarfile
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitjax.data import cifar, sources
from vitjax.data.sources import SPLITS, Source, load


def write_images(folder, count, size=(12, 10), suffix='.png', seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size[1], size[0], 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f'{i}{suffix}')
    return pixels


def test_digits_are_split_without_overlap():
    parts = [load(Source(), split) for split in SPLITS]
    assert [len(p) for p in parts] == [1294, 144, 359]
    assert parts[0].images.shape == (1294, 8, 8, 3) and parts[0].images.dtype == np.uint8
    assert parts[0].images.max() == 255
    rows = np.concatenate([p.images.reshape(len(p), -1) for p in parts])
    import sklearn.datasets

    digits: Any = sklearn.datasets.load_digits()
    known = np.round(digits.images * 255 / 16).astype(np.uint8)
    known = np.repeat(known[..., None], 3, -1).reshape(1797, -1)
    np.testing.assert_array_equal(np.sort(rows.sum(1)), np.sort(known.sum(1)))


def test_folder_with_splits(tmp_path):
    pixels = None
    for split, count in (('train', 6), ('validation', 3), ('test', 2)):
        for i, name in enumerate(('cat', 'dog')):
            pixels = write_images(tmp_path / split / name, count, seed=i)
    for split, count in (('train', 6), ('validation', 3), ('test', 2)):
        data = load(Source(f'folder:{tmp_path}'), split)
        assert data.classes == ('cat', 'dog') and list(data.labels) == [0] * count + [1] * count
    np.testing.assert_array_equal(data.images[2:], pixels)


def test_one_folder_is_split_by_shares(tmp_path):
    write_images(tmp_path / 'a', 20)
    write_images(tmp_path / 'b', 20, seed=1)
    source = Source(f'folder:{tmp_path}', validation=0.25, test=0.2)
    parts = [load(source, split) for split in SPLITS]
    assert [len(p) for p in parts] == [24, 8, 8]
    assert len({image.tobytes() for p in parts for image in p.images}) == 40


def test_unequal_sizes_need_a_size(tmp_path):
    write_images(tmp_path / 'train' / 'a', 3)
    write_images(tmp_path / 'train' / 'b', 3, size=(9, 20), suffix='.jpg')
    source = Source(f'folder:{tmp_path}', test=0.0)
    with pytest.raises(ValueError, match='one size unless data.size is given: 12x10 and 9x20'):
        load(source, 'train')
    data = load(Source(f'folder:{tmp_path}', size=8, validation=0.5, test=0.0), 'train')
    assert data.images.shape == (3, 8, 8, 3)


def test_what_does_not_fit_is_decoded_as_needed(tmp_path):
    pixels = write_images(tmp_path / 'train' / 'a', 5)
    source = Source(f'folder:{tmp_path}', validation=0.0, test=0.0, memory=1000)
    data = load(source, 'train')
    assert isinstance(data.images, sources.Encoded) and data.images.shape == (5, 10, 12, 3)
    np.testing.assert_array_equal(data.images[np.array([3, 1])], pixels[[3, 1]])
    np.testing.assert_array_equal(data.images[1:4], pixels[1:4])


def test_an_unreadable_image_is_named(tmp_path):
    write_images(tmp_path / 'train' / 'a', 3)
    (tmp_path / 'train' / 'a' / 'broken.png').write_bytes(b'\x89PNG no more')
    with pytest.raises(ValueError, match=r'broken\.png cannot be read'):
        load(Source(f'folder:{tmp_path}', validation=0.0, test=0.0), 'train')


@pytest.mark.parametrize(
    ('source', 'match'),
    [
        (Source('mnist'), "digits, tfds:NAME or folder:PATH: 'mnist'"),
        (Source('folder:no/such'), 'no/such is none'),
        (Source(validation=1.0), r'data.validation must be in \[0, 1\): 1.0'),
        (Source(validation=0.0), 'the validation split of digits is empty'),
    ],
)
def test_bad_sources(source, match):
    with pytest.raises(ValueError, match=match):
        load(source, 'validation')


def test_folders_without_images_or_classes(tmp_path):
    with pytest.raises(ValueError, match='one folder for each class: it has none'):
        load(Source(f'folder:{tmp_path}'), 'train')
    write_images(tmp_path / 'train' / 'a', 3)
    (tmp_path / 'train' / 'empty').mkdir()
    with pytest.raises(ValueError, match='class folder without images .*empty'):
        load(Source(f'folder:{tmp_path}'), 'train')
    write_images(tmp_path / 'train' / 'empty', 3)
    write_images(tmp_path / 'test' / 'other', 3)
    with pytest.raises(ValueError, match='has classes that .*train has not: other'):
        load(Source(f'folder:{tmp_path}'), 'test')


@pytest.mark.parametrize(('name', 'says'), [('cifar10', 'scripts/prepare.py cifar10'),
                                            ('mnist', 'download_and_prepare')])  # fmt: skip
def test_unprepared_data_say_what_to_run_at_once(tmp_path, name, says):
    start = time.monotonic()
    with pytest.raises(ValueError, match=says):
        load(Source(f'tfds:{name}', dir=str(tmp_path)), 'train')
    assert time.monotonic() - start < 2  # the promise is to the user, not to a benchmark


@pytest.fixture
def archives(tmp_path):
    """Binary CIFAR archives of a few images in the published layout: {name: (path, pixels)}."""
    made = {}
    for name, label_bytes, files, names in (
        ('cifar10', 1, ('data_batch_1.bin', 'data_batch_2.bin', 'test_batch.bin'),
         ('batches.meta.txt', 'airplane\nautomobile\nbird\n\n')),
        ('cifar100', 2, ('train.bin', 'test.bin'), ('fine_label_names.txt', 'apple\nbaby\nbear\n')),
    ):  # fmt: skip
        path = tmp_path / f'{name}.tar.gz'
        pixels = {}
        with tarfile.open(path, 'w:gz') as tar:
            for i, file in enumerate(files):
                images = np.random.default_rng(i).integers(0, 256, (6, 32, 32, 3), np.uint8)
                pixels[file] = images
                rows = np.zeros((6, label_bytes + 3072), np.uint8)
                rows[:, 0] = 9  # CIFAR-100's coarse label, overwritten in CIFAR-10
                rows[:, label_bytes - 1] = np.arange(6) % 3
                rows[:, label_bytes:] = images.transpose(0, 3, 1, 2).reshape(6, -1)
                add(tar, f'{name}-binary/{file}', rows.tobytes())
            add(tar, f'{name}-binary/{names[0]}', names[1].encode())
        made[name] = path, pixels
    return made


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_prepared_cifar_is_what_tfds_reads(tmp_path, archives, name):
    archive, pixels = archives[name]
    source = Source(f'tfds:{name}', dir=str(tmp_path / 'data'), validation=0.25)
    written = cifar.prepare(name, str(archive), source)
    assert written == tmp_path / 'data' / name / '3.0.2'
    test = load(source, 'test')
    np.testing.assert_array_equal(test.images, list(pixels.values())[-1])
    assert list(test.labels) == [0, 1, 2, 0, 1, 2] and len(test.classes) == 3
    train, validation = load(source, 'train'), load(source, 'validation')
    count = 6 * (len(pixels) - 1)
    assert (len(train), len(validation)) == (count - round(count / 4), round(count / 4))

    import tensorflow_datasets as tfds

    records: Any = tfds.data_source(name, split='test', data_dir=str(tmp_path / 'data'))
    example = records[1]
    np.testing.assert_array_equal(example['image'], list(pixels.values())[-1][1])
    with pytest.raises(ValueError, match='already prepared'):
        cifar.prepare(name, str(archive), source)


def test_a_wrong_archive_leaves_nothing(tmp_path):
    wrong = tmp_path / 'wrong.tar.gz'
    wrong.write_bytes(b'no archive')
    source = Source(dir=str(tmp_path / 'data'))
    with pytest.raises(ValueError, match='not a binary CIFAR archive.*wrong'):
        cifar.prepare('cifar10', str(wrong), source)
    assert list((tmp_path / 'data' / 'cifar10').iterdir()) == []
    with pytest.raises(ValueError, match='prepare knows cifar10 and cifar100'):
        cifar.prepare('mnist', None, source)
