import numpy as np
import pytest
from PIL import Image

from vitjax.data import images, shrink


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
