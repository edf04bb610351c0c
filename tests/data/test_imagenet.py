import io
import pathlib
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitjax.data import imagenet, images

SAMPLE = pathlib.Path(__file__).parents[3] / 'shared' / 'imagenet_sample'


def test_imagenet_classes():
    names = imagenet.classes()
    assert len(names) == 1000
    known = {0: 'tench', 1: 'goldfish', 281: 'tabby', 285: 'Egyptian cat', 999: 'toilet tissue'}
    assert {i: names[i] for i in known} == known
    assert all(name and name == name.strip() and '_' not in name for name in names)


@pytest.mark.skipif(not SAMPLE.exists(), reason='needs ../shared/imagenet_sample')
def test_imagenet_classes_are_in_the_order_of_their_synsets():
    files = sorted(path.stem for path in SAMPLE.glob('*.jpg'))
    assert [f.split('_', 1)[1].replace('_', ' ') for f in files] == list(imagenet.classes())


SYNSETS = ['n01440764', 'n01443537', 'n01484850']


def jpeg(seed, mode='RGB', kind='JPEG'):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    image = Image.fromarray(pixels).resize((20 + seed, 16), Image.Resampling.BICUBIC)
    image.convert(mode).save(out := io.BytesIO(), kind)
    return out.getvalue()


@pytest.fixture
def small(monkeypatch):
    """An ImageNet of three classes, with an image in CMYK and one that is a PNG."""
    monkeypatch.setattr(imagenet, 'COUNTS', {'train': 9, 'validation': 4})
    monkeypatch.setattr(imagenet, 'SHARDS', {'train': 4, 'validation': 2})
    of_validation = [SYNSETS[i] for i in (2, 0, 0, 1)]
    labels = imagenet._Labels(SYNSETS, of_validation)
    monkeypatch.setattr(imagenet._Labels, 'read', lambda: labels)
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
    """What is published, or what people make of it."""
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
        patch.setattr(imagenet, 'COUNTS', {'train': 10, 'validation': 4})
        refused('ImageNet has 10 train images: .* has 9')
        patch.setattr(imagenet, 'COUNTS', {'train': 9, 'validation': 4})
        labels = imagenet._Labels([*SYNSETS, 'n99999999'], small[2])
        patch.setattr(imagenet._Labels, 'read', lambda: labels)
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


def test_classes_are_readable_where_they_are_imagenets():
    synsets = [f'n{i:08d}' for i in range(1440764, 1441764)]
    assert imagenet.readable(synsets) == imagenet.classes()
    assert imagenet.readable(synsets[:3]) == tuple(synsets[:3])
    assert imagenet.readable(['cat', 'dog']) == ('cat', 'dog')
