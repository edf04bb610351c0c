import os
import shutil

import numpy as np
import pytest
from PIL import Image

from vitjax.data import images
from vitjax.data.prepare import shrink


def smooth(wide, high, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((wide, high), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'from'
    sides = {
        'train/a/wide.jpg': (90, 60),
        'train/b/tall.png': (40, 100),
        'test/a/small.jpg': (9, 9),
    }
    for path, (wide, high) in sides.items():
        (root / path).parent.mkdir(parents=True)
        smooth(wide, high).save(root / path)
    return root


def test_short_sides_shrink_and_names_stay(folder, tmp_path):
    out = tmp_path / 'out'
    assert shrink.shrink(folder, out, 20) == 3
    made = {str(p.relative_to(out)): images.read(p) for p in out.rglob('*.*')}
    shapes = {name: image.shape[:2] for name, image in made.items()}
    assert shapes == {
        'train/a/wide.jpg': (20, 30), 'train/b/tall.png.jpg': (50, 20), 'test/a/small.jpg': (9, 9),
    }  # fmt: skip
    small = Image.open(folder / 'train/a/wide.jpg').resize((30, 20), Image.Resampling.BICUBIC)
    assert np.abs(made['train/a/wide.jpg'].astype(int) - np.asarray(small)).mean() < 4
    copied = out / 'test/a/small.jpg'
    assert copied.read_bytes() == (folder / 'test/a/small.jpg').read_bytes()


def test_what_was_stopped_goes_on(folder, tmp_path):
    out, broken = tmp_path / 'out', folder / 'train' / 'b' / 'zz.png'
    broken.write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'zz\.png cannot be read'):
        shrink.shrink(folder, out, 20)
    smooth(30, 30).save(broken)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*.jpg')}
    assert len(before) == 3
    shrink.shrink(folder, out, 20)
    after = {path: path.stat().st_mtime_ns for path in out.rglob('*.*')}
    assert len(after) == 4 and before.items() < after.items()


def test_folders_that_cannot_be_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match='--out must lie outside of --from'):
        shrink.shrink(folder, folder / 'small')
    with pytest.raises(ValueError, match='--from must name a folder of images: .*none'):
        shrink.shrink(tmp_path / 'none', tmp_path / 'out')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='there are no images'):
        shrink.shrink(tmp_path / 'empty', tmp_path / 'out')


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize(
    'names',
    [('z.png', 'z.png.jpg'), ('z.PNG', 'z.PNG.jpg'), ('z.webp', 'z.webp.jpg'),
     ('deep/z.png', 'deep/z.png.jpg')],
)  # fmt: skip
def test_two_images_never_become_one_file(folder, tmp_path, names):
    (folder / 'train' / 'a' / 'deep').mkdir()
    for i, name in enumerate(names):
        smooth(30, 30, i).save(folder / 'train' / 'a' / name)
    with pytest.raises(ValueError, match=r'z\.\w+ and .*z\.\w+\.jpg would both be .*: rename one'):
        shrink.shrink(folder, tmp_path / 'out', 20)
    assert not (tmp_path / 'out').exists()
    (folder / 'train' / 'a' / names[0]).rename(folder / 'train' / 'a' / 'y.png')
    assert shrink.shrink(folder, tmp_path / 'out', 20) == 5
    assert len([name for name in content(tmp_path / 'out') if name != shrink.RECORD]) == 5


def test_names_that_differ_in_their_suffix_stay_apart(tmp_path):
    source = tmp_path / 'from'
    source.mkdir()
    for name in ('z.png', 'z.jpg', 'z.webp', 'z.jpeg'):
        smooth(30, 30).save(source / name)
    assert shrink.shrink(source, tmp_path / 'out', 20) == 4
    names = {*content(tmp_path / 'out')} - {shrink.RECORD}
    assert names == {'z.png.jpg', 'z.jpg', 'z.webp.jpg', 'z.jpeg'}


def test_an_image_is_not_the_folder_of_another(folder, tmp_path):
    (folder / 'z.png.jpg').mkdir()
    smooth(30, 30).save(folder / 'z.png.jpg' / 'a.jpg')
    smooth(30, 30).save(folder / 'z.png')
    with pytest.raises(ValueError, match=r'z\.png\.jpg would be an image and the folder'):
        shrink.shrink(folder, tmp_path / 'out', 20)


def test_links_in_the_source_are_followed_and_loops_end(folder, tmp_path):
    shutil.move(folder / 'train' / 'b', tmp_path / 'elsewhere')
    (folder / 'train' / 'b').symlink_to(tmp_path / 'elsewhere')
    (folder / 'train' / 'c').symlink_to('a')  # to a class that is read, too
    (folder / 'train' / 'a' / 'up').symlink_to('..')
    (tmp_path / 'elsewhere' / 'self').symlink_to(folder)
    (folder / 'train' / 'a' / 'link.jpg').symlink_to(folder / 'test' / 'a' / 'small.jpg')
    said = []
    assert shrink.shrink(folder, tmp_path / 'out', 20, report=said.append) == 6
    assert {*content(tmp_path / 'out')} - {shrink.RECORD} == {
        'train/a/wide.jpg', 'train/a/link.jpg', 'train/b/tall.png.jpg', 'train/c/wide.jpg',
        'train/c/link.jpg', 'test/a/small.jpg',
    }  # fmt: skip
    assert not any(p.is_symlink() for p in (tmp_path / 'out').rglob('*')) and not said


