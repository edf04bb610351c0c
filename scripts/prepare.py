"""Prepare CIFAR-10 or CIFAR-100, without tensorflow, or make photographs smaller once for all."""

from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.ranges import Side


def main(
    name: Annotated[Positional[Literal['cifar10', 'cifar100', 'shrink']], arg(metavar='NAME')],
    archive: str | None = None, dir: str | None = None,
    source: Annotated[str | None, arg(name='from')] = None, out: str | None = None,
    size: Side = 256,
) -> None:  # fmt: skip
    """Prepare CIFAR for tfds:cifar10 and tfds:cifar100, or shrink the photographs of a folder.

    Args:
        name: cifar10, cifar100, or shrink.
        archive: of CIFAR, the published binary archive (cifar-10-binary.tar.gz); without it,
            downloaded.
        dir: of CIFAR, where TFDS has its prepared data; TFDS_DATA_DIR or ~/tensorflow_datasets
            without it.
        source: of shrink, the folder of images, with folders in it.
        out: of shrink, the folder to write; what is there already is left, so that the same command
            goes on where it was stopped.
        size: of shrink, the short side in pixels.
    """
    from vitjax.console import Console
    from vitjax.data import cifar, shrink

    shown = Console().progress
    if name == 'shrink':
        if source is None or out is None:
            raise ValueError('shrink needs --from FOLDER and --out FOLDER.')
        count = shrink.shrink(source, out, size, progress=shown)
        print(f'{out} has {count:,} images')
        return
    written = cifar.prepare(name, archive=archive, directory=dir, progress=shown)
    print(f'{name} is ready: {written}')


if __name__ == '__main__':
    command.run(main)
