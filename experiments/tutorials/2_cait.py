# %% [markdown]
# # CaiT: talking heads, LayerScale and class attention
#
# CaiT splits a transformer in two. Its trunk lets patches attend to one another, with heads that
# are mixed before and after the softmax. Two class-attention layers then gather the patches into a
# class token. LayerScale multiplies every residual branch, channel by channel, by learned factors
# that start small. This notebook looks at each part of a trained model.
#
# Source: Touvron et al. 2021, *Going deeper with image transformers*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import vitjax
from vitjax import evaluate, views

photos = [f'../photos/{name}.jpg' for name in ('astronaut', 'cat', 'coffee', 'rocket')]

# %% [markdown]
# ## The model and four photographs
#
# The model was trained on CIFAR-10: ten classes, 32 x 32 pixels. Of the four photographs only the
# cat is of a class that it knows. For the others the answer is the nearest of its classes.

# %%
cait = vitjax.load('../models/cait_cifar10')
model, params = cait.experiment.model, cait.params
print(f'{model.depth} trunk layers, {model.class_depth} class layers, {model.num_heads} heads')
for photo, classes in zip(photos, evaluate.classify(cait, photos, top=3), strict=True):
    print(photo, *(f'{name} {probability:.0%}' for name, probability in classes), sep='  ')

# %% [markdown]
# ## LayerScale
#
# Each point is the mean magnitude of the factors of one branch. The dashed line is their initial
# value: training has scaled the branches above it up, and those below it down.

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 2.4), sharey=True, layout='constrained')
for axis, stack in zip(axes, ('blocks', 'class_blocks'), strict=True):
    for name, branch in (('scale_1', 'attention'), ('scale_2', 'MLP')):
        factors = np.abs(params[stack][name]['scale'])  # [layers, channels]
        axis.plot(np.arange(1, len(factors) + 1), factors.mean(1), 'o-', label=branch)
    axis.axhline(model.layer_scale, color='0.5', linestyle='--', label='initial')
    axis.set(title=stack, xlabel='layer', xticks=np.arange(1, len(factors) + 1))
axes[0].set_ylabel('mean |factor|')
figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right')
plt.show()

# %% [markdown]
# ## Talking heads
#
# Two small matrices per layer mix the heads: one before the softmax, one after it. Without talking
# heads both would be the identity. Rows are heads that go in, columns heads that come out.

# %%
attention = params['blocks']['attention']
figure, axes = plt.subplots(2, model.depth, figsize=(7, 2.9), layout='constrained')
for row, name in zip(axes, ('mix_logits', 'mix_weights'), strict=True):
    kernels = np.asarray(attention[name]['kernel'])  # [layers, heads, heads]
    most = np.abs(kernels).max()
    for layer, (axis, kernel) in enumerate(zip(row, kernels, strict=True), 1):
        shown = axis.imshow(kernel, cmap='RdBu_r', vmin=-most, vmax=most)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f'layer {layer}', size=8)
    row[0].set_ylabel(name)
    figure.colorbar(shown, ax=row)
plt.show()

# %% [markdown]
# The same attention before and after the second mixing, in the last layer, from the central patch
# of each photograph. Before it every head's weights are positive and sum to 1. After it a head is a
# weighted sum of all heads: weights may be negative (blue).

# %%
drawings = views.draw(cait, photos, 'heads')
drawings['heads']

# %%
drawings['heads_mixed']

# %% [markdown]
# ## Class attention, head by head
#
# The trunk has no class token. It enters after the trunk and attends to the patches twice. Both
# layers are drawn, every head by itself.

# %%
drawings = views.draw(cait, photos, 'class-attention')
drawings['class_attention']

# %% [markdown]
# ## Saliency
#
# The mean over the heads of the first class layer, laid over the photograph, as in figure 7 of the
# paper. Values are relative to uniform attention: 1 means that a patch gets its even share.

# %%
drawings['saliency']

# %% [markdown]
# Class attention only reads. The patches that leave the trunk are the same whatever the class token
# does, so replacing the class token changes the logits and no patch.

# %%
pixels = views.forward_pass(cait, photos).images
changed = params | {'class_token': -params['class_token']}
logits, found = vitjax.capture(model, params, pixels, keep='blocks')
other, same = vitjax.capture(model, changed, pixels, keep='blocks')
print('largest change of a logit:', f'{abs(other - logits).max():.2g}')
print('largest change of a patch:', abs(same['blocks'] - found['blocks']).max())

# %% [markdown]
# ## Things to try
#
# 1. Draw the heads of the first layer: `views.draw(cait, photos, 'heads', layer=1)`. Do they look
#    further or nearer than those of the last?
# 2. Draw `'relevance'` beside the saliency. It weights attention by its gradient, so it depends on
#    the predicted class. On which photograph do the two differ most?
# 3. Train the digits with `vitjax.models.CaiT(patch_size=2, width=64, depth=4, num_heads=4)` and
#    `layer_scale=1e-5` or `1.0`, as in the first tutorial. Which learns faster?
