"""Compiles a small architecture for a machine, in a process without the tests' settings.

    python programs.py MACHINE ARCHITECTURE
    python programs.py MACHINE ARCHITECTURE none|pmap|fsdp [SEEDS]
    python programs.py MACHINE NAME gradient

The second form compiles what a run dispatches, many steps at a time, spread over the machine's
devices; the third the gradient of a published model in bfloat16 on 64 images of 224 pixels. Prints
a line of JSON for each program: what it is, and its report or the error. Depths and widths of the
first two are small, because compile time does not grow with depth; token counts are those of 224
pixels.
"""

import dataclasses
import functools
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import models, ops
from vitjax.data.augment import Augment, augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Source
from vitjax.experiment import Experiment, resolved
from vitjax.experiment.loss import cross_entropy
from vitjax.experiment.optim import Optim, optimizer
from vitjax.models.base import parameter_shapes
from vitjax.plan import machines, target
from vitjax.training import layout, trainer
from vitjax.training.step import Recipe, eval_step, init_state, train_step

BATCH, CLASSES = 4, 10
SHAPE: dict[str, Any] = {'width': 64, 'depth': 2, 'num_classes': CLASSES}
DROPS: dict[str, Any] = {'drop_path': 0.1, 'dropout': 0.1}
HEADS: dict[str, Any] = SHAPE | DROPS | {'num_heads': 4}
CURRENT: dict[str, Any] = {
    'registers': 4, 'position': 'none', 'rope': 'dinov3', 'norm': 'rms', 'mlp': 'swiglu',
    'mlp_norm': True, 'qk_norm': True, 'key_bias': False, 'pool': 'map',
}  # fmt: skip
ALL = ('auto', 'explicit', 'chunked', 'packed', 'fused')

# Model, side of its images, and implementations of attention. Where an architecture has the layers
# of another, and only its number of tokens differs, what a number of tokens can break.
ARCHITECTURES = {
    'vit': (models.ViT(**HEADS), 224, ALL),  # 197 tokens
    'vit_mean': (models.ViT(**HEADS, pool='mean'), 224, ('auto',)),  # 196
    'vit_current': (models.ViT(**HEADS, **CURRENT), 224, ('auto',)),  # 200
    'vit_registers': (models.ViT(**HEADS, registers=4), 224, ('auto',)),  # 201
    # 196, and 1 query of 197 keys
    'cait': (models.CaiT(**HEADS, class_depth=1), 224, (*ALL, 'multi_query')),
    'patchconvnet': (models.PatchConvNet(**SHAPE, **DROPS), 224, ('auto', 'fused')),
    'patchconvnet_classes': (
        models.PatchConvNet(**SHAPE, **DROPS, class_tokens_per_class=True), 224, ('auto', 'fused')
    ),
    'convnet': (models.ConvNet(num_classes=CLASSES, dropout=0.1), 64, (None,)),
    'vgg16': (models.VGG16(num_classes=CLASSES), 64, (None,)),
}  # fmt: skip


def main(machine: str, architecture: str, way: str = '', seeds: str = '1') -> None:
    where = machines.machine(machine)
    if way == 'gradient':
        model = models.named(architecture, num_classes=1000).clone(dtype='bfloat16')
        return report('gradient', {'dtype': 'bfloat16'}, where, *gradient(model, 64, 224))
    if way:
        return report_layout(where, architecture, way, int(seeds))
    model, size, implementations = ARCHITECTURES[architecture]
    # In float32 only the choice of `auto`: the others' programs differ from bfloat16's in types.
    for dtype, wanted in (('bfloat16', implementations), ('float32', implementations[:1])):
        for attention in wanted:
            given: dict[str, Any] = {'dtype': dtype}
            if attention:
                given['attention'] = attention
            for build in (forward, training):
                report(build.__name__, given, where, *build(model.clone(**given), size))
    for attention in ('auto', 'explicit', 'chunked') if architecture in ('vit', 'cait') else ():
        # With attention dropout `auto` is not what it is without. On a ViT's blocks of rows with it
        # libtpu 0.0.42, which comes with jax 0.10, overflows its stack; 0.0.52 compiles them.
        if (architecture, attention) == ('vit', 'chunked') and where.devices[0].platform == 'tpu':
            continue
        given = {'dtype': 'bfloat16', 'attention': attention, 'attention_dropout': 0.1}
        report('training', given, where, *training(model.clone(**given), size))


