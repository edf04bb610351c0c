import io
import tarfile

import pytest

from vitjax.data.prepare import tar

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def header(name='a', size=0, kind=tarfile.REGTYPE):
    """A block of 512 bytes; sizes that octal digits cannot say are in base 256, as GNU has them."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if 0 <= size < 8**11:
        block[124:136] = b'%011o\0' % size
    else:
        block[124] = 0xFF if size < 0 else 0x80
        block[125:136] = (size % 256**11).to_bytes(11, 'big')
    block[148:156] = b' ' * 8
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


def read(content, end=None):
    return [*tar.members(io.BytesIO(content), len(content) if end is None else end)]


@pytest.mark.parametrize('form', FORMATS)
def test_members_are_those_that_tarfile_has(form):
    contents = {'a': b'1' * 512, 'b/c.JPEG': b'2' * 700, 'd': b'', 'e' * 99: b'3'}
    if form != tarfile.USTAR_FORMAT:
        contents |= {'f' * 300: b'4', 'ä' * 200: b'5', 'g': b'6'}
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode='w', format=form) as archive:
        for kind, name in ((tarfile.DIRTYPE, 'folder'), (tarfile.SYMTYPE, 'link')):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, 'l' * 50 if form == FORMATS[0] else 'l' * 300
            archive.addfile(entry)
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    whole = buffer.getvalue()
    found = read(whole)
    assert {m.name: whole[m.start : m.start + m.size] for m in found if m.regular} == contents
    assert [m.name for m in found if not m.regular] == ['folder', 'link']
    for length in (100, 600, len(whole.rstrip(b'\0')) // 2):
        with pytest.raises(ValueError):
            read(whole[:length])


@pytest.mark.parametrize('size', [-1, -512, -1024, -(2**40), -(2**80), 513, 2**33, 2**40, 2**80])
@pytest.mark.parametrize(
    'kind',
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME,
     tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE],
)  # fmt: skip
@pytest.mark.parametrize('before', [b'', header('first')])
def test_sizes_that_cannot_be_end(size, kind, before):
    content = before + header('a', size, kind) + bytes(512)
    with pytest.raises(ValueError, match=r'a in it has .* bytes: 512 bytes or fewer can follow'):
        read(content)


def test_headers_end():
    long = header('a', 2**20, tarfile.GNUTYPE_LONGNAME) + b'n' * 2**20
    with pytest.raises(ValueError, match='a header in it has 1,048,576 bytes: at most 65,536'):
        read(long)
    chain = header('a', 1, tarfile.GNUTYPE_LONGNAME) + b'n' + bytes(511)
    assert [m.name for m in read(chain * 3000 + header('a') + bytes(512))] == ['n']
    damaged = bytearray(header('a') + header('b') + bytes(512))
    damaged[600] ^= 1  # which tarfile takes for the end
    with pytest.raises(ValueError, match='byte 512 of it must begin a header: bad checksum'):
        read(bytes(damaged))
    with pytest.raises(ValueError, match='byte 512 of it must begin a header: empty header'):
        read(header('a'))
