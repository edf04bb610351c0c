"""The lecture's ConvNet on a folder of cats and dogs: four convolutions, one dense layer.

    python scripts/train.py convnet_cats_and_dogs --data.name folder:PATH

PATH holds train, validation and test, each with a folder cat and a folder dog. Binary as two
classes; images of any size, brought to 150 pixels.
"""

from vitjax.data.augment import Augment
from vitjax.data.sources import Source
from vitjax.experiment import Experiment
from vitjax.models import ConvNet
from vitjax.optim import Optim

experiment = Experiment(
    model=ConvNet(num_classes=2, dropout=0.5),
    data=Source('folder:cats_and_dogs', size=150),
    augment=Augment(size=150, flip=0.5, shift=0.2, rotation=0.1, zoom=0.2),
    optim=Optim(peak=5e-4, warmup=0.05, decay=1e-4),
    batch_size=50,
    epochs=30,
)
