import os
import socket

import numpy as np
import pytest
from PIL import Image

from vitjax.data import images
from vitjax.data.kinds import folder, load
from vitjax.data.preprocess import Preprocessing, squares
from vitjax.data.source import Encoded, Source
from vitjax.data.splits import SPLITS


def write_images(folder, count, size=(12, 10), suffix='.png', seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size[1], size[0], 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f'{i}{suffix}')
    return pixels


def test_folder_with_splits(tmp_path):
    pixels = None
    for split, count in (('train', 6), ('validation', 3), ('test', 2)):
        for i, name in enumerate(('cat', 'dog')):
            pixels = write_images(tmp_path / split / name, count, seed=i)
    for split, count in (('train', 6), ('validation', 3), ('test', 2)):
        data = load(Source(f'folder:{tmp_path}'), split)
        assert data.classes == ('cat', 'dog') and list(data.labels) == [0] * count + [1] * count
    np.testing.assert_array_equal(data.images[2:], pixels)


@pytest.mark.parametrize('name', ['validation', 'val', 'valid', 'dev', 'VAL', 'Valid'])
def test_a_validation_split_alone_is_tested_on(tmp_path, capsys, name):
    for own in ('cat', 'dog'):
        write_images(tmp_path / 'Train' / own, 10)
        tested = write_images(tmp_path / name / own, 3, seed=1)
    source = Source(f'folder:{tmp_path}', validation=0.25, test=0.2)
    parts = [load(source, split) for split in SPLITS]
    assert [len(p) for p in parts] == [15, 5, 6]
    np.testing.assert_array_equal(parts[2].images[3:], tested)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        f'has no test split: {name} is tested on, and 0.25 of Train is held out for validation'
    )


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
    with pytest.raises(ValueError, match='12x10 and 9x20 pixels in .*b.0.jpg'):
        load(source, 'train')
    data = load(Source(f'folder:{tmp_path}', size=8, validation=0.5, test=0.0), 'train')
    assert data.images.shape == (3, 8, 8, 3)


def test_what_does_not_fit_is_decoded_as_needed(tmp_path):
    pixels = write_images(tmp_path / 'train' / 'a', 5)
    source = Source(f'folder:{tmp_path}', validation=0.0, test=0.0, memory=1000)
    data = load(source, 'train')
    assert isinstance(data.images, Encoded) and data.images.shape == (5, 10, 12, 3)
    np.testing.assert_array_equal(data.images[np.array([3, 1])], pixels[[3, 1]])
    np.testing.assert_array_equal(data.images[1:4], pixels[1:4])


def test_an_unreadable_image_is_named(tmp_path):
    write_images(tmp_path / 'train' / 'a', 3)
    (tmp_path / 'train' / 'a' / 'broken.png').write_bytes(b'\x89PNG no more')
    with pytest.raises(ValueError, match=r'broken\.png cannot be read'):
        load(Source(f'folder:{tmp_path}', validation=0.0, test=0.0), 'train')


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


@pytest.mark.parametrize('memory', [2**30, 1])
def test_files_become_squares_of_the_model(tmp_path, memory):
    write_images(tmp_path / 'train' / 'a', 2)
    write_images(tmp_path / 'train' / 'b', 2, size=(9, 20), suffix='.jpg')
    source = Source(f'folder:{tmp_path}', validation=0, test=0, size=5, memory=memory)
    prepared = Preprocessing(8, 0.8)
    data = load(source, 'train', prepared)
    assert data.prepared == prepared and isinstance(data.images, Encoded) == (memory == 1)
    files = sorted(tmp_path.rglob('*.*'))
    np.testing.assert_array_equal(data.images[np.arange(4)], squares(files, prepared))
    assert load(source, 'train').prepared is None  # squares of data.size are not the model's


def test_unequal_sizes_are_named_when_decoded_as_needed(tmp_path):
    write_images(tmp_path / 'a', 2)
    write_images(tmp_path / 'b', 2, size=(9, 20))
    data = load(Source(f'folder:{tmp_path}', validation=0, test=0, memory=1), 'train')
    data.images[:2]
    with pytest.raises(ValueError, match='12x10 and 9x20 pixels in .*b.0.png'):
        data.images[1:3]


def test_photographs_have_no_labels(tmp_path):
    write_images(tmp_path, 2)
    write_images(tmp_path, 1, size=(9, 20), suffix='.jpg')
    prepared = Preprocessing(8, 0.8)
    data = folder.photographs(tmp_path, prepared)
    assert (len(data), data.classes, list(data.labels)) == (3, (), [-1] * 3)
    assert data.prepared == prepared
    files = sorted(tmp_path.glob('*.*'))
    np.testing.assert_array_equal(data.images[np.array([2, 0])], squares(files, prepared)[[2, 0]])
    with pytest.raises(ValueError, match='must name a folder of images: .*none does not exist'):
        folder.photographs(tmp_path / 'none', prepared)


