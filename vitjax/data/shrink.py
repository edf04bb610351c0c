"""Photographs made smaller once, so that every training after that decodes less."""

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from PIL import Image

from vitjax.data import images
from vitjax.data.cifar import unseen
from vitjax.data.folder import SUFFIXES
from vitjax.files import DRAFT, expanded

QUALITY = 95  # of the JPEGs written
SOME = 4096  # files that threads are given at a time


def shrink(
    source: str | pathlib.Path, out: str | pathlib.Path, size: int = 256, *,
    progress: Callable[..., Any] = unseen,
) -> int:  # fmt: skip
    """Writes all images of a folder, and of those in it, as JPEGs with a short side of `size`.

    Folders and names stay, and `.jpg` is added to names of other files than JPEGs. JPEGs that are
    as small already are copied. Files that are there already are left, each written in one step:
    what was killed goes on where it stopped.

    Args:
        source: the folder.
        out: the folder to write, outside the other.
        size: in pixels.
        progress: as in `vitjax.data.cifar.prepare`.

    Returns:
        How many images `out` has of `source` then.

    Raises:
        ValueError: for a folder that is none or has no images, an `out` inside it, and an image
            that cannot be read, by name.
    """
    source, out = expanded(source), expanded(out)
    if not source.is_dir():
        raise ValueError(f'--from must name a folder of images: {source} is none.')
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f'--out must lie outside of --from: {out} lies in {source}.')
    files = sorted(p for p in source.rglob('*') if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f'there are no images ({", ".join(SUFFIXES)}) in {source}.')

    def write(file: pathlib.Path) -> None:
        target = out / file.relative_to(source)
        jpeg = file.suffix.lower() in ('.jpg', '.jpeg')
        target = target if jpeg else target.with_name(f'{target.name}.jpg')
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + DRAFT)
        pixels = images.read(file, short_side=size)
        sides = pixels.shape[1::-1]
        if jpeg and min(sides) <= size and images.size(file) == sides:
            shutil.copyfile(file, draft)
        else:
            scale = min(1.0, size / min(sides))
            wide, high = (max(1, round(side * scale)) for side in sides)
            small = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC)
            small.save(draft, 'JPEG', quality=QUALITY)
        os.replace(draft, target)

    with progress('images', len(files)) as show:
        for start in range(0, len(files), SOME):
            written = images.THREADS.map(write, files[start : start + SOME])
            for done, _ in enumerate(written, start + 1):
                show(done)
    return len(files)
