"""The lecture's ConvNet on 2,000 cats and dogs, overfitting: four convolutions, a dense layer.

    vitjax train convnet_cats_and_dogs --data.name folder:PATH

10 min on two CPU cores. With 1,000 cats and 1,000 dogs of 32 pixels and seed 0, validation is best
after 11 epochs: 68.5%, with 65.6% on the test images. After 30 epochs it is 66.4%, and 98.9% of the
training images are right.

PATH holds train, validation and test, each with a folder cat and a folder dog. The two classes have
an output each. Images of any size are resized to 150 pixels. RMSprop, batches of 20, no
augmentation.
"""

from vitjax import Augment, Experiment, Optim, Preprocessing, Source
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
