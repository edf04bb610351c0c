"""Members of a tar archive, read so that a damaged or hostile one ends in an error, and soon."""

import io
import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
LONGEST = 2**16  # bytes of a header that extends another


class Member(NamedTuple):
    """A file, folder or link in an archive.

    Attributes:
        name: its path, of any length.
        start: first byte of its content in the file read.
        size: number of bytes of its content.
        regular: True for a file.
    """

    name: str
    start: int
    size: int
    regular: bool


def members(file: io.BufferedIOBase, end: int) -> Iterator[Member]:
    """Yields the members of an archive from a file's position on, always moving forward.

    `tarfile` follows sizes below zero backwards, for ever, reads headers of any size into memory,
    and takes a damaged header for the end of an archive.

    Args:
        file: readable file, which may be compressed: it is only sought forward.
        end: byte of it that no content may pass.

    Raises:
        ValueError: if a header is damaged, or its size is impossible.
    """
    at, name = file.tell(), ''
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if len(block) == BLOCK and not any(block):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, 'utf-8', 'surrogateescape')
        except tarfile.TarError as error:
            raise ValueError(f'byte {at:,} of it must begin a header: {error}') from None
        start, size = at + BLOCK, header.size
        if not 0 <= size <= end - start:
            rule = f'{max(0, end - start):,} bytes or fewer can follow'
            raise ValueError(f'{header.name[:100]} in it has {size:,} bytes: {rule}')
        at = start + -(-size // BLOCK) * BLOCK
        if header.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
            if size > LONGEST:
                raise ValueError(f'a header in it has {size:,} bytes: at most {LONGEST:,} can be')
            content = file.read(size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = content.rstrip(b'\0').decode('utf-8', 'surrogateescape')
            elif header.type == tarfile.XHDTYPE:
                found = re.search(rb'(?:^|\n)\d+ path=([^\n]*)\n', content)
                name = found[1].decode('utf-8', 'surrogateescape') if found else name
        elif header.type != tarfile.GNUTYPE_LONGLINK:
            regular = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
            yield Member(name or header.name, start, size, regular)
            name = ''
