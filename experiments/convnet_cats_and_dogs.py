"""The lecture's ConvNet on 2,000 cats and dogs, as it overfits: four convolutions, a dense layer.

    python scripts/train.py convnet_cats_and_dogs --data.name folder:PATH

PATH holds train, validation and test, each with a folder cat and a folder dog. Binary as two
classes; images of any size, brought to 150 pixels. RMSprop, batches of 20, no augmentation.

On 1,000 cats and 1,000 dogs of 32 pixels, with seed 0: validation is best after 11 epochs (68.5%,
test 65.6%); after 30 it is 66.4%, of training images 98.9%. 10 min on two CPU cores.
"""

from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import Experiment
from vitjax.experiment.optim import Optim
from vitjax.models import ConvNet

experiment = Experiment(
    model=ConvNet(num_classes=2),
    data=Source('folder:cats_and_dogs', size=150),
    augment=Augment(size=150),
    optim=Optim(name='rmsprop', peak=1e-4, end=1e-4, warmup=0.0, decay=0.0, clip=0.0),
    batch_size=20,
    epochs=30,
    preprocessing=Preprocessing(150, crop=1.0, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0)),
)
