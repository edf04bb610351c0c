import contextlib
import gzip
import io
import os
import shutil
import tarfile
import tracemalloc
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.prepare.test_tar import header

from vitjax.data.kinds import load
from vitjax.data.prepare import cifar
from vitjax.data.source import Source


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


def refused(tmp_path, archive, match):
    """Without memory to speak of, and nothing written."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as error:
            cifar.prepare('cifar10', archive=str(archive), directory=str(tmp_path / 'data'))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert len(str(error.value).splitlines()) == 1
    assert not list((tmp_path / 'data' / 'cifar10').iterdir())


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('size', [-1, -512, -1024, 2**40])
def test_an_archive_whose_sizes_cannot_be_ends(tmp_path, zipped, size):
    content = header('first') + header('data_batch_1.bin', size) + bytes(1024)
    archive = tmp_path / 'archive'
    archive.write_bytes(gzip.compress(content) if zipped else content)
    refused(tmp_path, archive, r'not a binary .*archive: data_batch_1\.bin in it has')


@pytest.mark.parametrize('name', ['data_batch_{}.bin', 'other_{}'])
def test_a_small_archive_of_much_takes_no_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(cifar, 'LARGEST', 2**25)
    archive = tmp_path / 'archive.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        for i in range(3):  # none of which is larger
            add(tar, name.format(i), bytes(3073 * 2**12))
    refused(tmp_path, archive, 'not a binary CIFAR archive: ')
    content: Any = bytes(2**20)
    with gzip.open(archive, 'wb') as file:  # an archive's end, and much after it
        for _ in range(2**6):
            file.write(content)
    refused(tmp_path, archive, 'it holds more than 33,554,432 bytes')


def test_an_archive_that_is_damaged_is_not_prepared_in_part(tmp_path, archives):
    content = archives['cifar10'][0].read_bytes()
    archive = tmp_path / 'archive'
    plain = bytearray(gzip.decompress(content))
    plain[plain.index(b'cifar10-binary/data_batch_2.bin')] ^= 1  # tarfile takes it for the end
    archive.write_bytes(plain)
    refused(tmp_path, archive, 'must begin a header: bad checksum')
    archive.write_bytes(gzip.compress(plain))
    refused(tmp_path, archive, 'must begin a header: bad checksum')
    for wrong in (content[:-9], content[:-8] + bytes(4) + content[-4:], b'', b'\x1f\x8b'):
        archive.write_bytes(wrong)
        refused(tmp_path, archive, 'not a binary CIFAR archive: ')
    archive.write_bytes(gzip.decompress(content))  # as browsers unpack what they fetch
    cifar.prepare('cifar10', archive=str(archive), directory=str(tmp_path / 'data'))


def test_what_is_no_archive_is_a_line(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for name, match in (
        ('pipe', '--archive must name a file: .*pipe is a pipe'),
        ('.', '--archive must name a file: .* is a directory'), ('none', 'there is no archive'),
    ):  # fmt: skip
        refused(tmp_path, tmp_path / name, match)


def test_what_a_server_sends_is_bounded(tmp_path, monkeypatch):
    class Endless:
        headers: ClassVar = {'Content-Length': None}

        def read(self, count):
            return bytes(count)

    response = contextlib.nullcontext(Endless())
    monkeypatch.setattr(cifar, 'LARGEST', 2**22)
    monkeypatch.setattr(cifar.urllib.request, 'urlopen', lambda *args, **options: response)
    with pytest.raises(ValueError, match=r'cannot download .* more than 4,194,304 bytes'):
        cifar.prepare('cifar10', directory=str(tmp_path / 'data'))
    assert not list((tmp_path / 'data' / 'cifar10').iterdir())


def test_what_is_there_stays(tmp_path, archives):
    target = tmp_path / 'data' / 'cifar10' / '3.0.2'
    target.mkdir(parents=True)
    archive, directory = str(archives['cifar10'][0]), str(tmp_path / 'data')
    assert cifar.prepare('cifar10', archive=archive, directory=directory) == target
    assert tfds.builder_from_directory(str(target)).version == '3.0.2'
    assert sorted(p.name for p in target.iterdir()) == [
        'cifar10-test.array_record-00000-of-00001', 'cifar10-train.array_record-00000-of-00001',
        'dataset_info.json', 'features.json', 'label.labels.txt',
    ]  # fmt: skip
    shutil.rmtree(target)
    target.mkdir()
    (target / 'mine').touch()
    with pytest.raises(ValueError, match='already prepared'):
        cifar.prepare('cifar10', archive=archive, directory=directory)
    assert [p.name for p in target.iterdir()] == ['mine']


def test_labels_beyond_the_names_are_refused_with_the_archive(tmp_path, archives):
    plain = bytearray(gzip.decompress(archives['cifar10'][0].read_bytes()))
    plain[plain.index(b'cifar10-binary/test_batch.bin') + 512] = 77
    archive = tmp_path / 'archive'
    archive.write_bytes(plain)
    refused(tmp_path, archive, 'labels of .*archive must be from 0 to 2, .*: 77 of test')
