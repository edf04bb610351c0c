"""A linear head on a pretrained DINOv2 ViT-S/14: the trunk is frozen, CIFAR-10 at 98 pixels.

    vitjax train finetune_dinov2 --weights dinov2_small.safetensors

3 epochs; no run of it is recorded here. A linear probe of the same features reached 76.3% of the
test images (`similarity.py --probe`, experiments/README.md).

Without --weights they come from the Hugging Face hub (`pip install -e '.[hub]'`). Position
embeddings are resampled from 37x37 patches to 7x7, which the run prints.
"""

from vitjax import Augment, Experiment, Optim, Source
from vitjax.models import named

experiment = Experiment(
    model=named('vit_small_patch14_dinov2', num_classes=10),
    data=Source('tfds:cifar10'),
    augment=Augment(size=98, flip=0.5),
    optim=Optim(peak=1e-3, warmup=0.1, decay=0.0, train='head.*'),
    batch_size=128,
    epochs=3,
    weights='hf-hub:facebook/dinov2-small',
)
