# %% [markdown]
# # What vision transformers see
#
# A convolution sees its neighbourhood, and depth widens it. Attention may look anywhere from the
# first layer on. Does it? This notebook measures how far heads look, where attention ends up after
# all layers, what position embeddings know of the grid, and how similar the layers of a ViT are to
# one another and to those of a ConvNet.
#
# Sources: Dosovitskiy et al. 2021 (distance, positions), Abnar and Zuidema 2020 (rollout), Raghu et
# al. 2021, *Do vision transformers see like convolutional neural networks?* (CKA).

# %%
import matplotlib.pyplot as plt
import numpy as np

import vitjax
from vitjax import activations, views

epochs = 15
photos = [f'../photos/{name}.jpg' for name in ('astronaut', 'cat', 'coffee', 'rocket')]

# %% [markdown]
# ## How far heads look
#
# The distance between a patch and the patches that it attends to, weighted by attention, is drawn
# for every head (a dot) of a ViT trained on CIFAR-10. The image has 32 pixels. Uniform attention
# would have the entropy of the dotted line.

# %%
vit = vitjax.load('../models/vit_cifar10')
distance = views.draw(vit, photos, 'distance')['distance']
distance

# %%
for layer, heads in enumerate(np.asarray(distance.arrays['distance']), 1):
    print(f'layer {layer}: {heads.min():.1f} to {heads.max():.1f} pixels')

# %% [markdown]
# ## Rollout
#
# Attention of one layer is between tokens that are mixtures already. Rollout multiplies the layers,
# counting the residual connections, back to the input patches. The second row drops the smallest
# nine tenths of the weights in every layer, which removes a haze of small ones.

# %%
views.draw(vit, photos, 'rollout')['rollout']

# %% [markdown]
# ## Positions
#
# The model is never told that patches form a grid. Each small square is one patch: the cosine of
# its position embedding with that of every other patch. Nearby patches have similar embeddings: the
# grid was learned. So have mirrored columns, since training flips images.

# %%
views.draw(vit, photos, 'positions')['positions']

# %% [markdown]
# ## Layers compared: a ViT and a ConvNet
#
# CKA compares two layers by how alike they find the same images, whatever their width. Two small
# models learn the digits, enlarged to 24 pixels. The first is a ViT, the second a ConvNet of three
# convolutions.

# %%
vit_digits = vitjax.Experiment(
    vitjax.models.ViT(patch_size=4, width=64, depth=4, num_heads=4, mlp_ratio=2.0),
    data=vitjax.Source('digits'),
    augment=vitjax.Augment(size=24, shift=0.1),
    optim=vitjax.Optim(name='muon', peak=5e-3, warmup=0.1),
    batch_size=64,
    epochs=epochs,
)
convnet_digits = vitjax.Experiment(
    vitjax.models.ConvNet(widths=(16, 32, 64), hidden=64, num_classes=10),
    data=vit_digits.data,
    augment=vit_digits.augment,
    optim=vit_digits.optim,
    batch_size=64,
    epochs=epochs,
)
sides = {}
for name, experiment in (('ViT', vit_digits), ('ConvNet', convnet_digits)):
    tested = vitjax.loop.train(experiment, f'runs/{name}', quiet=True)
    print(f'{name}: test accuracy {tested["accuracy"]:.1%}')
    keep = 'embed|blocks' if name == 'ViT' else r'conv_\d|dense'
    sides[name] = activations.of_path(f'runs/{name}', keep=keep, tokens='mean')

# %%
pairs = (('ViT', 'ViT'), ('ConvNet', 'ConvNet'), ('ViT', 'ConvNet'))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout='constrained')
for axis, (x, y) in zip(axes, pairs, strict=True):
    matrix, low, high = activations.cka(sides[x], sides[y])
    shown = axis.imshow(matrix, origin='lower', vmin=0, vmax=1)
    axis.set_xticks(range(matrix.shape[1]), sides[y].names, rotation=90, size=7)
    axis.set_yticks(range(matrix.shape[0]), sides[x].names, size=7)
    axis.set(xlabel=y, ylabel=x)
    print(f'{x} and {y}: mean CKA {matrix.mean():.2f}, intervals ±{(high - low).max() / 2:.2f}')
figure.colorbar(shown, ax=axes, label='CKA')
plt.show()

# %% [markdown]
# Within each model neighboring layers are the most alike. Across the two, the ViT's embedding and
# first layer resemble the first convolution. The last layers of both tell the same digits apart and
# are less alike than that.
#
# How far a place in the image reaches is the other half of the comparison: the gradient of the
# central token, or feature, with respect to the pixels.

# %%
digits = vitjax.data.kinds.load(vit_digits.data, 'test').images[:8]
views.draw(vitjax.load('runs/ViT'), [*digits], 'field')['field']

# %%
views.draw(vitjax.load('runs/ConvNet'), [*digits], 'field')['field']

# %% [markdown]
# In the ViT every pixel has a gradient from the first layer on, the strongest at the token's own
# patch. In the ConvNet the gradient is zero outside a square that grows with depth. The title has
# the side of a square with the field's area: pixels above 4.6% of the largest gradient.

# %% [markdown]
# ## Things to try
#
# 1. Two ViTs that differ only in `seed`: train the second one with
#    `dataclasses.replace(vit_digits, seed=1)` and draw their CKA. Do equal layers match best?
# 2. Compare the layers by another measure: `activations.matrices(['procrustes', 'knn'], x, y)`.
# 3. Load published weights instead of the small ViT: `vitjax.load('hf-hub:OWNER/NAME')` reads DeiT,
#    AugReg or DINOv2 (`pip install -e '.[hub]'`). Are there heads that look far in its first layer?