@pytest.mark.slow
def test_folders_that_link_to_each_other_end(folder, tmp_path):
    names = 'abcdefghijkl'
    for one in names:
        (folder / one).mkdir(exist_ok=True)
        for other in names:
            (folder / one / other).symlink_to(folder / other)
    with pytest.raises(ValueError, match='must lie behind 4 links or fewer: '):
        shrink.shrink(folder, tmp_path / 'out', 20)
    deep = tmp_path / 'deep' / 'a' / ('b/' * 600)
    deep.mkdir(parents=True)
    smooth(30, 30).save(deep / 'a.jpg')
    assert shrink.shrink(tmp_path / 'deep', tmp_path / 'out', 20) == 1


def test_what_is_not_read_is_said(folder, tmp_path):
    (folder / 'train' / '.hidden').mkdir()
    (folder / 'train' / 'a' / '@eaDir').mkdir()
    smooth(30, 30).save(folder / 'train' / 'a' / '@eaDir' / 'thumbnail.jpg')
    for name in ('._wide.jpg', 'notes.txt', 'README', '.hidden/a.jpg', '.hidden/b.jpg'):
        (folder / 'train' / name).write_text('no image')
    os.mkfifo(folder / 'train' / 'a' / 'pipe.jpg')
    (folder / 'train' / 'a' / 'gone.jpg').symlink_to('nothing')
    said = []
    assert shrink.shrink(folder, tmp_path / 'out', 20, report=said.append) == 3
    (line,) = said
    assert '8 files not read: ' in line
    for kind in ('hidden 4', '.txt 1', 'no suffix 1', 'not files 1', 'broken links 1'):
        assert kind in line


def test_another_size_or_source_is_refused_with_both(folder, tmp_path):
    out = tmp_path / 'out'
    shrink.shrink(folder, out, 20)
    before = content(out)
    with pytest.raises(ValueError, match='made with size 20: size is 30 now; choose another --out'):
        shrink.shrink(folder, out, 30)
    shutil.copytree(folder, tmp_path / 'other')
    with pytest.raises(ValueError, match='made with from .*/from: from is .*/other now'):
        shrink.shrink(tmp_path / 'other', out, 20)
    assert content(out) == before
    assert shrink.shrink(tmp_path / 'from' / '..' / 'from', out, 20) == 3
    (out / shrink.RECORD).unlink()  # as an earlier version left it
    with pytest.raises(ValueError, match=r'a file that this command did not write.*jpg'):
        shrink.shrink(folder, out, 30)
    assert content(out).items() < before.items()


@pytest.mark.parametrize('begun', [False, True])
@pytest.mark.parametrize('where', ['train', 'train/a', 'train/a/wide.jpg', 'train/b/tall.png.jpg'])
@pytest.mark.parametrize('there', [False, True])
def test_links_in_out_are_not_written_through(folder, tmp_path, begun, where, there):
    out, other = tmp_path / 'out', tmp_path / 'other'
    if begun:
        shrink.shrink(folder, out, 20)
        path = out / where
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (out / where).parent.mkdir(parents=True, exist_ok=True)
    if there and '.' in where:
        other.write_text('of others')
    elif there:
        (other / 'a').mkdir(parents=True)
    (out / where).symlink_to(other)
    before = content(tmp_path)
    with pytest.raises(ValueError, match=f'must hold no links: .*{where} is one'):
        shrink.shrink(folder, out, 20)
    assert content(tmp_path) == before and (out / where).is_symlink()


def test_out_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / 'scratch').mkdir()
    (tmp_path / 'out').symlink_to('scratch')
    assert shrink.shrink(folder, tmp_path / 'out', 20) == 3
    (tmp_path / 'inside').symlink_to(folder / 'train')
    (folder / 'test' / 'scratch').symlink_to(tmp_path / 'scratch')
    for out in ('inside', 'out'):
        with pytest.raises(ValueError, match='--out must lie outside of --from'):
            shrink.shrink(folder, tmp_path / out, 20)


@pytest.mark.parametrize('begun', [False, True])
@pytest.mark.parametrize('kind', ['folder', 'file', 'fifo'])
def test_what_is_in_the_way_is_not_done(folder, tmp_path, begun, kind):
    out = tmp_path / 'out'
    path = out / 'train' / 'a' / 'wide.jpg'
    if begun:
        shrink.shrink(folder, out, 20)
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == 'folder':
        path.mkdir()
    elif kind == 'file':
        path.write_bytes(b'')
    else:
        os.mkfifo(path)
    before = path.lstat().st_ino, path.lstat().st_mode
    with pytest.raises(ValueError, match=r'wide\.jpg'):
        shrink.shrink(folder, out, 20)
    assert (path.lstat().st_ino, path.lstat().st_mode) == before


def test_an_image_that_changed_is_not_done(folder, tmp_path):
    out = tmp_path / 'out'
    shrink.shrink(folder, out, 20)
    smooth(50, 90, seed=1).save(folder / 'train' / 'b' / 'tall.png')
    with pytest.raises(
        ValueError, match=r'tall\.png.* has changed since .*: delete .*tall\.png\.jpg'
    ):
        shrink.shrink(folder, out, 20)
    (out / 'train' / 'b' / 'tall.png.jpg').unlink()
    assert shrink.shrink(folder, out, 20) == 3
    assert images.read(out / 'train' / 'b' / 'tall.png.jpg').shape == (36, 20, 3)
    time = folder.stat().st_mtime_ns
    kept = [time // step * step for step in (1, 100, 1_000, 10**7, 10**9, 2 * 10**9)]
    assert all(shrink._as_kept(one, time) for one in kept)
    assert not shrink._as_kept(time + 1, time)
