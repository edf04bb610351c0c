"""Prepare CIFAR-10, CIFAR-100 or ImageNet, without tensorflow, or make photographs smaller."""

from typing import Annotated, Literal

import command
from tyro.conf import Positional, arg

from vitjax.base.ranges import Side

Name = Literal['cifar10', 'cifar100', 'imagenet', 'shrink']


def main(
    name: Annotated[Positional[Name], arg(metavar='NAME')],
    archive: str | None = None, dir: str | None = None,
    source: Annotated[str | None, arg(name='from')] = None, out: str | None = None,
    size: Side = 256,
) -> None:  # fmt: skip
    """Prepare data for tfds:cifar10, tfds:cifar100 and tfds:imagenet2012, or shrink photographs.

    Args:
        name: cifar10, cifar100, imagenet, or shrink.
        archive: the published binary archive of CIFAR (cifar-10-binary.tar.gz); downloaded without
            it.
        dir: folder of TFDS's prepared data; TFDS_DATA_DIR or ~/tensorflow_datasets without it.
        source: for imagenet, the folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar,
            or with folders train and val; for shrink, the folder of images, with folders in it.
        out: the folder that shrink writes. After a stop the same command continues; another --from
            or --size needs another folder.
        size: the short side in pixels that shrink writes.
    """
    from vitjax.base.console import Console
    from vitjax.data.prepare import cifar, imagenet, shrink

    shown = Console().progress
    if name == 'imagenet':
        if source is None:
            raise ValueError('imagenet needs --from FOLDER, with the published archives in it.')
        written = imagenet.prepare(source, dir, progress=shown)
        print(f'tfds:imagenet2012 is ready: {written}')
        return
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
