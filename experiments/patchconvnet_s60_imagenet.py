"""PatchConvNet-S60 on ImageNet-1k (Touvron et al. 2021, arXiv:2112.13692).

    vitjax prepare imagenet --from ARCHIVES
    vitjax train patchconvnet_s60_imagenet

5.5 h on 64 chips of v5e or 4.7 h on 8 H100s, estimated. Published: 82.1% top-1 at 224 pixels. It
has not been trained here.

The estimate is by `scripts/plan.py patchconvnet_s60_imagenet --target v5e:8x8 h100:8 --images
1268355`. A step takes 79.8 ms and 3.3 GB of each v5e, or 67.5 ms and 22.4 GB of each H100. Memory
is compiled. Times are of the devices alone and never quite reached; hosts have to feed them as
fast.

400 epochs of 619 steps. LAMB, which clips at a norm of 1, and binary cross-entropy follow Wightman
et al. 2021 (arXiv:2110.00476), the rest DeiT. In the code LayerScale starts at 1e-4 for this size
and 1e-6 for the others. The code's binary cross-entropy takes soft targets unchanged. Here, as in
the paper and timm, every class of which an image has a fraction counts as present, so there is no
label smoothing. The published code trains with stochastic depth 0.1 unless told otherwise, and does
not state this size's: 0.1 here.
"""

import dataclasses

from cait_xxs24_imagenet import experiment as deit

from vitjax import Optim
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
