"""CaiT-XXS24 on ImageNet-1k (Touvron et al. 2021, arXiv:2103.17239), without distillation.

    python scripts/prepare.py imagenet --from ARCHIVES
    python scripts/train.py cait_xxs24_imagenet

400 epochs of 1,238 steps. Published: 77.6% top-1 at 224 pixels. It has not been trained here.

What it costs, by `scripts/plan.py cait_xxs24_imagenet --target v5e:8x8 h100:8 --images 1268355`: on
64 chips of v5e 27.9 ms a step, 3.9 h in all, and 0.9 GB of each; on 8 H100s 31.7 ms, 4.4 h and 4.3
GB. Memory is compiled; times are estimates, never quite reached, of the devices alone: hosts have
to feed them as fast.

The recipe is DeiT's (Touvron et al. 2020, arXiv:2012.12877), with what the code sets and the papers
do not say: warm-up from 1e-6, a cosine that ends at 1e-5. Where they differ: the code ignores the
colour jitter of 0.3 that the paper lists wherever RandAugment is on, and so does this; it evaluates
the parameters themselves, where this evaluates their moving average. What differs here: crops are
resized bilinearly, not bicubically; mixup and CutMix draw for each pair of neighbours, not for the
batch; 1% of the training images is held out, to choose the best checkpoint by.
"""

from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.optim import Optim
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
