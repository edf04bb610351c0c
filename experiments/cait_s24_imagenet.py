r"""CaiT-S24 on ImageNet-1k (Touvron et al. 2021, arXiv:2103.17239), without distillation.

    vitjax prepare imagenet --from ARCHIVES
    vitjax train cait_s24_imagenet

6.2 h on 64 chips of v5e or 11 h on 8 H100s, estimated. Published: 82.7% top-1 at 224 pixels. It has
not been trained here.

The estimate is by `scripts/plan.py cait_s24_imagenet --target v5e:8x8 h100:8 --images 1268355`. A
step takes 44.8 ms and 2.1 GB of each v5e, or 78.5 ms and 9.4 GB of each H100. Memory is compiled.
Times are of the devices alone and never quite reached; hosts have to feed them as fast.

400 epochs of 1,238 steps. The recipe is that of `cait_xxs24_imagenet`, whose docstring lists the
differences between papers, code and this; stochastic depth is 0.1 instead of 0.05. To go on at 384
pixels:

    vitjax train cait_s24_imagenet --weights runs/cait_s24_imagenet --augment.size 384 \
        --epochs 50 --optim.peak 1e-5 --optim.start 1e-6 --optim.end 1e-6 --out runs/cait_s24_384
"""

import dataclasses

from cait_xxs24_imagenet import experiment as xxs24

from vitjax.models import named

experiment = dataclasses.replace(xxs24, model=named('cait_s24', dtype='bfloat16'))
