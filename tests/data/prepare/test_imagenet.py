import io
import os
import pathlib
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from data.prepare.test_tar import header
from PIL import Image

from vitjax.base import files
from vitjax.data import classes, images
from vitjax.data.prepare import imagenet, listing

SAMPLE = pathlib.Path(__file__).parents[4] / 'shared' / 'imagenet_sample'


def test_imagenet_classes():
    names = classes.imagenet()
    assert len(names) == 1000
    known = {0: 'tench', 1: 'goldfish', 281: 'tabby', 285: 'Egyptian cat', 999: 'toilet tissue'}
    assert {i: names[i] for i in known} == known
    assert all(name and name == name.strip() and '_' not in name for name in names)


@pytest.mark.skipif(not SAMPLE.exists(), reason='needs ../shared/imagenet_sample')
def test_imagenet_classes_are_in_the_order_of_their_synsets():
    files = sorted(path.stem for path in SAMPLE.glob('*.jpg'))
    assert [f.split('_', 1)[1].replace('_', ' ') for f in files] == list(classes.imagenet())


SYNSETS = ['n01440764', 'n01443537', 'n01484850']


def jpeg(seed, mode='RGB', kind='JPEG'):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(pixels).resize((20 + seed, 16), Image.Resampling.BICUBIC)
    image.convert(mode).save(out := io.BytesIO(), kind)
    return out.getvalue()


@pytest.fixture
def small(monkeypatch):
    """An ImageNet of three classes, with an image in CMYK and one that is a PNG."""
    monkeypatch.setattr(listing, 'COUNTS', {'train': 9, 'validation': 4})
    monkeypatch.setattr(imagenet, 'SHARDS', {'train': 4, 'validation': 2})
    of_validation = [SYNSETS[i] for i in (2, 0, 0, 1)]
    labels = listing.Labels(SYNSETS, of_validation)
    monkeypatch.setattr(listing.Labels, 'read', lambda: labels)
    odd = {'n01440764_1.JPEG': ('CMYK',), 'n01484850_2.JPEG': ('RGB', 'PNG')}
    train = {
        f'{synset}_{i}.JPEG': jpeg(3 * k + i, *odd.get(f'{synset}_{i}.JPEG', ('RGB',)))
        for k, synset in enumerate(SYNSETS)
        for i in range(3)
    }
    validation = {f'ILSVRC2012_val_0000000{i}.JPEG': jpeg(20 + i, 'L') for i in range(1, 5)}
    return train, validation, of_validation


def pack(path, contents):
    with tarfile.open(path, 'w') as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.fixture(params=['archives', 'folders'])
def source(request, tmp_path, small):
    """The published archives, or the folders that people make of them."""
    train, validation, _ = small
    folder = tmp_path / 'from'
    folder.mkdir()
    if request.param == 'archives':
        inner = {}
        for synset in SYNSETS:
            own = {name: content for name, content in train.items() if name.startswith(synset)}
            pack(folder / 'inner', own)
            inner[f'{synset}.tar'] = (folder / 'inner').read_bytes()
        pack(folder / 'ILSVRC2012_img_train.tar', inner)
        pack(folder / 'ILSVRC2012_img_val.tar', dict(sorted(validation.items(), reverse=True)))
    else:
        for name, content in train.items():
            (folder / 'train' / name[:9]).mkdir(parents=True, exist_ok=True)
            (folder / 'train' / name[:9] / name).write_bytes(content)
        (folder / 'val').mkdir()
        for name, content in validation.items():
            (folder / 'val' / name).write_bytes(content)
    return folder


