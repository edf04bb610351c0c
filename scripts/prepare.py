"""Prepare CIFAR-10, CIFAR-100 or ImageNet, without tensorflow, or shrink photographs."""

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

    After a stop the same command continues.

    Args:
        name: cifar10, cifar100, imagenet, or shrink.
        archive: CIFAR's published binary archive (cifar-10-binary.tar.gz); by default it is
            downloaded.
        dir: folder of TFDS's prepared data; by default TFDS_DATA_DIR or ~/tensorflow_datasets.
        source: for imagenet, folder with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or
            with folders train and val; for shrink, folder of images, nested or not.
        out: folder that shrink writes. Another --from or --size needs another folder.
        size: short side in pixels of the images that shrink writes.
    """
    from vitjax.base.console import Console
    from vitjax.data.prepare import cifar, imagenet, records, shrink

    shown = Console().progress
    if name == 'shrink':
        if source is None or out is None:
            raise ValueError('shrink needs --from FOLDER and --out FOLDER.')
        count = shrink.shrink(source, out, size, progress=shown)
        return print(f'{out} has {count:,} images')
    if name == 'imagenet' and source is None:
        raise ValueError('imagenet needs --from FOLDER, with the published archives in it.')
    try:
        if name == 'imagenet':
            written = imagenet.prepare(source, dir, progress=shown)
        else:
            written = cifar.prepare(name, archive=archive, directory=dir, progress=shown)
    except records.AlreadyPrepared as there:  # which is what was asked for
        return print(there)
    print(f'tfds:{name.replace("imagenet", "imagenet2012")} is ready: {written}')


if __name__ == '__main__':
    command.run(main)
