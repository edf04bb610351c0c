import os
import re
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from vitjax.data import images, preprocess


def picture(height=6, width=9, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def saved(tmp_path, image, name='image.png', **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_suffixes_are_those_of_the_formats_that_are_opened():
    Image.init()
    known = {s for s, name in Image.registered_extensions().items() if name in images.FORMATS}
    assert known - {'.pfm'} == {*images.SUFFIXES}  # a .pfm holds floating-point numbers


@pytest.mark.parametrize(
    'name',
    ['a.png', 'a.bmp', 'a.webp', 'a.gif', 'a.ico', 'a.jpg', 'a.avif', 'a.tif', 'a.ppm', 'a.jfif'],
)
def test_what_a_browser_shows(tmp_path, name):
    smooth = np.mgrid[:32, :32][1][..., None].repeat(3, 2).astype(np.uint8) * 4
    options = {'lossless': True} if name == 'a.webp' else {}
    path = saved(tmp_path, Image.fromarray(smooth), name, **options)
    array = images.read(path)
    assert array.shape == (32, 32, 3)
    assert array.dtype == np.uint8
    exact = name in ('a.png', 'a.bmp', 'a.webp', 'a.gif', 'a.ico', 'a.tif', 'a.ppm')
    assert np.abs(array.astype(int) - smooth).max() <= (0 if exact else 8)


def test_grey_and_palette_become_rgb(tmp_path):
    grey = picture(channels=1)
    array = images.read(saved(tmp_path, Image.fromarray(grey)))
    np.testing.assert_array_equal(array, grey[..., None].repeat(3, 2))
    array = images.read(saved(tmp_path, Image.fromarray(grey > 127)))
    np.testing.assert_array_equal(array[..., 1], np.where(grey > 127, 255, 0))
    palette = Image.fromarray(picture()).quantize(16)
    array = images.read(saved(tmp_path, palette))
    np.testing.assert_array_equal(array, np.asarray(palette.convert('RGB')))
    cmyk = Image.new('CMYK', (8, 8), (0, 255, 255, 0))
    array = images.read(saved(tmp_path, cmyk, 'a.jpg', quality=100))
    assert np.abs(array.astype(int) - [255, 0, 0]).max() <= 3


def test_transparent_pixels_lie_on_white(tmp_path):
    array = picture(channels=4)
    array[0, 0, 3], array[0, 1, 3] = 0, 255
    alpha = array[..., 3:] / 255
    wanted = array[..., :3] * alpha + 255 * (1 - alpha)
    got = images.read(saved(tmp_path, Image.fromarray(array)))
    assert np.abs(got - wanted).max() <= 1
    assert (got[0, 0] == 255).all()
    np.testing.assert_array_equal(got[0, 1], array[0, 1, :3])
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), 'P')
    palette.putpalette([10, 20, 30, 40, 50, 60])
    got = images.read(saved(tmp_path, palette, 'a.gif', transparency=1))
    np.testing.assert_array_equal(got[0, 0], [10, 20, 30])
    np.testing.assert_array_equal(got[0, 1], [255, 255, 255])


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.pgm'])
def test_sixteen_bits_become_eight(tmp_path, name):
    values = np.array([[0, 255, 256, 32768], [65279, 65280, 65535, 1000]], np.uint16)
    got = images.read(saved(tmp_path, Image.fromarray(values), name))
    np.testing.assert_array_equal(got, (values >> 8).astype(np.uint8)[..., None].repeat(3, 2))


def png(depth, colour, row, clear):
    """A PNG of two equal rows, `clear` its transparent level or colour."""

    def chunk(kind, data):
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum

    header = struct.pack('>IIBBBBB', 4, 2, depth, colour, 0, 0, 0)
    body = zlib.compress(2 * (b'\0' + row))
    parts = (b'IHDR', header), (b'tRNS', struct.pack(f'>{len(clear)}H', *clear)), (b'IDAT', body)
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in (*parts, (b'IEND', b'')))


@pytest.mark.parametrize(
    ('depth', 'row', 'clear', 'wanted'),
    [
        (16, struct.pack('>4H', 0, 0x1234, 0x8000, 0x8001), 0x8000, [0, 0x12, 255, 0x80]),
        (8, bytes([0, 9, 128, 200]), 128, [0, 9, 255, 200]),
        (4, bytes([0x1F, 0x80]), 8, [17, 255, 255, 0]),
        (2, bytes([0b00011011]), 2, [0, 85, 255, 255]),
        (2, bytes([0b00011011]), 0, [255, 85, 170, 255]),
        (1, bytes([0b01010000]), 0, [255, 255, 255, 255]),
        (1, bytes([0b01010000]), 1, [0, 255, 0, 255]),
    ],
)
def test_a_transparent_grey_level_lies_on_white_at_every_depth(depth, row, clear, wanted):
    got = images.read(images.InMemory(png(depth, 0, row, [clear]), 'grey'))
    np.testing.assert_array_equal(got, np.tile(np.array(wanted)[:, None], (2, 1, 3)))


