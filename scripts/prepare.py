"""Prepare CIFAR-10 or CIFAR-100 for `tfds:cifar10` and `tfds:cifar100`, without tensorflow."""

from typing import Annotated

import command
from tyro.conf import Positional, arg


def main(
    name: Annotated[Positional[str], arg(metavar='NAME')], archive: str | None = None,
    dir: str | None = None,
) -> None:  # fmt: skip
    """Prepare CIFAR-10 or CIFAR-100 for tfds:cifar10 and tfds:cifar100, without tensorflow.

    Args:
        name: cifar10 or cifar100.
        archive: the published binary archive (cifar-10-binary.tar.gz); without it, downloaded.
        dir: where TFDS has its prepared data; TFDS_DATA_DIR or ~/tensorflow_datasets without it.
    """
    from vitjax.console import Console
    from vitjax.data import cifar

    shown = Console().progress
    written = cifar.prepare(name, archive=archive, directory=dir, progress=shown)
    print(f'{name} is ready: {written}')


if __name__ == '__main__':
    command.run(main)