def test_imagenet_is_written_as_tensorflow_datasets_reads_it(source, small, tmp_path):
    import tensorflow_datasets as tfds

    train, validation, of_validation = small
    target = imagenet.prepare(source, str(tmp_path / 'data'))
    assert target == tmp_path / 'data' / 'imagenet2012' / '5.1.0'
    builder: Any = tfds.builder_from_directory(str(target))
    assert builder.info.features['label'].names == SYNSETS
    assert [len(builder.info.splits['train'].filenames)] == [4]
    found = {
        split: [*builder.as_data_source(split, decoders={'image': tfds.decode.SkipDecoding()})]
        for split in ('train', 'validation')
    }
    names = [e['file_name'].decode() for e in found['train']]
    assert sorted(names) == sorted(train) and names != sorted(train)  # shuffled
    for example in found['train']:
        name, content = example['file_name'].decode(), example['image']
        assert SYNSETS[example['label']] == name[:9]
        if name in ('n01440764_1.JPEG', 'n01484850_2.JPEG'):
            with Image.open(io.BytesIO(content)) as image:
                assert (image.format, image.mode) == ('JPEG', 'RGB')
            before, after = (images.read(images.InMemory(c, name)) for c in (train[name], content))
            assert np.abs(before.astype(int) - after).max() < 12
        else:
            assert content == train[name]
    wanted = dict(zip(sorted(validation), of_validation, strict=True))
    assert {e['file_name'].decode(): SYNSETS[e['label']] for e in found['validation']} == wanted


def test_what_was_stopped_goes_on_with_the_same_images_alone(source, small, tmp_path, monkeypatch):
    whole = imagenet._whole
    monkeypatch.setattr(imagenet.images, 'THREADS', ThreadPoolExecutor(1))
    data = tmp_path / 'data'

    def stops(file):
        if file.name == 'ILSVRC2012_val_00000003.JPEG':
            raise ValueError('stopped')
        return whole(file)

    monkeypatch.setattr(imagenet, '_whole', stops)
    with pytest.raises(ValueError, match='stopped'):
        imagenet.prepare(source, str(data))
    draft = data / 'imagenet2012' / '.draft-5.1.0'
    before = {path: path.stat().st_mtime_ns for path in draft.glob('*train*-of-*')}
    assert len(before) == 4 and not (data / 'imagenet2012' / '5.1.0').exists()
    monkeypatch.setattr(imagenet, '_whole', whole)
    target = imagenet.prepare(source, str(data))
    assert {p.name: p.stat().st_mtime_ns for p in target.glob('*train*-of-*')} == {
        path.name: time for path, time in before.items()
    }
    assert not [p.name for p in target.iterdir() if 'draft' in p.name or p.name == 'source']
    with pytest.raises(ValueError, match='is already prepared'):
        imagenet.prepare(source, str(data))
    target.rename(draft)
    (draft / 'source').write_text('of others')
    with pytest.raises(ValueError, match='begun with other images'):
        imagenet.prepare(source, str(data))