def test_a_transparent_colour_of_sixteen_bits_lies_on_white():
    clear = 0x8000, 0x1000, 0xFFFF
    row = struct.pack('>12H', *clear, 0, 0, 0, 0x9000, 0x1000, 0xFFFF, *clear)
    got = images.read(images.InMemory(png(16, 2, row, clear), 'colour'))
    assert got[0].tolist() == [[255] * 3, [0] * 3, [0x90, 0x10, 0xFF], [255] * 3]


@pytest.mark.parametrize('mode', ['LA', 'PA', 'RGBA'])
def test_alpha_of_every_mode_lies_on_white(mode):
    alpha = Image.fromarray(np.array([[0, 255, 128]] * 2, np.uint8))
    image = Image.new('RGB', (3, 2), (102, 102, 102)).convert(mode[:-1])
    image = image.convert(mode)
    image.putalpha(alpha)
    got = images._rgb(image, None)
    np.testing.assert_allclose(np.asarray(got)[0, :, 0], [255, 102, 178], atol=1)


@pytest.mark.parametrize('value', [0.5, -1.0, np.nan])
def test_floating_point_levels_are_refused(value):
    image = Image.fromarray(np.full((2, 2), value, np.float32))
    with pytest.raises(ValueError, match='must be integers from 0 to 65,535: these are floating'):
        images._rgb(image, None)


def test_the_camera_rotation_is_applied(tmp_path):
    array = picture()
    turned = {1: array, 3: array[::-1, ::-1], 6: np.rot90(array, -1), 8: np.rot90(array)}
    for orientation, wanted in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path, Image.fromarray(array), exif=exif)
        got = images.read(path)
        np.testing.assert_array_equal(got, wanted)
        assert images.size(path) == wanted.shape[1::-1]


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    path = saved(tmp_path, frames[0], 'a.gif', save_all=True, append_images=frames[1:])
    assert (images.read(path) == [255, 0, 0]).all()


@pytest.mark.parametrize('size', [(1, 20), (20, 1), (1, 1)])
def test_one_pixel_is_too_thin(tmp_path, size):
    path = saved(tmp_path, Image.new('RGB', size))
    message = f'{path}: an image must have 2 pixels or more each way: it has {size[0]}x{size[1]}.'
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
        images.read(path)


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / 'a.jpg'
    with pytest.raises(ValueError, match=f'there is no image {path}'):
        images.read(path)
    for content in (b'', b'hello', b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'%!PS-Adobe-3.0'):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=f'{path} cannot be read: an image must be one of JPEG'
        ):
            images.read(path)
    with pytest.raises(ValueError, match='cannot be read'):
        images.read(tmp_path)


def test_floating_point_pixels_are_refused(tmp_path):
    grey = Image.fromarray(np.full((6, 9), 0.5, np.float32))  # Pillow makes it black
    for path in (saved(tmp_path, grey, 'a.tif'), saved(tmp_path, grey, 'a.pfm')):
        with pytest.raises(ValueError, match=f'{path} cannot be read: pixels must be integers'):
            images.read(path)


def test_nothing_but_regular_files_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo('fifo.png')
    os.symlink('fifo.png', 'link.png')
    os.mkdir('folder.png')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind('socket.png')
    kinds = {'fifo': 'a pipe', 'link': 'a pipe', 'folder': 'a directory', 'socket': 'a socket'}
    for name, kind in kinds.items():
        with pytest.raises(ValueError, match=f'{name}.png .*must be a regular file: it is {kind}'):
            images.read(f'{name}.png')
        with pytest.raises(ValueError, match=kind):
            images.size(f'{name}.png')
    with pytest.raises(ValueError, match='must be a regular file: it is a device'):
        images.read('/dev/null')


def test_files_in_memory_are_read_and_named(tmp_path):
    array = picture()
    path = saved(tmp_path, Image.fromarray(array))
    file = images.InMemory(path.read_bytes(), 'train[3]')
    np.testing.assert_array_equal(images.read(file), array)
    with pytest.raises(ValueError, match=r'^train\[3\] cannot be read: '):
        images.read(images.InMemory(file.content[:60], 'train[3]'))


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.gif', 'a.webp', 'a.bmp', 'a.avif'])
def test_truncated_files_are_named(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(picture(64, 64)), name)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=f'{path} cannot be read: ') as error:
            images.read(path)
        assert len(str(error.value).splitlines()) == 1


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, data):
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum

    header = struct.pack('>IIBBBBB', 50_000, 50_000, 8, 2, 0, 0, 0)
    path = tmp_path / 'a.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b''))
    with pytest.raises(ValueError, match=r'a\.png cannot be read: .*2500000000 pixels'):
        images.read(path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_fifty_megapixels_come_back_small(tmp_path, name):
    rows, columns = np.mgrid[:7000, :7168].astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(rows // 8 + columns // 8), name)
    tracemalloc.start()
    array = images.read(path, short_side=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 512 <= min(array.shape[:2]) < 1024
    assert peak < 2**24  # of Python's own; Pillow decodes outside it
    square = preprocess.squares([path], preprocess.Preprocessing(224, 0.875))
    assert square.shape == (1, 224, 224, 3)
