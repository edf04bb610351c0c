"""The CIFAR tutorial's ViT (Keras, Image classification with Vision Transformer), and its recipe.

    vitjax prepare cifar100
    vitjax train vit_cifar100

It has not been trained here; `vit_cifar10`, of the same size, takes about 10 min an epoch on two
CPU cores.

21.8 million parameters on 72-pixel images, batch 256, AdamW at a constant 1e-4, 25 epochs of 175
steps.
"""

from vitjax import Augment, Experiment, Optim, Source
from vitjax.models import ViT

experiment = Experiment(
    model=ViT(
        patch_size=6,
        width=64,
        depth=8,
        num_heads=4,
        head_width=64,
        mlp_ratio=2.0,
        mlp_last_gelu=True,
        num_classes=100,
        dropout=0.1,
        attention_dropout=0.1,
        head_dropout=0.5,
        pool='flatten',
        head=(2048, 1024),
    ),
    data=Source('tfds:cifar100', validation=0.1),
    augment=Augment(size=72, flip=0.5, shift=0.1, contrast=0.1, rotation=0.02, zoom=0.2),
    optim=Optim(peak=1e-4, start=1e-4, end=1e-4, warmup=0.0, decay=1e-3, clip=0.0),
    batch_size=256,
    epochs=25,
)
