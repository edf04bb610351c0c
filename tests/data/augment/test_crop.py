import io
import math

import numpy as np
import pytest
from PIL import Image

from vitjax.data import images
from vitjax.data.augment import crop
from vitjax.data.images import InMemory

pytest.importorskip('cv2', reason="needs the extra 'stream'")


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def saved(image, suffix='JPEG', name='made', **how):
    out = io.BytesIO()
    image.save(out, suffix, **how)
    return InMemory(out.getvalue(), name)


def generator(seed):
    return np.random.default_rng(seed)


def test_boxes_lie_inside_with_the_area_and_aspect_asked_for():
    shape, area = (300, 400), 0.2
    boxes = np.array([crop.box(generator(i), area, shape) for i in range(400)])
    top, left, high, wide = boxes.T
    assert (boxes[:, :2] >= 0).all() and (top + high <= 300).all() and (left + wide <= 400).all()
    assert len(np.unique(top)) > 80 and len(np.unique(left)) > 80
    share, aspect = high * wide / math.prod(shape), wide / high
    assert share.min() > 0.19 and share.max() <= 1 and abs(share.mean() - 0.55) < 0.06
    assert aspect.min() > 0.73 and aspect.max() < 1.36 and abs(np.log(aspect).mean()) < 0.06


def test_where_no_box_fits_it_is_central_and_not_squeezed():
    assert crop.box(generator(0), 1.0, (10, 100)) == (0, 43, 10, 13)
    assert crop.box(generator(0), 1.0, (100, 10)) == (43, 0, 13, 10)
    assert crop.box(generator(0), 1.0, (10, 12)) == (0, 0, 10, 12)


def averages(pixels, size):
    """Averages over areas, or in between pixels where there are too few, in float64."""

    def weights(old):
        scale, pixel = old / size, np.arange(old)
        start = np.arange(size)[:, None] * scale
        if min(pixels.shape[:2]) >= size:
            end = start + scale
            return (np.minimum(end, pixel + 1) - np.maximum(start, pixel)).clip(0) / scale
        centre = (start + scale / 2 - 0.5).clip(0, old - 1)
        return (1 - np.abs(centre - pixel)).clip(0)

    down, right = map(weights, pixels.shape[:2])
    return np.einsum('ij,jkc,lk->ilc', down, pixels.astype(np.float64), right, optimize=True)


@pytest.mark.parametrize(
    ('shape', 'area', 'tolerance'),
    [((90, 120), 0.1, 1.5), ((120, 170), 0.9, 1.5), ((300, 420), 0.1, 12), ((1500, 1100), 0.1, 12)],
)
def test_a_crop_is_its_box_of_what_pillow_reads(shape, area, tolerance):
    """To a grey level; where a larger image is decoded at a half or less, to that one's pixels."""
    file = saved(smooth(*shape), quality=95)
    made = images.read(file)
    for seed in range(8):
        top, left, high, wide = crop.box(generator(seed), area, shape)
        wanted = averages(made[top : top + high, left : left + wide], 64)
        off = np.abs(crop.Crop(64, area)(file, generator(seed)) - wanted)
        assert off.max() < tolerance and off.mean() < tolerance / 4, (seed, off.max(), off.mean())


KINDS = {
    'png': saved(smooth(40, 50), 'PNG'),
    'grey': saved(smooth(40, 50).convert('L')),
    'cmyk': saved(smooth(40, 50).convert('CMYK')),
    'turned': saved(smooth(40, 50), exif=b'Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00'
                    b'\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00'),
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_all_kinds_of_files_look_as_they_are_read(kind):
    whole = images.read(KINDS[kind])
    assert whole.shape == ((50, 40, 3) if kind == 'turned' else (40, 50, 3))
    found = crop.Crop(24, 1.0)(KINDS[kind], generator(0))
    top, left, high, wide = crop.box(generator(0), 1.0, whole.shape[:2])
    wanted = averages(whole[top : top + high, left : left + wide], 24)
    assert np.abs(found - wanted).max() < 1.5


def test_files_that_cannot_be_read_are_named(tmp_path):
    cut = InMemory(saved(smooth(200, 200)).content[:-2000], 'cut.jpg')
    with pytest.raises(ValueError, match=r'cut\.jpg cannot be read'):
        crop.Crop(20, 0.5)(cut, generator(0))
    with pytest.raises(ValueError, match='there is no image .*none.jpg'):
        crop.Crop(20, 0.5)(tmp_path / 'none.jpg', generator(0))
