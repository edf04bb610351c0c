"""Cost of training: the parts of experiments' steps, and the images that feed them."""

import dataclasses
import functools
import itertools
import math
import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from benchmarks.models import cores
from command import tables

from vitjax import ops
from vitjax.base import fields, processes
from vitjax.base.ranges import Count, Range, Side
from vitjax.data.augment import augment
from vitjax.data.augment.crop import Crop
from vitjax.data.feed import chunk_shape
from vitjax.data.feed.stream import Workers
from vitjax.data.images import SUFFIXES
from vitjax.data.order import Order
from vitjax.data.preprocess import Preprocessing, read_square
from vitjax.data.source import Data, Encoded
from vitjax.experiment import find, resolved
from vitjax.experiment.loss import cross_entropy
from vitjax.experiment.optim import optimizer
from vitjax.ops import Implementation
from vitjax.plan import timing
from vitjax.training import layout, trainer


def train(
    experiments: Annotated[tuple[str, ...], Range(1)] = (
        'vit_cifar100', 'patchconvnet_cifar10', 'cait_cifar10',
    ),
    batch_size: Count | None = None, attention: Implementation | None = None, repeats: Count = 5,
    out: str | None = None,
) -> None:  # fmt: skip
    """Images per second of experiments' training steps, and the time of each part.

    On one device and random images: augmentation, forward and forward+backward pass with dropout,
    optimizer, and the whole compiled step. On all cores of a CPU: the step inside the loop over
    many steps that a run dispatches.

    Args:
        experiments: files of experiments/ by name.
        batch_size: images per step, by default the experiment's.
        attention: implementation of attention, by default the experiment's.
        out: folder for train.csv.
    """
    found = {name: find(name).experiment for name in experiments}
    processes.part_cores(math.gcd(*(batch_size or each.batch_size for each in found.values())))
    rows: list[tables.Row] = []
    for name, experiment in found.items():
        size = batch_size or experiment.batch_size
        for part, seconds in _parts(experiment, size, attention, repeats):
            row = {'experiment': name, 'batch': size, 'part': part, 'seconds': seconds}
            rows.append({**row, 'images_per_second': size / seconds})
            tables.write(rows, out, 'train')
    tables.show(rows)


def _parts(
    experiment: Any, batch: int, attention: str | None, repeats: int
) -> Iterator[tuple[str, float]]:
    """Yields the parts of a training step and their seconds, each compiled by itself."""
    network, settings = experiment.model, experiment.augment
    if attention and 'attention' in fields.names(network):
        network = network.clone(attention=attention)
    original = 8 if settings.size == 8 else experiment.data.size or 32
    pixels = np.random.default_rng(0).integers(0, 256, (batch, original, original, 3), np.uint8)
    labels = np.arange(batch, dtype=np.int32) % network.num_classes
    mean, deviation = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    prepared = Preprocessing(settings.size, 1.0, mean=mean, deviation=deviation)
    changes = {'model': network, 'batch_size': batch, 'steps': 1000, 'epochs': None}
    experiment = resolved(dataclasses.replace(experiment, **changes), prepared)
    chosen = layout.layout(experiment.parallel, cores(batch), batch_size=batch)
    run = trainer.Trainer(experiment, Data(pixels, labels, ()), chosen, (0,))
    key, (state,) = jax.random.key(0), run.layout.fetch(run.init())
    state = jax.tree.map(jnp.asarray, jax.device_get(state))  # on one device
    index = jnp.arange(batch)
    vary = functools.partial(augment, settings, (mean, deviation), network.num_classes)
    images, soft = jax.jit(vary)(key, pixels, labels, index)
    tx = optimizer(experiment.optim, run.total)
    example = {'image': pixels, 'label': labels, 'index': index}

    def loss(params: Any) -> jax.Array:
        rngs = {'dropout': key}
        with ops.entered():
            logits = network.apply({'params': params}, images, True, rngs=rngs)
        return cross_entropy(logits, soft)

    def seconds(fn: Callable[..., Any], *args: Any) -> float:
        return timing.seconds(jax.jit(fn), args, repeats)

    yield 'augment', seconds(vary, key, pixels, labels, index)
    yield 'forward', seconds(loss, state.params)
    yield 'forward+backward', seconds(jax.value_and_grad(loss), state.params)
    yield 'optimizer', seconds(tx.update, state.params, state.opt_state, state.params)
    yield 'step', seconds(run.step, state, example, run.numbers[0])
    chunk = run.feed.take(0, repeats)
    here, _ = run.run(run.init(), chunk._replace(steps=0))
    start = time.perf_counter()
    run.run(here, chunk)
    yield 'step in the loop', (time.perf_counter() - start) / repeats


def feed(
    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar='FOLDER')],
    size: Side = 224, batch: Count = 256, steps: Count = 9,
    repeats: Count = 3, workers: Count | None = None, out: str | None = None,
) -> None:  # fmt: skip
    """Images per second that a stream feeds, and that decoding alone makes.

    For the latter as many processes make random resized crops of the same files, and return
    nothing.

    Args:
        folder: folder of images, nested or not; if there are few, each is read several times.
        size: side of the crops in pixels.
        batch: images per step.
        steps: steps of one timing, rounded up to whole chunks of training.
        workers: processes; by default those of training, and one per core for decoding alone.
        out: folder for feed.csv.
    """
    files = sorted(p for p in pathlib.Path(folder).rglob('*') if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f'{folder} must have images ({", ".join(SUFFIXES)}): it has none.')
    files = [*itertools.islice(itertools.cycle(files), max(len(files), batch))]
    crop, count = Crop(size, 0.08), workers or processes.cores()
    square = functools.partial(read_square, preprocessing=Preprocessing(size))
    order = Order((0,), len(files), batch)
    parts = [files[i : i + 32] for i in range(0, len(files), 32)]
    found: dict[str, list[float]] = {'alone': [], 'stream': []}
    context = multiprocessing.get_context('spawn')
    images = Encoded(files, square, streams=True)
    stream = Workers(images, order, crop, count=workers)
    chunk = min(steps, chunk_shape(stream.shape, batch, resident=False)[1])
    steps = -(-steps // chunk) * chunk
    space = np.empty((chunk * batch, size, size, 3), np.uint8)
    with context.Pool(count, _one_thread) as pool:
        for turn in range(repeats + 1):
            start = time.perf_counter()
            work = itertools.islice(itertools.cycle(parts), -(-steps * batch // 32))
            made = sum(pool.imap_unordered(functools.partial(_crops, crop), work))
            alone = made / (time.perf_counter() - start)
            stream.read(0, chunk, space)  # starts the workers
            start = time.perf_counter()
            for step in range(chunk, chunk + steps, chunk):
                stream.read(step, chunk, space)
            fed = steps * batch / (time.perf_counter() - start)
            stream.close()
            if turn:  # the first reads the files from the disk
                found['alone'].append(alone)
                found['stream'].append(fed)
    alone, fed = map(statistics.median, found.values())
    row: tables.Row = {'size': size, 'processes': count, 'alone_images_per_second': alone,
                       'stream_images_per_second': fed, 'ratio': fed / alone}  # fmt: skip
    tables.write([row], out, 'feed')
    tables.show([row])


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(0)


def _crops(crop: Crop, files: list[pathlib.Path]) -> int:
    for i, file in enumerate(files):
        crop(file, np.random.default_rng(i))
    return len(files)
