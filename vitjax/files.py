"""Files of ours: written whole, with a digest, and read so that damage is a line with their name.

What a digest cannot tell from its file (both changed by hand) is taken as it is: digests are
against disks, kills and accidents, not against people.
"""

import hashlib
import json
import os
import pathlib
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitjax.types import DType

Path = str | pathlib.Path
DIGEST = 'digest'  # the field of a JSON file that says what the other fields hash to
DRAFT = '.draft'  # how the name of a file ends that `replace` is writing
CHECK = 'check'  # the field of a line of JSON with the CRC-32 of the others


def first_line(error: BaseException) -> str:
    """What an error says, in one line without its full stop: its type's name where it is silent."""
    text = str(error).strip().splitlines()
    return text[0][:200].rstrip('.') if text else type(error).__name__


def warn(text: str) -> None:
    """Says on stderr what was wrong and is mended, in one line."""
    print(f'warning: {text}', file=sys.stderr)


def inside(folder: Path, name: Path) -> pathlib.Path:
    """`folder / name`, for names that come out of a file and links that anybody may have made.

    Raises:
        ValueError: if it leads out of the folder, by `..`, as an absolute path or through a link.
    """
    path = pathlib.Path(folder) / name
    if not pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f'{path} leads out of {folder}.')
    return path


def expanded(path: Path) -> pathlib.Path:
    """A path as a user writes it, with `~` and `~user` for home folders.

    Raises:
        ValueError: if nobody knows the home folder.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        first = pathlib.Path(path).parts[0]
        raise ValueError(f'{path}: {first} must be a home folder that is known here.') from None


def is_empty(folder: Path) -> bool:
    """Whether a folder is not there, or has nothing but what a killed `replace` left."""
    folder = pathlib.Path(folder)
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name.endswith(DRAFT) for path in folder.iterdir())


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


# ---- Writing -----------------------------------------------------------------------------------


def replace(path: Path, text: str) -> None:
    """Writes a text file in one step: whoever reads sees the old one or the new one, whole.

    Raises:
        OSError: naming the file; the old one is then still there.
    """
    path = pathlib.Path(path)
    draft = path.with_name(path.name + DRAFT)
    try:
        draft.unlink(missing_ok=True)  # a link put there is not followed
        with draft.open('x') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        if not draft.is_dir():
            draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object with its own digest as its last field, in one step."""
    sealed = {**values, DIGEST: _digest_of(values)}
    replace(path, json.dumps(sealed, indent=1) + '\n')


def line(record: Mapping[str, Any]) -> str:
    """A record as a line of JSON that carries its check."""
    return json.dumps({**record, CHECK: _check_of(record)}) + '\n'


def _digest_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_of(record: Mapping[str, Any]) -> str:
    return f'{zlib.crc32(json.dumps(record).encode()):08x}'


# ---- Reading -----------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, without its digest; one that has none is taken as it is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON object, or not what its digest says.
    """
    try:
        values = json.loads(pathlib.Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} cannot be read: {first_line(error)}.') from None
    if not isinstance(values, dict):
        raise ValueError(f'{path} must hold a JSON object: it holds a {type(values).__name__}.')
    known = values.pop(DIGEST, None)
    if known is not None and known != _digest_of(values):
        raise ValueError(
            f'{path} has changed since it was written; if you changed it, delete its last field, '
            f'"{DIGEST}".'
        )
    return values


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The records of a file of JSON lines that are whole, and the numbers of the lines that aren't.

    A line without a check is taken as it is; a file that is not there has none. Lines count from 1.
    """
    try:
        lines = pathlib.Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return [], []
    records, broken = [], []
    for number, text in enumerate(lines, 1):
        try:
            record = json.loads(text)
            check = record.pop(CHECK, None)
            if check is not None and check != _check_of(record):
                raise ValueError
        except (ValueError, RecursionError, AttributeError, TypeError):
            broken.append(number)
        else:
            records.append(record)
    return records, broken


def array(path: Path, shape: tuple[int, ...] | None = None, dtype: DType = None) -> np.ndarray:
    """A `.npy` as a memory map to read, after its header was held against the size of the file.

    Args:
        path: the file.
        shape: what it must be; None takes any.
        dtype: likewise.

    Raises:
        ValueError: if there is no such file, it is no whole array of numbers, or of another kind.
    """
    try:
        with open(path, 'rb') as file:
            found = npy_header(file)
            size, needed = os.fstat(file.fileno()).st_size, file.tell() + _bytes(*found)
    except Exception as error:  # of numpy's parsing of a header anything may come
        reason = first_line(error) if not isinstance(error, OSError) else error.strerror
        raise ValueError(f'{path} is no whole array of numbers: {reason}.') from None
    if size != needed:
        raise ValueError(f'{path} must have {needed:,} bytes, by its header: it has {size:,}.')
    wanted = found[0] if shape is None else shape, found[1] if dtype is None else np.dtype(dtype)
    if found != wanted:
        said = [f'{kind} of {list(sides)}' for sides, kind in (wanted, found)]
        raise ValueError(f'{path} must be {said[0]}: it is {said[1]}.')
    return np.load(path, mmap_mode='r' if _bytes(*found) else None, allow_pickle=False)


def npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that the header of an open `.npy` says; what follows is the array.

    Raises:
        ValueError: for anything but numbers and text. Numpy may raise others.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f'its header is of version {version}')
    shape, _, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError('Object arrays cannot be loaded when allow_pickle=False')
    return shape, dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    out = dtype.itemsize
    for side in shape:  # as Python's integers, which do not overflow
        out *= side
    return out
