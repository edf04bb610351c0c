"""Smaller copies of photographs, so that every later training decodes less."""

import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from vitjax.base.files import irregular, read_json, write_json, writing
from vitjax.data import images
from vitjax.data.images import SUFFIXES
from vitjax.data.kinds.accounting import OURS, Accounting
from vitjax.data.paths import expanded
from vitjax.data.prepare import silent

QUALITY = 95  # of the JPEGs written
SOME = 4096  # files submitted to the threads at a time
LINKS = 4  # in one path; no data set needs as many
(RECORD,) = OURS  # a JSON file in `out`: the settings of its images


def shrink(
    source: str | pathlib.Path, out: str | pathlib.Path, size: int = 256, *,
    progress: Callable[..., Any] = silent, report: Callable[[str], object] = print,
) -> int:  # fmt: skip
    """Writes all images of a folder, and of those in it, as JPEGs with a short side of `size`.

    Folders and names stay; names of other files than JPEGs get a `.jpg`. JPEGs that are small
    enough are copied. Links in the source are followed; hidden files and folders are not read.
    Each image is written in one step and takes its source's time of change: the same command
    continues after a kill, and makes no image twice.

    Args:
        source: the folder.
        out: the folder to write, outside the other.
        size: short side in pixels.
        progress: as in `vitjax.data.prepare.cifar.prepare`.
        report: called with a line about files that are not read, if there are any.

    Returns:
        Number of source images, all of which are now in `out`.

    Raises:
        ValueError: if `source` is not a folder or has no images; two images would get one name;
            `out` is inside of `source`, has links, or images that this command did not write with
            the same `source` and `size`; or an image cannot be read. The message has the name.
    """
    source, out = expanded(source), expanded(out)
    if size < 2:
        raise ValueError(f'--size must be 2 or more: {size}.')  # no reader takes one pixel
    if not source.is_dir():
        raise ValueError(f'--from must name a folder of images: {source} is none.')
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f'--out must lie outside of --from: {out} lies in {source}.')
    if out.exists() and not out.is_dir():
        raise ValueError(f'--out must name a folder: {out} is none.')
    unread = Accounting()
    files = sorted(_images(source, os.path.realpath(out), unread))
    if not files:
        raise ValueError(f'there are no images ({", ".join(SUFFIXES)}) in {source}.')
    if said := unread.counts():
        report(f'{source}: {said}')
    settings = {'size': size, 'from': os.path.realpath(source), 'quality': QUALITY}
    pairs = [*zip(files, _targets(source, out, files), strict=True)]
    begun = _begun(out, settings)
    todo = [pair for pair in pairs if not _done(*pair, begun)]
    if not begun:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, settings)

    def write(pair: tuple[pathlib.Path, pathlib.Path]) -> None:
        _write(*pair, size)

    with progress('images', len(files)) as show:
        before = len(files) - len(todo)
        for start in range(0, len(todo), SOME):
            written = images.THREADS.map(write, todo[start : start + SOME])
            for done, _ in enumerate(written, before + start + 1):
                show(done)
    return len(files)


def _images(source: pathlib.Path, out: str, files: Accounting) -> Iterator[pathlib.Path]:
    """Yields the image files of a folder and of those in it; counts the other files by kind.

    Args:
        source: the folder.
        out: real path of the folder to write.
        files: counts of other files.
    """
    waiting: list[tuple[pathlib.Path, tuple[str, ...], int]] = [(source, (), 0)]
    while waiting:
        folder, above, links = waiting.pop()  # with its parents' real paths, and links passed
        real = os.path.realpath(folder)
        if real in above:  # a link back
            continue
        if links > LINKS:  # folders that link to each other have a path for each permutation
            raise ValueError(f'a folder must lie behind {LINKS} links or fewer: {folder}.')
        if pathlib.Path(real).is_relative_to(out):
            raise ValueError(f'--out must lie outside of --from: {folder} leads to {out}.')
        folders, names = files.entries(folder)
        for path in map(folder.joinpath, folders):
            waiting.append((path, (*above, real), links + path.is_symlink()))
        yield from map(folder.joinpath, names)


def _targets(
    source: pathlib.Path, out: pathlib.Path, files: Sequence[pathlib.Path]
) -> list[pathlib.Path]:
    """The file in `out` for each image, all different, and none below a link."""
    owner: dict[pathlib.Path, pathlib.Path] = {}
    folders: dict[pathlib.Path, pathlib.Path] = {}
    for file in files:
        target = out / file.relative_to(source)
        if not _is_jpeg(file):
            target = target.with_name(f'{target.name}.jpg')
        if (other := owner.setdefault(target, file)) != file:
            raise ValueError(f'{other} and {file} would both be {target}: rename one of them.')
        for folder in target.parents:
            if folder == out or folder in folders:
                break
            folders[folder] = file
    for folder, file in folders.items():
        if folder in owner:
            rule = f'{folder} would be an image and the folder of another'
            raise ValueError(f'{rule}: rename {owner[folder]} or the folder of {file}.')
        if folder.is_symlink():
            raise ValueError(f'--out must hold no links: {folder} is one.')
    return [*owner]


def _is_jpeg(file: pathlib.Path) -> bool:
    return file.suffix.lower() in ('.jpg', '.jpeg')


def _begun(out: pathlib.Path, settings: dict[str, Any]) -> bool:
    """Returns True if `out` was begun with these settings, False if it was not begun.

    Raises:
        ValueError: if it was begun with others.
    """
    try:
        known = read_json(out / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return False
    for name, value in settings.items():
        if (before := known.get(name)) != value:
            rule = f'{out} has images made with {name} {before}'
            raise ValueError(f'{rule}: {name} is {value} now; choose another --out.')
    return True


def _done(file: pathlib.Path, target: pathlib.Path, begun: bool) -> bool:
    """Returns True if an image is written already."""
    try:
        there = target.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(there.st_mode):
        raise ValueError(f'--out must hold no links: {target} is one.')
    if not begun or not stat.S_ISREG(there.st_mode):
        what = f'{irregular(target) or "a file"} that this command did not write'
        raise ValueError(f'{what} is where {file} goes: {target}.')
    if not _as_kept(there.st_mtime_ns, file.stat().st_mtime_ns):
        rule = f'{target} or {file} has changed since the one was made of the other'
        raise ValueError(f'{rule}: delete {target} to have it made anew.')
    return True


def _as_kept(kept: int, time: int) -> bool:
    """Returns True if a file system may have stored a time, in nanoseconds, as `kept`."""
    # ext4 keeps all digits, NTFS steps of 100 ns, exFAT of 10 ms, FAT of 2 s.
    return any(kept == time // step * step for step in (1, 100, 1_000, 10**7, 10**9, 2 * 10**9))


def _write(file: pathlib.Path, target: pathlib.Path, size: int) -> None:
    time = file.stat().st_mtime_ns  # taken before reading, so that a later change shows
    pixels = images.read(file, short_side=size)
    sides = pixels.shape[1::-1]
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target) as draft:
        if _is_jpeg(file) and min(sides) <= size and images.size(file) == sides:
            draft.write(file.read_bytes())
        else:
            scale = min(1.0, size / min(sides))
            wide, high = (max(1, round(side * scale)) for side in sides)
            small = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC)
            small.save(draft, 'JPEG', quality=QUALITY)
        draft.flush()
        os.utime(draft.name, ns=(time, time))
