"""A small CaiT on CIFAR-10: talking heads and class attention at 32 pixels.

    vitjax prepare cifar10
    vitjax train cait_cifar10

About an hour for `--epochs 3 --augment.mixup 0 --augment.cutmix 0` on two CPU cores, at 42
images/s: 52.6% of the test images. The whole recipe has not been trained yet.

2.9 million parameters, 4-pixel patches, mixup and CutMix, 100 epochs of 351 steps.
"""

from vitjax import Augment, Experiment, Optim, Source
from vitjax.models import CaiT

experiment = Experiment(
    model=CaiT(
        patch_size=4,
        width=192,
        depth=12,
        num_heads=4,
        mlp_ratio=2.0,
        num_classes=10,
        layer_scale=1e-2,
        drop_path=0.05,
    ),
    data=Source('tfds:cifar10'),
    augment=Augment(
        size=32, padding=4, flip=0.5, brightness=0.1, contrast=0.2, mixup=0.2, cutmix=1.0,
        smoothing=0.1,
    ),
    optim=Optim(peak=1e-3, warmup=0.1, decay=0.05),
    batch_size=128,
    epochs=100,
    attention_every=10,
)  # fmt: skip