def test_what_is_no_imagenet_is_refused(source, small, tmp_path, monkeypatch):
    data = str(tmp_path / 'data')

    def refused(match):
        with pytest.raises(ValueError, match=match):
            imagenet.prepare(source, data)
        assert not (tmp_path / 'data' / 'imagenet2012' / '5.1.0').exists()

    with monkeypatch.context() as patch:
        patch.setattr(listing, 'COUNTS', {'train': 10, 'validation': 4})
        refused('ImageNet has 10 train images: .* has 9')
        patch.setattr(listing, 'COUNTS', {'train': 9, 'validation': 4})
        labels = listing.Labels([*SYNSETS, 'n99999999'], small[2])
        patch.setattr(listing.Labels, 'read', lambda: labels)
        refused('n99999999 differs')
    archive = source / 'ILSVRC2012_img_train.tar'
    if archive.exists():
        content = archive.read_bytes()
        archive.write_bytes(content[: len(content) // 2])
        refused(r'train\.tar is not the published one|ImageNet has 9 train images')
        pack(archive, {'../n01440764.tar': b''})
        refused(r'is not the published one: it has \.\./n01440764\.tar')
        archive.unlink()
        refused(r'must have ILSVRC2012_img_train\.tar or a folder train')
    else:
        file = source / 'train' / 'n01443537' / 'n01443537_0.JPEG'
        file.write_bytes(file.read_bytes()[:-100])
        refused(r'n01443537_0\.JPEG cannot be read')


@pytest.fixture
def refused(source, tmp_path):
    """Calls `prepare`, which must refuse in a line and write nothing."""

    def check(match):
        with pytest.raises(ValueError, match=match) as error:
            imagenet.prepare(source, str(tmp_path / 'data'))
        assert len(str(error.value).splitlines()) == 1
        assert not (tmp_path / 'data' / 'imagenet2012' / '5.1.0').exists()

    return check


folders = pytest.mark.parametrize('source', ['folders'], indirect=True)
archived = pytest.mark.parametrize('source', ['archives'], indirect=True)


def test_data_source_reads_it_by_its_name(source, small, tmp_path):
    import tensorflow_datasets as tfds

    train, validation, of_validation = small
    target = imagenet.prepare(source, str(tmp_path / 'data'))
    assert str(tfds.builder_from_directory(str(target)).version) == '5.1.0'
    records: Any = tfds.data_source('imagenet2012', split='train', data_dir=tmp_path / 'data')
    assert sorted(e['file_name'].decode() for e in records) == sorted(train)
    assert records[0]['image'].shape[2] == 3
    builder: Any = tfds.builder('imagenet2012:5.1.0', data_dir=tmp_path / 'data')
    found = builder.as_data_source('validation')
    wanted = dict(zip(sorted(validation), of_validation, strict=True))
    assert {e['file_name'].decode(): SYNSETS[e['label']] for e in found} == wanted


def rename(source, split, names):
    """Renames images of a split in a source of archives or folders."""
    archive = source / listing.ARCHIVES[split]
    if not archive.exists():
        for old, new in names.items():
            (path,) = (source / listing.FOLDERS[split][0]).rglob(old)
            path.rename(path.with_name(new))
        return
    inner = {}
    for member, content in unpack(archive).items():
        if member.endswith('.tar'):
            (source / 'inner').write_bytes(content)
            own = unpack(source / 'inner')
            pack(source / 'inner', {names.get(name, name): own[name] for name in own})
            inner[member] = (source / 'inner').read_bytes()
        else:
            inner[names.get(member, member)] = content
    pack(archive, inner)


def unpack(path):
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() for name, file in files.items() if file}


@pytest.mark.parametrize(
    'names',
    [
        {f'ILSVRC2012_val_0000000{i}.JPEG': f'val_{i}.JPEG' for i in range(1, 5)},
        {'ILSVRC2012_val_00000002.JPEG': 'ILSVRC2012_val_2.JPEG'},
        {'ILSVRC2012_val_00000002.JPEG': 'cat.JPEG'},
        {'ILSVRC2012_val_00000004.JPEG': 'ILSVRC2012_val_00000005.JPEG'},
        {'ILSVRC2012_val_00000001.JPEG': 'ILSVRC2012_val_00000000.JPEG'},
        {'ILSVRC2012_val_00000001.JPEG': 'ILSVRC2012_test_00000001.JPEG'},
    ],
)
def test_validation_images_of_other_names_are_refused(source, refused, names):
    rename(source, 'validation', names)
    refused('|'.join(map(re.escape, names.values())))


@folders
def test_labels_are_the_numbers_and_not_their_order(source, small, refused, tmp_path):
    """Labels of images that sort otherwise, or that lie in folders of classes."""
    import tensorflow_datasets as tfds

    *_, of_validation = small
    rename(source, 'validation', {'ILSVRC2012_val_00000001.JPEG': 'ilsvrc2012_VAL_00000001.jpg'})
    target = imagenet.prepare(source, str(tmp_path / 'sorted'))
    builder: Any = tfds.builder_from_directory(str(target))
    found = builder.as_data_source('validation')
    labels = {int(e['file_name'][15:23]): SYNSETS[e['label']] for e in found}
    assert labels == dict(enumerate(of_validation, 1))
    for path in sorted((source / 'val').iterdir()):
        own = source / 'val' / labels[int(path.stem[-8:])]
        own.mkdir(exist_ok=True)
        path.rename(own / path.name)
    target = imagenet.prepare(source, str(tmp_path / 'folders'))
    builder = tfds.builder_from_directory(str(target))
    found = builder.as_data_source('validation')
    assert labels == {int(e['file_name'][15:23]): SYNSETS[e['label']] for e in found}
    path = source / 'val' / SYNSETS[2] / 'ilsvrc2012_VAL_00000001.jpg'
    path.rename(source / 'val' / SYNSETS[0] / path.name)
    refused(f'VAL_00000001.jpg is of class {SYNSETS[2]}, by its name: it lies in {SYNSETS[0]}')


@folders
def test_an_image_of_another_class_or_twice_is_refused(source, refused):
    path = source / 'train' / SYNSETS[0] / f'{SYNSETS[0]}_2.JPEG'
    path.rename(other := source / 'train' / SYNSETS[1] / path.name)
    refused(f'{SYNSETS[0]}_2.JPEG is of class {SYNSETS[0]}, by its name: it lies in {SYNSETS[1]}')
    other.rename(path)
    two = source / 'val' / 'ILSVRC2012_val_00000002.JPEG'
    (source / 'val' / SYNSETS[0]).mkdir()
    (source / 'val' / 'ILSVRC2012_val_00000003.JPEG').unlink()
    (source / 'val' / SYNSETS[0] / two.name).write_bytes(two.read_bytes())
    refused('ILSVRC2012_val_00000002.JPEG is there twice')


@folders
def test_folders_of_classes_may_be_links(source, small, tmp_path):
    (source / 'train' / SYNSETS[1]).rename(tmp_path / 'elsewhere')
    (source / 'train' / SYNSETS[1]).symlink_to(tmp_path / 'elsewhere')
    (source / 'train' / SYNSETS[1] / 'up').symlink_to(source)
    (source / 'val').rename(tmp_path / 'val')
    (source / 'val').symlink_to(tmp_path / 'val')
    assert imagenet.prepare(source, str(tmp_path / 'data')).is_dir()


@pytest.mark.parametrize('long', [64, 65, 100, 101, 200, 255])
def test_names_are_kept_whole(source, small, tmp_path, long):
    import tensorflow_datasets as tfds

    old = f'{SYNSETS[0]}_0.JPEG'
    new = f'{SYNSETS[0]}_ä'.ljust(long - 6, 'n') + '.JPEG'
    assert len(new.encode()) == long
    rename(source, 'train', {old: new})
    target = imagenet.prepare(source, str(tmp_path / 'data'))
    builder: Any = tfds.builder_from_directory(str(target))
    names = {e['file_name'].decode() for e in builder.as_data_source('train')}
    assert names == {*small[0]} - {old} | {new}


@archived
def test_names_that_are_too_long_are_refused(source, refused):
    rename(source, 'train', {f'{SYNSETS[0]}_0.JPEG': f'{SYNSETS[0]}_'.ljust(251, 'n') + '.JPEG'})
    refused('at most 255 bytes, none of them zero: .* has 256')


@folders
def test_names_that_are_no_text_are_refused(source, refused):
    path = source / 'train' / SYNSETS[0] / f'{SYNSETS[0]}_0.JPEG'
    os.rename(path, os.fsencode(path.parent) + b'/' + SYNSETS[0].encode() + b'_\xff.JPEG')
    refused('the name of an image must be UTF-8: ')


def shards(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if '-of-' in p.name}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b'')


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def other(path):
    (another,) = path.parent.glob('*train*-00001-of-*')
    path.write_bytes(another.read_bytes())


