r"""CaiT-S24 on ImageNet-1k (Touvron et al. 2021, arXiv:2103.17239), without distillation.

    python scripts/prepare.py imagenet --from ARCHIVES
    python scripts/train.py cait_s24_imagenet

400 epochs of 1,238 steps. Published: 82.7% top-1 at 224 pixels. It has not been trained here.

What it costs, by `scripts/plan.py cait_s24_imagenet --target v5e:8x8 h100:8 --images 1268355`: on
64 chips of v5e 44.8 ms a step, 6.2 h in all, and 2.1 GB of each; on 8 H100s 78.5 ms, 11 h and 9.4
GB. Memory is compiled; times are estimates, never quite reached, of the devices alone: hosts have
to feed them as fast.

The recipe is that of cait_xxs24_imagenet, whose docstring says where papers, code and this differ;
stochastic depth is 0.1 instead of 0.05. To go on at 384 pixels:

    python scripts/train.py cait_s24_imagenet --weights runs/cait_s24_imagenet --augment.size 384 \
        --epochs 50 --optim.peak 1e-5 --optim.start 1e-6 --optim.end 1e-6 --out runs/cait_s24_384
"""

import dataclasses

from cait_xxs24_imagenet import experiment as xxs24

from vitjax.models import named

experiment = dataclasses.replace(xxs24, model=named('cait_s24', dtype='bfloat16'))
