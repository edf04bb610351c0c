"""The CIFAR tutorial's ViT and recipe on CIFAR-10; see vit_cifar100.

    python scripts/prepare.py cifar10
    python scripts/train.py vit_cifar10
    python scripts/ablate.py vit_cifar10 --match flops

Two epochs (`--epochs 2`) reach 45.5% on the test images, at 39 images/s on two CPU cores. It has
not been trained in full yet.
"""

import dataclasses

from vit_cifar100 import experiment as cifar100

from vitjax.data.sources import Source

experiment = dataclasses.replace(
    cifar100,
    model=cifar100.model.clone(num_classes=10),
    data=Source('tfds:cifar10', validation=0.1),
)


def grid():
    """The tutorial's question: what patches of half and of twice the side cost, and bring."""
    return {'model.patch_size': (3, 6, 12)}
