r"""A PatchConvNet of 0.9 million parameters on CIFAR-10's own 32 pixels, for two CPU cores.

    vitjax prepare cifar10
    vitjax train patchconvnet_cifar10_small

46 min at the 355 images/s of two otherwise idle CPU cores; the runs themselves shared them. 85.2% ±
0.8 of the test images: mean of seeds 0, 1 and 2 (85.00, 84.98 and 85.55%) and its 95% interval;
99.28% in the top five. The tutorial's recipe, `patchconvnet_cifar10`, publishes 84.59% in 50
epochs.

22 epochs of 351 steps. With patches of 2 pixels and six layers (1.24 million parameters):

    vitjax train patchconvnet_cifar10_small --model.patch-size 2 --model.depth 6 \
        --epochs 24

126 min on two CPU cores, at 149 images/s (the cores of the figures above reached 88): 88.79% of the
test images with seed 0, 99.43% in the top five. With less Cutout in less time (`--augment.cutout
0.25 --epochs 18`, 95 min) it was 87.88%, and fell after 15 epochs.

Muon needs few epochs: after 351 steps 61% of the validation images are right, with AdamW 47%. Its
step takes 1.04 times as long.
"""

from vitjax import Augment, Experiment, Optim, Source
from vitjax.models import PatchConvNet

experiment = Experiment(
    model=PatchConvNet(
        patch_size=4,
        width=128,
        depth=4,
        mlp_ratio=1.0,
        num_classes=10,
        depthwise=False,
        layer_scale=None,
    ),
    data=Source('tfds:cifar10', validation=0.1),
    augment=Augment(size=32, padding=4, flip=0.5, cutout=0.5, smoothing=0.1),
    optim=Optim(name='muon', peak=3e-3, warmup=0.1, decay=0.1, ema=0.998),
    batch_size=128,
    epochs=22,
    attention_every=1,
)
