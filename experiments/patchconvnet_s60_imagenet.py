"""PatchConvNet-S60 on ImageNet-1k (Touvron et al. 2021, arXiv:2112.13692).

    python scripts/prepare.py imagenet --from ARCHIVES
    python scripts/train.py patchconvnet_s60_imagenet

400 epochs of 619 steps. Published: 82.1% top-1 at 224 pixels. It has not been trained here.

What it costs, by `scripts/plan.py patchconvnet_s60_imagenet --target v5e:8x8 h100:8 --images
1268355`: on 64 chips of v5e 79.8 ms a step, 5.5 h in all, and 3.3 GB of each; on 8 H100s 67.5 ms,
4.7 h and 22.4 GB. Memory is compiled; times are estimates, never quite reached, of the devices
alone: hosts have to feed them as fast.

LAMB, which clips at a norm of 1, and binary cross-entropy follow Wightman et al. 2021
(arXiv:2110.00476), the rest DeiT. The
code has LayerScale start at 1e-4 for this size and 1e-6 for the others, and its binary cross-
entropy takes soft targets as they are, where this counts every class that an image has a share of
as present, as the paper and timm do; so there is no label smoothing. The code that was published
trains with stochastic depth 0.1 unless told otherwise, and does not say what this size was told:
0.1 here.
"""

import dataclasses

from cait_xxs24_imagenet import experiment as deit

from vitjax.experiment.optim import Optim
from vitjax.models import named

experiment = dataclasses.replace(
    deit,
    model=named('patchconvnet_s60', drop_path=0.1, dtype='bfloat16'),
    augment=dataclasses.replace(deit.augment, smoothing=0.0),
    optim=Optim(
        name='lamb', peak=3e-3, start=1e-6, end=1e-5, warmup=5 / 400, decay=0.01, clip=1.0
    ),
    loss='binary',
    batch_size=2048,
)  # fmt: skip
