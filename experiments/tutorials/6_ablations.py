# %% [markdown]
# # Ablations with error bars
#
# One run of each setting says little: another seed gives another accuracy. This notebook trains a
# grid of settings with several seeds each, and asks which differences are larger than the seeds'
# own.

# %%
import dataclasses

from IPython.display import Image

import vitjax
from vitjax import ablation
from vitjax.analysis import effects
from vitjax.runs import records

epochs = 12
seeds = 4

# %% [markdown]
# ## The grid
#
# A cell is the base experiment with some fields replaced, by their dotted names. Depth times patch
# size gives four cells. Their cost is counted before anything runs.

# %%
base = dataclasses.replace(
    vitjax.experiment.find('digits').experiment,
    epochs=epochs,
    evaluate_every=epochs,
    attention_every=0,
)
grid = {'model.depth': (1, 4), 'model.patch_size': (2, 4)}
cells = ablation.cells(base, grid)
for cell in cells:
    cost = ablation.cost(cell.experiment)
    print(f'{cell.name:33} {cost["parameters"]:8,} parameters {cost["flops"] / 1e6:6.2f} MFLOPs')

# %% [markdown]
# ## Training all of it
#
# `run` trains every cell with every seed, and resumes if it is called again. On a CPU seeds train
# one after the other, on an accelerator together. A seed's run is an ordinary run directory.

# %%
rows = ablation.run(cells, seeds, 'runs/ablation', quiet=True)
for cell, row in zip(cells, rows, strict=True):
    low, high = row['test_accuracy_low'], row['test_accuracy_high']
    print(f'{cell.name:33} {row["test_accuracy"]:.1%}  95% interval {low:.1%} to {high:.1%}')

# %% [markdown]
# The interval is Student's over seeds, on the logit scale, so that it stays within 0 and 100%. The
# same numbers are in `results.csv`, one row per cell, and `seeds.csv`, one row per run. After these
# few epochs patches of 4 pixels are far ahead at both depths: the intervals are wide apart.

# %%
Image('runs/ablation/figures/accuracy_model.depth_model.patch_size.png', width=720)

# %% [markdown]
# Depth is another matter, as the intervals of both depths overlap. That alone does not settle it:
# runs of equal seed share their order of images, so the difference is better taken seed by seed.

# %%
runs = ablation.finished('runs/ablation')
accuracy = {
    cell.name: [records.tested(run)['accuracy'] for run in runs[cell.folder].values()]
    for cell in cells
}
for patch in (2, 4):
    shallow, deep = (accuracy[f'model.depth={d},model.patch_size={patch}'] for d in (1, 4))
    mean, low, high = effects.student([b - a for a, b in zip(shallow, deep, strict=True)])
    said = f'{100 * mean:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}'
    print(f'patch {patch}: depth 4 minus depth 1: {said}')

# %% [markdown]
# Both intervals contain 0. Four seeds do not show that depth helps, nor that it harms.
#
# ## Equal compute instead of equal epochs
#
# A deeper model does more work per image. `match_flops` gives every cell the training FLOPs of the
# base experiment, by its number of steps. Whether depth is worth its price is this comparison, not
# the first one.

# %%
for cell in ablation.match_flops(cells, base):
    cost = ablation.cost(cell.experiment)
    print(f'{cell.name:33} {cost["steps"]:6,} steps  {cost["train_flops"] / 1e9:6.1f} GFLOPs')

# %% [markdown]
# The same from the command line, with an estimate of the time first:
#
# ```
# vitjax ablate digits --grid model.depth=1,4 model.patch-size=2,4 --dry-run
# vitjax ablate digits --grid model.depth=1,4 model.patch-size=2,4 --match flops
# ```

# %% [markdown]
# ## Things to try
#
# 1. Train the cells of `match_flops`: `ablation.run(ablation.match_flops(cells, base), seeds,
#    'runs/matched')`. Which cell wins now?
# 2. Double the seeds and run the same folder again. Only the new seeds train. By how much do the
#    intervals shrink?
# 3. Add an axis: `'optim.peak': (1e-3, 4e-3)`. Is the best depth the same at both learning rates?
