# %% [markdown]
# # PatchConvNet: a convolutional trunk with an attention map
#
# PatchConvNet replaces average pooling by one layer of attention. Its trunk is convolutional, yet
# every prediction comes with a map of the patches that the class token read. This notebook watches
# that map form while a small model trains, then lays it over a photograph.
#
# Source: Touvron et al. 2021, *Augmenting convolutional networks with attention-based aggregation*.

# %%
from IPython.display import Image

import vitjax
from vitjax import evaluate, views
from vitjax.figures import training
from vitjax.runs import records

epochs = 24

# %% [markdown]
# ## Attention over training
#
# The digits are enlarged to 16 pixels, so that patches of 2 x 2 pixels give a grid of 8 x 8. With
# `attention_every` a run draws the attention of the class token on eight validation images as it
# trains.

# %%
experiment = vitjax.Experiment(
    vitjax.models.PatchConvNet(patch_size=2, width=48, depth=2, mlp_ratio=1.0, layer_scale=None),
    data=vitjax.Source('digits'),
    augment=vitjax.Augment(size=16, shift=0.2, rotation=0.02, zoom=0.1),
    optim=vitjax.Optim(name='muon', peak=2e-2, decay=0.05, warmup=0.1),
    batch_size=64,
    epochs=epochs,
    attention_every=max(1, epochs // 6),
)
tested = vitjax.loop.train(experiment, 'runs/patchconvnet', quiet=True)
print(f'test accuracy {tested["accuracy"]:.1%}')

# %%
Image('runs/patchconvnet/figures/attention.png', width=720)

# %% [markdown]
# Rows are epochs, columns images. At epoch 4 the maps are nearly uniform. From epoch 8 on they
# concentrate on parts of the strokes, while the predictions above them become right.

# %%
training.learning_curves(records.read_metrics('runs/patchconvnet'))

# %% [markdown]
# ## Overlay on one photograph
#
# A larger model, trained on CIFAR-10, reads a photograph at 32 x 32 pixels. Its map has 8 x 8 cells
# and is enlarged over the photograph.

# %%
photo = ['../photos/cat.jpg']
cifar = vitjax.load('../models/patchconvnet_cifar10')
for name, probability in evaluate.classify(cifar, photo, top=3)[0]:
    print(f'{name} {probability:.0%}')
views.draw(cifar, photo, 'class-attention')['saliency']

# %% [markdown]
# It reads an eye most. The same map without interpolation (the pooling has a single head):

# %%
views.draw(cifar, photo, 'class-attention', enlarge='nearest')['class_attention']

# %% [markdown]
# Attention says what was read, not what spoke for the class. Relevance multiplies the attention by
# the gradient of the predicted class, and Grad-CAM does the same with the trunk's features.

# %%
views.draw(cifar, photo, 'relevance')['relevance']

# %%
views.draw(cifar, photo, 'grad-cam')['grad_cam']

# %% [markdown]
# The pooling and the head can also read the tokens of an earlier layer. Only the last layer makes a
# cat of the cat, and a ship of the rocket.

# %%
views.draw(cifar, ['../photos/cat.jpg', '../photos/rocket.jpg'], 'lens')['lens']

# %% [markdown]
# ## Things to try
#
# 1. Draw the overlay for `astronaut`, `coffee` and `rocket`. They are of no class of CIFAR-10: what
#    does the model take them for, and which part of them does it read?
# 2. Train with `class_tokens_per_class=True` and `num_classes=10`. Each class has a map of its own
#    then: draw `'class-attention'` for a digit that the model confuses.
# 3. Relevance and Grad-CAM take `target='dog'`, any class of CIFAR-10. Which parts of the cat speak
#    for a dog?
