# %% [markdown]
# # Planning a training, and moving it to a pod
#
# The cost of a training, the memory that it takes, and the changes that many devices bring.
# Operations are counted from the traced program, memory is the compiler's, and neither needs an
# accelerator. The notebook ends with two processes that train as one, on this machine.

# %%
import os
import socket
import subprocess
import sys

import jax
import matplotlib.pyplot as plt
import numpy as np

import vitjax
from vitjax.models.base import parameter_shapes
from vitjax.plan import flops, machines
from vitjax.plan.forecast import forecast, training_images
from vitjax.runs import records

epochs = 2

# %% [markdown]
# ## Operations
#
# A multiply-add is two FLOPs, so published GMACs are half of these numbers. Scans over depth count
# in full. Nothing is computed: models are traced, whatever their size.

# %%
for name in ('vit_tiny_patch16', 'vit_small_patch16', 'cait_xxs24', 'patchconvnet_s60'):
    model = vitjax.models.named(name)
    count = sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(model, 224)))
    cost = flops.model_flops(model, 224)
    print(f'{name:18} {count / 1e6:5.1f} M parameters {cost / 1e9:6.2f} GFLOPs an image')

# %% [markdown]
# Attention's own products, queries with keys and weights with values, grow with the square of the
# number of tokens, everything else with the number of tokens. At 224 pixels they are a small part,
# at 896 pixels more than half.

# %%
small, sizes = vitjax.models.named('vit_small_patch16'), (112, 224, 448, 896)
products, rest = [], []
for size in sizes:
    scopes = flops.model_flops_by_scope(small, size)
    inside = sum(n for path, n in scopes.items() if '->' in path)  # einsums of explicit attention
    products.append(inside)
    rest.append(sum(scopes.values()) - inside)

figure, axis = plt.subplots(figsize=(4.5, 2.8), layout='constrained')
axis.loglog(sizes, rest, 'o-', label='projections, MLPs and the rest')
axis.loglog(sizes, products, 'o-', label="attention's products")
axis.set_xticks(sizes, map(str, sizes))
axis.minorticks_off()
axis.set(xlabel='image size (pixels)', ylabel='FLOPs an image', title='ViT-S/16')
axis.legend()
plt.show()

# %% [markdown]
# ## A whole training
#
# `forecast` compiles the very step that a run would dispatch. For `here` it gives the memory, the
# operations and the largest batch that fits this machine.

# %%
experiment = vitjax.experiment.find('digits').experiment
here = forecast(experiment, 'here', training_images(experiment))
print(f'{here.steps:,} steps of {here.batch_size} images on {here.devices} device(s)')
print(f'{here.report.flops * here.steps / 1e9:,.0f} GFLOPs in all')
print(f'arguments {here.report.memory.arguments / 1e6:.1f} MB', end=', ')
print(f'temporaries {here.report.memory.temporaries / 1e6:.1f} MB')
for path, module in [*here.report.modules.items()][:5]:
    print(f'  {path or "(outside of modules)":28} {module.bytes / 1e6:7.1f} MB moved a step')

# %% [markdown]
# ## A machine that is not here
#
# XLA compiles for GPUs and TPUs that are only described. The compilers are extras of the package:
# `pip install -e '.[tpu]'` or `'.[cuda]'`, without hardware. These are the machines:

# %%
for name, chip in machines.CHIPS.items():
    memory, band, peak = chip.memory / 1e9, chip.bandwidth / 1e12, chip.flops['bfloat16'] / 1e12
    print(f'{name:5} {memory:4.0f} GB {band:5.2f} TB/s {peak:4.0f} TFLOP/s in bfloat16')

# %% [markdown]
# The command compares targets side by side, and writes a table, `plan.json` and a figure:
#
# ```
# vitjax plan vit_small_imagenet --target v5e:4x4 h100:8 --images 1268355
# ```
#
# A target is `h100` (one GPU), `h100:8` (a host), `h100:2x8` (two hosts) or a TPU slice such as
# `v5e:4x4`. Times are estimates of the device alone: compare them with each other. If a step does
# not fit, the command names the flags to change. In Python it is `forecast(experiment, 'v5e:4x4',
# training_images(experiment, 1268355))`.

# %% [markdown]
# ## Several devices, several processes
#
# On several devices of one process a run needs no flag: every device takes its part of each batch.
# `--parallel fsdp` also splits the parameters. Several processes train as one if three variables
# tell each of them where the first is, how many they are, and which it is. Under Slurm and on TPU
# pods even these are found without you.
#
# Two processes on this machine against one, on the same batches:

# %%
train = [sys.executable, '-m', 'vitjax', 'train', 'digits', f'--epochs={epochs}', '--no-report']
with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'

subprocess.run([*train, '--out=runs/alone'], check=True, capture_output=True)
both = [
    subprocess.Popen(
        [*train, '--out=runs/together'],
        env={
            **os.environ,
            'JAX_COORDINATOR_ADDRESS': address,
            'JAX_NUM_PROCESSES': '2',
            'JAX_PROCESS_ID': str(i),
        },
        stdout=subprocess.DEVNULL,
    )
    for i in range(2)
]
print('exit codes', [process.wait() for process in both])

# %%
alone, together = (records.read_metrics(f'runs/{run}') for run in ('alone', 'together'))
for one, other in zip(alone, together, strict=True):
    print(f'step {one["step"]:3} {one["split"]:10} loss {one["loss"]:.6f} and {other["loss"]:.6f}')
off = [abs(a['loss'] / b['loss'] - 1) for a, b in zip(alone, together, strict=True)]
print(f'largest relative difference: {np.max(off):.0e}')

# %% [markdown]
# The two are one training: the same order of images, the same augmentation, gradients that are
# summed in another order. If a process dies, the others end too, and the same command resumes from
# the last checkpoint, also on another number of processes.
#
# On a cluster the command starts its own jobs (`pip install -e '.[cluster]'`). `--launcher
# processes` does the same on one machine:
#
# ```
# vitjax train vit_small_imagenet --launcher slurm \
#     --job nodes=2 tasks_per_node=8 gpus_per_node=8 timeout_min=600
# vitjax ablate digits --launcher slurm --job slurm_partition=gpu timeout_min=60
# ```
#
# ## Things to try
#
# 1. Install the extra `tpu` and plan your own experiment for `v5e:2x2` and `v5e:4x4`. Does the time
#    of a step halve when the chips double? Look at the line of communication.
# 2. Set `--model.remat` in the plan. Memory falls: by how much does the number of operations grow?
# 3. Kill one of the two processes while they train, and give the same command again with
#    `JAX_NUM_PROCESSES=1`. It resumes: from which step?