def test_usual_names_of_splits_in_any_capitals(tmp_path):
    pixels = {}
    for name, count in (('TRAIN', 3), ('Valid', 2), ('Test', 1)):
        pixels[name] = write_images(tmp_path / name / 'a', count)
    for split, name in zip(SPLITS, pixels, strict=True):
        data = load(Source(f'folder:{tmp_path}'), split)
        np.testing.assert_array_equal(data.images, pixels[name])


REFUSED = {
    'two validation splits': (
        ['train/a', 'val/a', 'valid/a'],
        'must have one validation split: it has val and valid',
    ),
    'two training splits': (['train/a', 'Train/a'], 'one train split: it has Train and train'),
    'a folder besides splits': (['train/a', 'val/a', 'extra/a'], 'has extra besides train, val'),
    'a class named as a split': (['test', 'cat', 'dog'], 'has cat, dog besides test: .* a folder'),
    'a test split alone': (['test/a'], 'must have a train folder: it has test'),
    'classes all named as splits': (['train', 'val'], r'train must have one folder .* has none'),
    'splits in a split': (['train/train/a', 'train/val/a'], 'train, val are names of splits'),
    'splits one folder further down': (['data/train/a', 'data/val/a'], 'folder:.*/data; else'),
    'almost names of splits': (['seg_train/a', 'seg_test/a'], 'has seg_test, seg_train: if they'),
    'splits called sets': (['trainset/a', 'testset/a'], 'has testset, trainset: if they are'),
    'splits in one word': (['TrainImages/a', 'ValImages/a'], 'has TrainImages, ValImages: if'),
    'names of splits with a year': (['train2017/a', 'val2017/a'], 'has train2017, val2017: if'),
    'names of splits with a space': ([' Train/a', 'val /a'], 'has  Train, val : if they are'),
    'a class in val alone': (['train/a', 'val/a', 'val/b'], 'val has classes that .*: b'),
    'a class in train alone': (['train/a', 'train/b', 'val/a'], 'without images: .*val/b'),
    'one folder around all': (['data/cat', 'data/dog'], 'has data alone, .* lie in cat, dog'),
    'one in train': (['train/data/cat', 'train/data/dog'], 'has data alone, .* in cat, dog'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_folders_that_can_be_read_in_two_ways_are_refused_by_name(tmp_path, case):
    folders, match = REFUSED[case]
    for own in folders:
        write_images(tmp_path / own, 3)
    for split in SPLITS:
        with pytest.raises(ValueError, match=match) as error:
            load(Source(f'folder:{tmp_path}'), split)
        assert '\n' not in str(error.value)


def test_a_split_that_is_no_folder_is_refused_by_name(tmp_path):
    write_images(tmp_path / 'train' / 'a', 5)
    (tmp_path / 'val').symlink_to('nowhere', target_is_directory=True)
    for _ in range(2):
        with pytest.raises(ValueError, match='/val has the name of a split: it must be a folder'):
            load(Source(f'folder:{tmp_path}'), 'test')
        (tmp_path / 'val').unlink()
        os.mkfifo(tmp_path / 'val')


def test_names_of_classes_may_have_such_words(tmp_path):
    for name in ('train_station', 'bus', 'trains'):
        write_images(tmp_path / name, 5)
    assert len(load(Source(f'folder:{tmp_path}'), 'train').classes) == 3


def test_a_class_may_be_called_train(tmp_path):
    for own in ('train/bus', 'train/train', 'test/bus', 'test/train'):
        write_images(tmp_path / own, 4)
    data = load(Source(f'folder:{tmp_path}'), 'test')
    assert data.classes == ('bus', 'train') and list(data.labels) == [0] * 4 + [1] * 4


def test_folders_of_a_class_and_every_suffix_that_can_be_read_are_the_classes(tmp_path):
    pixels = write_images(tmp_path / 'train' / 'a' / 'deep' / 'x.jpg', 3)
    for i, suffix in enumerate(images.SUFFIXES):
        file = tmp_path / 'train' / 'a' / f'{i}{suffix.upper()}'
        Image.fromarray(pixels[0]).save(file, 'PNG')
    data = load(Source(f'folder:{tmp_path}', validation=0, test=0), 'train')
    assert len(data) == len(images.SUFFIXES) + 3
    np.testing.assert_array_equal(data.images[-3:], pixels)


def test_what_is_not_read_is_counted_in_a_line_once(tmp_path, capsys, monkeypatch):
    home = tmp_path / 'a'
    write_images(home, 10)
    write_images(home / '.ipynb_checkpoints', 2)
    write_images(tmp_path / '__MACOSX' / 'a', 3)
    for name in ('._0.jpg', 'Thumbs.db', 'notes.txt', 'b.TXT', 'README'):
        (home / name).write_bytes(b'')
    (tmp_path / 'labels.csv').write_bytes(b'')
    (tmp_path / '0.png').write_bytes(b'')
    (home / 'gone.jpg').symlink_to(tmp_path / 'gone.jpg')
    (home / 'itself.jpg').symlink_to('itself.jpg')
    (home / 'empty').mkdir()
    os.mkfifo(home / 'fifo.jpg')
    monkeypatch.chdir(home)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind('socket.jpg')
        for split in SPLITS:
            load(Source(f'folder:{tmp_path}'), split)
    assert capsys.readouterr().err == (
        f'{tmp_path}: 16 files not read: hidden 7, .txt 2, not files 2, broken links 2, '
        '.csv 1, outside of classes 1, no suffix 1; 1 empty folder\n'
    )


def test_links_to_folders_are_classes_but_not_twice(tmp_path):
    write_images(tmp_path / 'there', 5)
    write_images(tmp_path / 'here' / 'a', 5)
    (tmp_path / 'here' / 'b').symlink_to(tmp_path / 'there', target_is_directory=True)
    source = Source(f'folder:{tmp_path / "here"}')
    assert load(source, 'train').classes == ('a', 'b')
    (tmp_path / 'here' / 'c').symlink_to('a', target_is_directory=True)
    with pytest.raises(ValueError, match='here/c and .*here/a are one folder'):
        load(source, 'train')


@pytest.mark.parametrize('link', ['..', '.', '../..'])
def test_links_in_a_circle_end(tmp_path, link):
    write_images(tmp_path / 'here' / 'a', 5)
    (tmp_path / 'here' / 'a' / 'again').symlink_to(link, target_is_directory=True)
    with pytest.raises(ValueError, match='again'):
        load(Source(f'folder:{tmp_path / "here"}'), 'train')


def test_folders_and_files_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    write_images(tmp_path / 'a', 5)
    (tmp_path / 'a' / 'locked').mkdir()
    scan = os.scandir

    def refused(path):
        if str(path).endswith('locked'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'scandir', refused)
        with pytest.raises(ValueError, match='a/locked cannot be read: Permission denied'):
            load(Source(f'folder:{tmp_path}'), 'train')

    def denied(*_, **__):
        raise PermissionError(13, 'Permission denied')

    source = Source(f'folder:{tmp_path}', memory=1)
    with monkeypatch.context() as patch:
        patch.setattr(folder, 'open', denied, raising=False)
        with pytest.raises(ValueError, match=r'a/\d.png cannot be read: Permission denied'):
            load(source, 'train')


def test_a_split_without_labels_is_refused_by_name(tmp_path):
    for name in ('train/a/1.png', 'train/b/1.png', 'test/1.png', 'lost+found/1.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    source = Source(f'folder:{tmp_path}', validation=0, test=0)
    with pytest.raises(
        ValueError,
        match='test must have one folder for each class of .*train, as .*test/a: it has none',
    ):
        load(source, 'train')
    (tmp_path / 'test' / '1.png').unlink()
    (tmp_path / 'test').rmdir()
    assert load(source, 'train').classes == ('a', 'b')


@pytest.mark.parametrize('name', ['~nosuchuser/x', 'no/such', 'file.png', 'fifo'])
def test_a_folder_must_be_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file.png').write_bytes(b'')
    os.mkfifo(tmp_path / 'fifo')
    match = f'must name a folder of images: {name} (does not exist|is a file)'
    if name.startswith('~'):
        match = '~nosuchuser must be a home folder that is known here'
    with pytest.raises(ValueError, match=match):
        load(Source(f'folder:{name}'), 'train')
    with pytest.raises(ValueError, match=match):
        folder.photographs(name, Preprocessing(8))


def test_photographs_are_accounted_for(tmp_path, capsys):
    write_images(tmp_path, 2, suffix='.TIFF')
    write_images(tmp_path / 'test', 3)
    (tmp_path / '.DS_Store').write_bytes(b'')
    os.mkfifo(tmp_path / 'fifo.png')
    assert len(folder.photographs(tmp_path, Preprocessing(8))) == 2
    said = '5 files not read: in folders 3, hidden 1, not files 1'
    assert capsys.readouterr().err == f'{tmp_path}: {said}\n'
    with pytest.raises(ValueError, match=r'no images in .* \(3 files not read: in folders 3\)'):
        (tmp_path / 'up').mkdir()
        (tmp_path / 'test').rename(tmp_path / 'up' / 'test')
        folder.photographs(tmp_path / 'up', Preprocessing(8))


def test_names_of_any_bytes_are_read(tmp_path):
    write_images(tmp_path / 'a', 4)
    os.rename(tmp_path / 'a' / '0.png', os.fsencode(tmp_path / 'a') + b'/\xff\n .png')
    data = load(Source(f'folder:{tmp_path}', validation=0, test=0, memory=1), 'train')
    assert len(data.images[np.arange(4)]) == 4 and len(data.digest) == 32