def link(path):
    path.rename(path.parents[2] / 'elsewhere')
    path.symlink_to(path.parents[2] / 'elsewhere')


@pytest.mark.parametrize('damage', [flip, empty, cut, other, link])
def test_a_shard_that_was_damaged_is_written_anew(source, small, tmp_path, monkeypatch, damage):
    wanted = shards(imagenet.prepare(source, str(tmp_path / 'whole')))
    monkeypatch.setattr(imagenet.images, 'THREADS', ThreadPoolExecutor(1))
    with monkeypatch.context() as patch:
        patch.setattr(imagenet, '_write', stopping(imagenet._write))
        with pytest.raises(KeyboardInterrupt):
            imagenet.prepare(source, str(tmp_path / 'data'))
    draft = tmp_path / 'data' / 'imagenet2012' / '.draft-5.1.0'
    (path,) = draft.glob('*train*-00002-of-*')
    damage(path)
    target = imagenet.prepare(source, str(tmp_path / 'data'))
    assert shards(target) == wanted and not any(p.is_symlink() for p in target.iterdir())
    assert not (target / 'source').exists() and not draft.exists()


def stopping(write):
    """Writes all shards, and is then stopped."""

    def run(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    return run


@folders
def test_a_draft_of_others_is_not_taken_over(source, refused, tmp_path):
    draft = tmp_path / 'data' / 'imagenet2012' / '.draft-5.1.0'
    draft.mkdir(parents=True)
    (draft / 'mine').touch()
    refused(r'\.draft-5\.1\.0 was begun with other images than those of .*from, or by an earlier')
    (draft / 'source').write_text('0' * 128)  # of an earlier version
    refused('or by an earlier version: delete it')
    (draft / 'mine').unlink()
    (draft / 'source').unlink()
    with files.locked(draft, 'taken'):
        refused('one process at a time can prepare imagenet2012: another is at work')
    assert imagenet.prepare(source, str(tmp_path / 'data')).is_dir()


@archived
@pytest.mark.parametrize('size', [-1, -512, -1024, 2**40])
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_an_archive_whose_sizes_cannot_be_ends(source, refused, split, size):
    archive = source / listing.ARCHIVES[split]
    name = f'{SYNSETS[0]}.tar' if split == 'train' else 'ILSVRC2012_val_00000001.JPEG'
    rule = rf'{archive.name} is not the published one: .* in it has .* bytes: .* can follow'
    archive.write_bytes(header(name) * (split != 'train') + header(name, size) + bytes(1024))
    refused(rule)
    if split == 'train':
        inner = header(f'{SYNSETS[0]}_1.JPEG', size) + bytes(1024)
        archive.write_bytes(header(name, len(inner)) + inner + bytes(1024))
        refused(rule)


@archived
def test_an_inner_archive_does_not_reach_beyond_its_end(source, refused):
    inner = header(f'{SYNSETS[0]}_1.JPEG')  # without the blocks that end it
    archive = source / 'ILSVRC2012_img_train.tar'
    archive.write_bytes(header(f'{SYNSETS[0]}.tar', 512) + inner + header('b.tar') + bytes(1024))
    refused('is not the published one: ')


@archived
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_more_images_than_there_are_end(source, refused, split):
    archive = source / listing.ARCHIVES[split]
    if split == 'train':
        inner = header(f'{SYNSETS[0]}_1.JPEG') * 5000 + bytes(1024)
        content = header(f'{SYNSETS[0]}.tar', len(inner)) + inner
    else:
        content = header('ILSVRC2012_val_00000001.JPEG') * 5000
    archive.write_bytes(content + bytes(1024))
    refused(f'ImageNet has . {split} images: .* has .* or more')


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'nothing', 'empty'])
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_what_is_no_archive_is_a_line(source, refused, split, kind):
    archive = source / listing.ARCHIVES[split]
    if archive.exists():
        archive.unlink()
        wanted = rf'must have {re.escape(archive.name)} or a folder {listing.FOLDERS[split][0]}'
    else:
        path = next((source / listing.FOLDERS[split][0]).rglob('*.JPEG'))
        path.unlink()
        archive, wanted = path, 'an image must be a file|ImageNet has . '
        wanted += '|cannot be read'
    if kind == 'fifo':
        os.mkfifo(archive)
    elif kind == 'folder':
        archive.mkdir()
    elif kind == 'empty':
        archive.touch()
        wanted += '|is not the published one: byte 0 of it must begin a header: empty header'
    refused(wanted)


def test_a_source_that_is_no_folder_is_a_line(tmp_path, small):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'file').touch()
    for name in ('pipe', 'file', 'none'):
        with pytest.raises(ValueError, match=f'{name} must have ILSVRC2012_img_train.tar or a'):
            imagenet.prepare(tmp_path / name, str(tmp_path / 'data'))


def test_classes_are_readable_where_they_are_imagenets():
    synsets = [f'n{i:08d}' for i in range(1440764, 1441764)]
    assert classes.readable(synsets) == classes.imagenet()
    assert classes.readable(synsets[:3]) == tuple(synsets[:3])
    assert classes.readable(['cat', 'dog']) == ('cat', 'dog')
