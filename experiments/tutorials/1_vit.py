# %% [markdown]
# # A vision transformer on small images
#
# A ViT cuts an image into patches, makes a token of each, and lets the tokens attend to one
# another. This notebook draws the patches, trains a small ViT on handwritten digits, and looks at
# its errors. It then follows single tokens through the network. Everything runs on a CPU.
#
# Source of the architecture: Dosovitskiy et al. 2021, *An image is worth 16x16 words*.

# %%
import matplotlib.pyplot as plt
import numpy as np

import vitjax
from vitjax import evaluate, views
from vitjax.analysis import tokens
from vitjax.data import kinds
from vitjax.figures import training
from vitjax.figures.panels import montage
from vitjax.runs import records

epochs = 40

# %% [markdown]
# ## An image as the model receives it
#
# The model in `experiments/models` was trained on CIFAR-10, so a photograph is shrunk to 32 pixels
# before it is cut. Each patch of 4 x 4 pixels becomes one token: there are 64. Rebuilding the image
# from its patches loses nothing.

# %%
cifar = vitjax.load('../models/vit_cifar10')
views.draw(cifar, ['../photos/cat.jpg'], 'patches')['patches']

# %% [markdown]
# ## Training
#
# An experiment is a value: model, data, augmentation, optimizer. The digits come with scikit-learn,
# 1,797 images of 8 x 8 pixels. Patches of 2 x 2 pixels give 16 tokens, and a class token joins
# them.

# %%
experiment = vitjax.Experiment(
    vitjax.models.ViT(patch_size=2, width=64, depth=4, num_heads=4, mlp_ratio=2.0),
    data=vitjax.Source('digits'),
    augment=vitjax.Augment(size=8, shift=0.1, rotation=0.02, zoom=0.1),
    optim=vitjax.Optim(peak=2e-3, decay=0.05, warmup=0.1),
    batch_size=64,
    epochs=epochs,
)
tested = vitjax.loop.train(experiment, 'runs/vit', quiet=True)
print(f'test accuracy {tested["accuracy"]:.1%}, in the top five {tested["top5"]:.1%}')

# %% [markdown]
# Every run directory has a `metrics.jsonl`, from which the learning curves are drawn. Training
# accuracy is measured on shifted, turned and enlarged digits, so it is often the lower of the two.

# %%
training.learning_curves(records.read_metrics('runs/vit'))

# %% [markdown]
# ## Predictions
#
# The five likeliest classes of four test images, with their probabilities. Below them are the four
# whose true class the model finds least likely.

# %%
digits = vitjax.load('runs/vit')
test = kinds.load(digits.experiment.data, 'test')
predicted = records.read_predictions('runs/vit')
hardest = np.argsort(predicted['probability_of_label'])[:4]

for row in (np.arange(4), hardest):
    figure, axes = plt.subplots(2, 4, figsize=(7, 2.4), height_ratios=(3, 2), sharey='row')
    for (image, bars), i in zip(axes.T, row, strict=True):
        names, chances = zip(*evaluate.classify(digits, [test.images[i]])[0], strict=True)
        image.imshow(test.images[i])
        image.set_title(f'true: {test.labels[i]}', size=8)
        image.axis('off')
        bars.bar(names, chances)
    axes[1, 0].set(ylim=(0, 1), ylabel='probability')
plt.show()

# %% [markdown]
# The model can be sure and wrong: three of the last four get a wrong class with more than 80%. The
# confusion matrix counts all test images.

# %%
matrix = np.zeros((10, 10), int)
np.add.at(matrix, (predicted['labels'], predicted['predicted']), 1)
training.confusion(matrix, test.classes)

# %% [markdown]
# ## Tokens as pictures
#
# A token is a vector of 64 numbers, which can be drawn as a picture of 8 x 8. `norm` and `layer`
# choose the place: here the LayerNorm before the attention of the first and of the last layer. The
# tokens lie as their patches do in the image.

# %%
image = test.images[:1]
norm, layers = 'blocks/norm_1', (0, 3)

pixels = views.forward_pass(digits, [*image]).images
_, found = vitjax.capture(digits.experiment.model, digits.params, pixels, keep=norm)
patches = found[norm][:, 0, digits.experiment.model.prefix_tokens :]  # [layers, 16, 64]

figure, axes = plt.subplots(1, 3, figsize=(7, 2.4))
axes[0].imshow(image[0])
axes[0].set_title('image', size=8)
for axis, layer in zip(axes[1:], layers, strict=True):
    axis.imshow(montage(np.asarray(patches[layer]).reshape(-1, 8, 8), 4, fill=np.nan), 'RdBu_r')
    axis.set_title(f'{norm}, layer {layer + 1}', size=8)
for axis in axes:
    axis.axis('off')
plt.show()

# %% [markdown]
# Are the tokens of different patches alike? The cosine of every token with every other, before the
# first and the last layer, says so in one number a pair.

# %%
figure, axes = plt.subplots(1, 2, figsize=(6, 2.8), layout='constrained')
for axis, layer in zip(axes, layers, strict=True):
    unit = patches[layer] / np.linalg.norm(patches[layer], axis=-1, keepdims=True)
    shown = axis.imshow(unit @ unit.T, vmin=-1, vmax=1, cmap='RdBu_r')
    axis.set(title=f'layer {layer + 1}', xlabel='patch', ylabel='patch')
    print(f'layer {layer + 1}: mean cosine {tokens.patch_cosine(patches[layer]):.2f}')
figure.colorbar(shown, ax=axes, label='cosine')
plt.show()

# %% [markdown]
# At first the tokens differ. After three layers of attention all have become similar: each carries
# what the patches found together.

# %% [markdown]
# ## Things to try
#
# 1. Train with `patch_size=4`. There are four tokens instead of 16, and training is faster. Is the
#    accuracy lower?
# 2. Draw the tokens at `'blocks/norm_2'`, before the MLP, or at `'embed'`, before any layer.
# 3. Add `pool='mean'` to the model: the head then reads the mean of the patches, and no class token
#    exists. Compare the confusion matrices.
