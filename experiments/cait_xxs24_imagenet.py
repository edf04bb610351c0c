"""CaiT-XXS24 on ImageNet-1k (Touvron et al. 2021, arXiv:2103.17239), without distillation.

    vitjax prepare imagenet --from ARCHIVES
    vitjax train cait_xxs24_imagenet

3.9 h on 64 chips of v5e or 4.4 h on 8 H100s, estimated. Published: 77.6% top-1 at 224 pixels. It
has not been trained here.

The estimate is by `scripts/plan.py cait_xxs24_imagenet --target v5e:8x8 h100:8 --images 1268355`. A
step takes 27.9 ms and 0.9 GB of each v5e, or 31.7 ms and 4.3 GB of each H100. Memory is compiled.
Times are of the devices alone and never quite reached; hosts have to feed them as fast.

400 epochs of 1,238 steps. The recipe is DeiT's (Touvron et al. 2020, arXiv:2012.12877), with the
settings of its code that the papers omit: warm-up from 1e-6, a cosine that ends at 1e-5. Paper and
code differ twice. The paper lists a color jitter of 0.3, which the code ignores if RandAugment is
on; so does this. The code evaluates the parameters themselves; this evaluates their moving average.

This differs from both: crops are resized bilinearly, not bicubically; mixup and CutMix draw once
per pair of neighbors, not per batch; 1% of the training images is held out to choose the best
checkpoint.
"""

from vitjax import Augment, Experiment, Optim, Preprocessing, Source
from vitjax.models import named

experiment = Experiment(
    model=named('cait_xxs24', dtype='bfloat16'),
    data=Source('tfds:imagenet2012', validation=0.01),
    augment=Augment(
        size=224, area=0.08, flip=0.5, policy='rand-m9-mstd0.5-inc1', erase=0.25, mixup=0.8,
        cutmix=1.0, smoothing=0.1,
    ),
    preprocessing=Preprocessing(224, 1.0),
    optim=Optim(
        peak=1e-3, start=1e-6, end=1e-5, warmup=5 / 400, decay=0.05, clip=0.0, ema=0.99996
    ),
    batch_size=1024,
    repeats=3,
    epochs=400,
)  # fmt: skip
