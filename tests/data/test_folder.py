import numpy as np
import pytest
from PIL import Image

from vitjax.data import folder
from vitjax.data.preprocess import Preprocessing, read_squares
from vitjax.data.sources import SPLITS, Encoded, Source, load


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


def test_a_validation_split_alone_is_tested_on(tmp_path):
    for name in ('cat', 'dog'):
        write_images(tmp_path / 'train' / name, 10)
        tested = write_images(tmp_path / 'validation' / name, 3, seed=1)
    source = Source(f'folder:{tmp_path}', validation=0.25, test=0.2)
    parts = [load(source, split) for split in SPLITS]
    assert [len(p) for p in parts] == [15, 5, 6]
    np.testing.assert_array_equal(parts[2].images[3:], tested)


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
    np.testing.assert_array_equal(data.images[np.arange(4)], read_squares(files, prepared))
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
    np.testing.assert_array_equal(
        data.images[np.array([2, 0])], read_squares(files, prepared)[[2, 0]]
    )
    with pytest.raises(ValueError, match='must name a folder of images: .*none does not exist'):
        folder.photographs(tmp_path / 'none', prepared)
