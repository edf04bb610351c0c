"""The CIFAR tutorial's PatchConvNet (Keras, Augmenting convnets with aggregated attention).

    vitjax prepare cifar10
    vitjax train patchconvnet_cifar10

122 min for `--epochs 20`, the whole schedule in 20 epochs, on two CPU cores at a median of 115
images/s: 82.74% of the test images with seed 0, 98.98% in the top five. The tutorial publishes
84.59% top-1 and 99.21% top-5 after 50 epochs, which would take five hours there and have not been
trained.

2.2 million parameters on 48-pixel crops of 52-pixel images, batch 128, 50 epochs of 312 steps;
10,000 of the training images are held out. After 20 epochs 94.2% of the augmented training images
are right, and 82.8% of the validation images.
"""

from vitjax import Augment, Experiment, Optim, Source
from vitjax.models import PatchConvNet

experiment = Experiment(
    model=PatchConvNet(
        patch_size=4,
        width=256,
        depth=2,
        mlp_ratio=1.0,
        num_classes=10,
        stem_bias=True,
        stem_last_gelu=True,
        depthwise=False,
        se_ratio=8,
        se_bias=False,
        layer_scale=None,
        dropout=0.2,
        attention_dropout=0.2,
    ),
    data=Source('tfds:cifar10', validation=0.2),
    augment=Augment(size=48, enlarge=52, flip=0.5),
    optim=Optim(peak=1e-3, warmup=0.15, decay=1e-4, clip=0.0),
    batch_size=128,
    epochs=50,
    attention_every=10,
)
