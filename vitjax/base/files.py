"""Files and folders written in one step, with a digest; damage is reported by the file's name.

Digests protect against disks, kills and accidents, not against people: a file and its digest that
were both changed by hand are accepted.

A file or folder is written as a draft beside its place and then renamed. A draft's name is a random
token and the token's hash, which no other file has by accident. Its writer locks it until the end:
a draft without a lock was left by a killed process.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Literal

Path = str | pathlib.Path
DIGEST = 'digest'  # field of a JSON file with the hash of the others
DRAFT = '.vitjax-draft'  # suffix of files and folders that are being written
CHECK = 'check'  # field of a line of JSON with the CRC-32 of the others


def first_line(error: BaseException) -> str:
    """An error's message in one line without its full stop; its type if it has no message."""
    text = str(error).strip().splitlines()
    return text[0][:200].rstrip('.') if text else type(error).__name__


def few(lines: Sequence[str]) -> str:
    """Lines for a message: up to nine, or the first three and the number of the others."""
    return '\n'.join(lines if len(lines) < 10 else [*lines[:3], f'and {len(lines) - 3:,} more'])


def warn(text: str) -> None:
    """Prints a line on stderr about a fault that is mended."""
    print(f'warning: {text}', file=sys.stderr)


def inside(folder: Path, name: Path) -> pathlib.Path:
    """`folder / name`, for names that were read from a file, and links made by others.

    Raises:
        ValueError: if it leads out of the folder, by `..`, as an absolute path or through a link.
    """
    path = pathlib.Path(folder) / name
    if not pathlib.Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f'{path} leads out of {folder}.')
    return path


def irregular(path: Path) -> str:
    """The kind of what is not a regular file, for a message; empty for a regular one.

    To open a pipe would wait for its writer, and a device may never end.

    Raises:
        FileNotFoundError: if there is nothing.
    """
    mode = os.stat(path).st_mode
    kinds = {stat.S_IFDIR: 'a directory', stat.S_IFIFO: 'a pipe', stat.S_IFSOCK: 'a socket'}
    return '' if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), 'a device')


def is_empty(folder: Path) -> bool:
    """Returns True if a folder is missing, or holds nothing but drafts of this package."""
    folder = pathlib.Path(folder)
    drafts = folder.is_dir() and all(_is_draft(path.name) for path in folder.iterdir())
    return drafts or not folder.exists()


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


# ---- Writing -----------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(
    path: Path, mode: Literal['wb', 'w'] = 'wb', *, newline: str | None = None
) -> Iterator[IO[Any]]:
    """Opens a draft, which becomes the file `path` when the block ends without an error.

    A reader sees the old file or the new one, whole; after an error, the old one. A link at `path`
    is replaced, and what it leads to stays. The draft's own path is the `name` of the open file,
    for writers that take a path.

    Args:
        path: the file to write, in a folder that exists.
        mode: `wb`, or `w` for text in UTF-8.
        newline: as in `open`.

    Raises:
        OSError: naming `path`, if it cannot be written or something other than a file is there.
    """
    path = pathlib.Path(path)
    if path.exists() and (kind := irregular(path)):  # a rename would replace a device, too
        raise OSError(f'a file cannot be written where there is {kind}: {path}')
    _sweep_once(path.parent.absolute())
    with _draft(path, folder=False) as (draft, descriptor):
        # The descriptor itself stays open, and the draft locked, until it is renamed.
        raw = _PythonFile(draft, 'w', opener=lambda *_: os.dup(descriptor))
        binary: Any = io.BufferedWriter(raw)
        with binary if mode == 'wb' else io.TextIOWrapper(binary, 'utf-8', newline=newline) as file:
            yield file
        os.fsync(descriptor)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[pathlib.Path]:
    """Makes a draft folder, which becomes the folder `path` when the block ends without an error.

    Folders above it are made. An error leaves `path` as it was.

    Args:
        path: the folder to write: missing, or empty.

    Raises:
        OSError: naming `path`, if it cannot be written or something is there.
    """
    path = pathlib.Path(os.path.realpath(path))  # users may link to an empty folder
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, path):
        sweep(folder)
    with _draft(path, folder=True) as (draft, _):
        yield draft


@contextlib.contextmanager
def _draft(path: pathlib.Path, *, folder: bool) -> Iterator[tuple[pathlib.Path, int]]:
    """Makes a locked draft of `path`, renamed after the block and removed after an error."""
    with contextlib.ExitStack() as end:
        try:
            draft, descriptor = _new_draft(path.parent, folder=folder)
            end.callback(os.close, descriptor)
            end.callback(_remove, draft)  # does nothing once it is renamed
            yield draft, descriptor
            draft.rename(path)  # replaces a file or an empty folder, nothing else
        except OSError as error:
            raise _naming(path, error) from None