def report(what: str, settings: Any, where: machines.Machine, fn: Any, *args: Any) -> None:
    start = time.perf_counter()
    row = {'what': what, **settings, 'error': None}
    try:
        text = target.lower(fn, *args, machine=where).as_text()
        # Two implementations may be one and the same program: `auto` always is another's.
        found = _compiled.get(text)
        if found is None:
            found = target.compile(fn, *args, machine=where, dtype=settings['dtype'])
            _compiled[text] = found
    except Exception as error:  # whatever a compiler raises is what this is for
        row['error'] = f'{type(error).__name__}: {error}'[:2000]
    else:
        row |= {
            'flops': found.flops, 'seconds': found.seconds, 'cycles': found.cycles,
            'memory': dataclasses.asdict(found.memory),
            'kernels': sorted(path for path, cost in found.modules.items() if cost.by == 'kernel'),
            'collectives': [collective._asdict() for collective in found.collectives],
        }  # fmt: skip
    print(json.dumps(row | {'took': time.perf_counter() - start}), flush=True)


_compiled: dict[str, target.Report] = {}


def report_layout(where: machines.Machine, architecture: str, way: Any, seeds: int) -> None:
    """Reports on a step whose number of images, a multiple of 11, divides no parameter's size."""
    model, size, _ = ARCHITECTURES[architecture]
    # Wide enough for its kernels to be split over all devices.
    wide = {'width': max(128, len(where.devices))} if 'width' in vars(model) else {}
    model = model.clone(dtype='bfloat16', **wide)
    devices = where.devices if way != 'none' else where.devices[:1]
    experiment = Experiment(
        model=model, data=Source(), augment=Augment(size=size), parallel=way, steps=100,
        batch_size=11 * len(devices),
    )  # fmt: skip
    experiment = resolved(experiment, Preprocessing(size))
    made = layout.layout(way, devices, batch_size=experiment.batch_size, seeds=seeds)
    # As many images as a batch has: a trainer needs an epoch of one step.
    count = experiment.batch_size
    images = trainer.Images((count, size, size, 3))
    data = Data(images, np.zeros(count, np.int32), ())
    program = trainer.Trainer(experiment, data, made, tuple(range(seeds)))
    function, arguments = program.abstract()
    report(way, {'dtype': 'bfloat16', 'seeds': seeds}, where, function, *arguments)


def forward(model: Any, size: int) -> tuple[Any, ...]:
    images = jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.float32)
    params = parameter_shapes(model, size)
    return lambda p, x: eval_step(p, x, model=model), params, images


def gradient(model: Any, batch: int, size: int) -> tuple[Any, ...]:
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch, model.num_classes), jnp.float32)

    def loss(params: Any, images: Any, labels: Any) -> Any:
        noise = {'dropout': jax.random.key(0)}
        with ops.entered():
            logits = model.apply({'params': params}, images, True, rngs=noise)
        return cross_entropy(logits, labels)

    return jax.grad(loss), parameter_shapes(model, size), images, labels


def training(model: Any, size: int) -> tuple[Any, ...]:
    tx, usual = optimizer(Optim(), 100), Preprocessing()
    # Augmentation is the same for every model: drawn on once, where compiling is quick.
    mixed: dict[str, Any] = {'flip': 0.5, 'mixup': 0.2} if isinstance(model, models.ConvNet) else {}
    change = Augment(size=size, **mixed)
    vary = functools.partial(augment, change, (usual.mean, usual.deviation), CLASSES)
    state = jax.eval_shape(
        lambda: init_state(jax.random.key(0), model=model, tx=tx, image_shape=(size, size, 3))
    )
    batch = {
        'image': jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.uint8),
        'label': jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        'index': jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    }

    def step(state: Any, batch: Any, seed: Any) -> Any:
        recipe = Recipe(model=model, tx=tx, augment=vary)
        return train_step(state, batch, jax.random.key(seed), recipe)

    return step, state, batch, jax.ShapeDtypeStruct((), jnp.int32)


if __name__ == '__main__':
    main(*sys.argv[1:])
