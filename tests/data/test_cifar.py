import contextlib
import io
import tarfile
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vitjax.data import cifar
from vitjax.data.sources import Source, load


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
    directory = str(tmp_path / 'data')
    source = Source(f'tfds:{name}', dir=directory, validation=0.25)
    written = cifar.prepare(name, archive=str(archive), directory=directory)
    assert written == tmp_path / 'data' / name / '3.0.2'
    test = load(source, 'test')
    np.testing.assert_array_equal(test.images, list(pixels.values())[-1])
    assert list(test.labels) == [0, 1, 2, 0, 1, 2] and len(test.classes) == 3
    train, validation = load(source, 'train'), load(source, 'validation')
    count = 6 * (len(pixels) - 1)
    assert (len(train), len(validation)) == (count - round(count / 4), round(count / 4))

    records: Any = tfds.data_source(name, split='test', data_dir=str(tmp_path / 'data'))
    example = records[1]
    np.testing.assert_array_equal(example['image'], list(pixels.values())[-1][1])
    with pytest.raises(ValueError, match='already prepared'):
        cifar.prepare(name, archive=str(archive), directory=directory)


def test_a_wrong_archive_leaves_nothing(tmp_path):
    wrong = tmp_path / 'wrong.tar.gz'
    wrong.write_bytes(b'no archive')
    directory = str(tmp_path / 'data')
    with pytest.raises(ValueError, match='not a binary CIFAR archive.*wrong'):
        cifar.prepare('cifar10', archive=str(wrong), directory=directory)
    assert list((tmp_path / 'data' / 'cifar10').iterdir()) == []
    with pytest.raises(ValueError, match="one of cifar10, cifar100: 'mnist'"):
        cifar.prepare('mnist', directory=directory)


def test_a_download_and_writing_say_how_far_they_are(tmp_path, archives, monkeypatch):
    content, said = archives['cifar10'][0].read_bytes(), []
    response: Any = io.BytesIO(content)
    response.headers = {'Content-Length': str(len(content))}
    monkeypatch.setattr(cifar.urllib.request, 'urlopen', lambda *args, **options: response)

    @contextlib.contextmanager
    def progress(what, total):
        yield lambda done: said.append((what, done, total))

    cifar.prepare('cifar10', directory=str(tmp_path / 'data'), progress=progress)
    assert said[0] == ('MiB downloaded', 0, 1)  # a whole one it is not
    assert said[1:13] == [('train images', done, 12) for done in range(1, 13)]
    assert said[13:] == [('test images', done, 6) for done in range(1, 7)]
