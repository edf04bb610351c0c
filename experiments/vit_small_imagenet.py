"""The plain ViT-S/16 baseline on ImageNet-1k (Beyer et al. 2022, arXiv:2205.01580).

    vitjax prepare imagenet --from ARCHIVES
    vitjax train vit_small_imagenet
    vitjax train vit_small_imagenet --epochs 300 --optim.warmup 0.0267

42 min on 64 chips of v5e or 30 min on 8 H100s for 90 epochs, estimated. Published: 76.5% top-1
after 90 epochs, 80% after 300. It has not been trained here.

The estimate is by `scripts/plan.py vit_small_imagenet --target v5e:8x8 h100:8 --images 1268355`. A
step takes 22.5 ms and 0.8 GB of each v5e, or 16.1 ms and 3.8 GB of each H100. Memory is compiled.
Times are of the devices alone and never quite reached; hosts have to feed them as fast.

90 epochs of 1,238 steps, of which 10,000 warm up, as many as in the 300 epochs of the last command.
Where the paper is silent, its code decides (big_vision, `configs/vit_s16_i1k.py`). The decay of
1e-4 follows the schedule but not the peak, which is `decay` 0.1 here. A crop covers at least 5% of
an image. 1% of the training images is held out.

Differences: the head is linear, the code's has a hidden layer (the paper finds no difference);
Cutout is not among RandAugment's operations; mixup draws a strength per pair of neighbors, not per
batch.
"""

from vitjax import Augment, Experiment, Optim, Preprocessing, Source
from vitjax.models import ViT

experiment = Experiment(
    model=ViT(
        patch_size=16, width=384, depth=12, num_heads=6, pool='mean', position='sincos',
        dtype='bfloat16',
    ),
    data=Source('tfds:imagenet2012', validation=0.01),
    augment=Augment(size=224, area=0.05, flip=0.5, policy='rand-m10-n2-p1', mixup=0.2),
    preprocessing=Preprocessing(224, 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    optim=Optim(peak=1e-3, warmup=0.0898, decay=0.1, clip=1.0, moment='bfloat16'),
    batch_size=1024,
    epochs=90,
)  # fmt: skip
