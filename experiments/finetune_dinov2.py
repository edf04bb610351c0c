"""A linear head on a pretrained DINOv2 ViT-S/14: the trunk is frozen, CIFAR-10 at 98 pixels.

    python scripts/train.py finetune_dinov2 --weights dinov2_small.safetensors

Without --weights they come from the Hugging Face hub (`pip install -e '.[hub]'`). Position
embeddings are resampled from 37x37 patches to 7x7; the run says so.
"""

from vitjax import models
from vitjax.data.augment import Augment
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.optim import Optim

experiment = Experiment(
    model=models.named('vit_small_patch14_dinov2', num_classes=10),
    data=Source('tfds:cifar10'),
    augment=Augment(size=98, flip=0.5),
    optim=Optim(peak=1e-3, warmup=0.1, decay=0.0, train='head.*'),
    batch_size=128,
    epochs=3,
    weights='hf-hub:facebook/dinov2-small',
)