def _remove(draft: pathlib.Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    with contextlib.suppress(OSError):
        draft.unlink()


@contextlib.contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps other processes out of a folder; the lock ends with the process, however it ends.

    Raises:
        ValueError: with the text of `refusal`, if another process is in it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not all network file systems have locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(refusal) from None
        yield
    finally:
        os.close(descriptor)


class _PythonFile(io.FileIO):
    """A file that is written through Python alone.

    Pillow writes JPEGs into the descriptor itself, and ignores that a full disk cuts them short.
    """

    def fileno(self) -> int:
        """Hides the descriptor."""
        raise io.UnsupportedOperation('fileno')


def sweep(folder: Path) -> None:
    """Removes the drafts that killed processes left in a folder; everything else stays."""
    with contextlib.suppress(OSError):
        for draft in [p for p in pathlib.Path(folder).iterdir() if _is_draft(p.name)]:
            with contextlib.suppress(OSError):  # a link, or the lock of a process at work
                _remove_unlocked(draft)


def _remove_unlocked(draft: pathlib.Path) -> None:
    if draft.is_dir() or draft.is_file():  # to open a pipe would wait for its writer
        # A lock on NFS needs a file that is open for writing.
        mode = os.O_RDONLY if draft.is_dir() else os.O_RDWR
        descriptor = os.open(draft, mode | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(draft)
        finally:
            os.close(descriptor)


@functools.lru_cache(maxsize=1024)
def _sweep_once(folder: pathlib.Path) -> None:
    """Sweeps a folder once a process: a listing for each image written would take longer."""
    sweep(folder)


_NAME = re.compile(rf'\.([0-9a-f]{{16}})([0-9a-f]{{8}}){re.escape(DRAFT)}')


def _is_draft(name: str) -> bool:
    """Returns True if `_new_draft` made a name: it has a token and the token's hash."""
    found = _NAME.fullmatch(name)
    return found is not None and found[2] == _seal(found[1])


def _seal(token: str) -> str:
    return hashlib.sha256(f'{token}{DRAFT}'.encode()).hexdigest()[:8]


def _new_draft(parent: pathlib.Path, *, folder: bool) -> tuple[pathlib.Path, int]:
    """A new draft in a folder and its open, locked descriptor."""
    mode = os.O_DIRECTORY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
    while True:
        token = secrets.token_hex(8)  # the target's own name may be of the greatest length
        draft = parent / f'.{token}{_seal(token)}{DRAFT}'
        try:
            if folder:
                draft.mkdir()
            descriptor = os.open(draft, mode | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            if parent.is_dir():
                continue
            raise
        with contextlib.suppress(OSError):  # not all network file systems have locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if draft.exists():  # else another process swept it before it was locked
            return draft, descriptor
        os.close(descriptor)


def _naming(path: pathlib.Path, error: OSError) -> OSError:
    """The same error with the name of the file or folder that the draft was to become."""
    if error.errno is None:
        return error
    name = os.fsdecode(path if error.filename is None else error.filename)
    return OSError(error.errno, error.strerror, _NAME.sub(lambda _: path.name, name))


def replace(path: Path, text: str) -> None:
    """Writes a text file in one step, as `writing` does.

    Raises:
        OSError: naming the file; the old one is then still there.
    """
    with writing(path, 'w') as file:
        file.write(text)


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


@contextlib.contextmanager
def reading(
    path: object = None, errors: type[Exception] | tuple[type[Exception], ...] = OSError
) -> Iterator[None]:
    """Turns errors of the block into a ValueError that names a file.

    Args:
        path: the file; None takes the name from the OSError.
        errors: types of the errors.
    """
    try:
        yield
    except errors as error:
        name = getattr(error, 'filename', None) if path is None else path
        reason = getattr(error, 'strerror', None) or first_line(error)
        raise ValueError(f'{name} cannot be read: {reason}.') from None


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Prepends a file's name to the message of a ValueError of the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, without its digest, which it may lack.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no JSON object, or differs from its digest.
    """
    with reading(path, (ValueError, RecursionError)):
        values = json.loads(pathlib.Path(path).read_bytes())
    if not isinstance(values, dict):
        raise ValueError(f'{path} must hold a JSON object: it holds a {type(values).__name__}.')
    known = values.pop(DIGEST, None)
    if known is not None and known != _digest_of(values):
        advice = f'if you changed it, delete its last field, "{DIGEST}"'
        raise ValueError(f'{path} has changed since it was written; {advice}.')
    return values


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The intact records of a file of JSON lines, and the numbers, from 1, of damaged lines.

    A line may lack its check. A missing file has no lines.
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
