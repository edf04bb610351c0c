# %% [markdown]
# # ConvNets from within
#
# The classic looks into a convolutional network: every channel of every feature map, the filters of
# the first layer, the input that a channel or class prefers, and the part of a photograph that
# speaks for its class. The network is the lecture's: four convolutions, each followed by pooling,
# then a dense layer.
#
# Source: Chollet 2021, *Deep learning with Python*, chapter 9; Selvaraju et al. 2017 (Grad-CAM).

# %%
import pathlib

import numpy as np
from IPython.display import display
from PIL import Image

import vitjax
from vitjax import evaluate, views
from vitjax.figures import training
from vitjax.runs import records

epochs = 12
crops = 120

# %% [markdown]
# ## A network of four photographs
#
# Digits are gray and small, so this network learns something more colorful: to tell from which of
# four photographs a square was cut. The squares are random, between half of the short side and all
# of it. Test squares overlap those of training, so the accuracy says nothing about other
# photographs.

# %%
random = np.random.default_rng(0)
for path in sorted(pathlib.Path('../photos').glob('*.jpg')):
    photo, folder = Image.open(path), pathlib.Path('runs/squares', path.stem)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(crops):
        side = random.integers(min(photo.size) // 2, min(photo.size))
        x, y = (random.integers(0, length - side) for length in photo.size)
        photo.crop((x, y, x + side, y + side)).resize((64, 64)).save(folder / f'{i:03}.png')

experiment = vitjax.Experiment(
    vitjax.models.ConvNet(widths=(16, 32, 32, 32), hidden=64, num_classes=4),
    data=vitjax.Source('folder:runs/squares'),
    augment=vitjax.Augment(size=64, flip=0.5),
    optim=vitjax.Optim(peak=2e-3, warmup=0.1),
    batch_size=32,
    epochs=epochs,
)
tested = vitjax.loop.train(experiment, 'runs/convnet', quiet=True)
print(f'test accuracy {tested["accuracy"]:.1%}')

# %%
training.learning_curves(records.read_metrics('runs/convnet'))

# %% [markdown]
# The whole photographs, which the network has not seen as such:

# %%
convnet = vitjax.load('runs/convnet')
photos = [f'../photos/{name}.jpg' for name in ('astronaut', 'cat', 'coffee', 'rocket')]
for photo, classes in zip(photos, evaluate.classify(convnet, photos, top=2), strict=True):
    print(photo, *(f'{name} {probability:.0%}' for name, probability in classes), sep='  ')

# %% [markdown]
# ## All eight feature maps
#
# Convolution and pooling in turn, every channel, for the cat. Each channel is standardized over the
# image, so that teal is its mean. A channel that is teal everywhere is constant, mostly 0 after the
# ReLU.

# %%
display(*views.draw(convnet, photos[1:2], 'activations', at=r'conv_\d|pool_\d'))

# %% [markdown]
# The first maps keep the picture and mark edges and colors in it. The later ones are too small to
# show a cat: they say where something is that helps to tell the four photographs apart.

# %% [markdown]
# ## Filters
#
# The kernels of the first convolution, 3 x 3 pixels in color, and their principal components.

# %%
views.draw(convnet, photos[:1], 'filters')['filters']

# %% [markdown]
# ## Preferred inputs
#
# Gradient ascent in pixels, from gray noise: what excites the four most active channels of the last
# convolution, and then two classes. A little blur at every step keeps the pictures from becoming
# noise.

# %%
views.draw(convnet, photos[1:3], 'maximize', blur=1.0)['maximize']

# %% [markdown]
# The pictures are no cats and cups but colors and spots of them: greenish ones for the cat, red for
# the coffee. That is enough to tell four photographs apart.

# %% [markdown]
# ## Receptive fields
#
# The size that one feature sees grows from layer to layer: the gradient of the central feature with
# respect to the pixels.

# %%
views.draw(convnet, photos, 'field')['field']

# %% [markdown]
# ## Grad-CAM on the photograph itself
#
# Feature maps weighted by the gradient of the class's logit, positive part. The map is computed on
# 64 x 64 pixels and lies on the photograph at its own resolution.

# %%
views.draw(convnet, photos, 'grad-cam', at='conv_3')['grad_cam']

# %% [markdown]
# The same for one class on all photographs: what in each speaks for the rocket? In the cat nothing
# does.

# %%
views.draw(convnet, photos, 'grad-cam', at='conv_3', target='rocket')['grad_cam']

# %% [markdown]
# ## Things to try
#
# 1. Take Grad-CAM at `conv_1` and at `conv_4`. Early maps are sharp and hardly depend on the class,
#    late ones the reverse.
# 2. Paint the region that Grad-CAM marks gray, as an array, and classify it again. Does the
#    probability fall?
# 3. Give `maximize` more `steps`, and `blur=0`. What becomes of the pictures?
