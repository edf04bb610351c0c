"""Measure what runs cost: compilation, attention, whole models; time, memory and arithmetic.

Times are medians over repeats with the device synchronised, compilation excluded. Use an otherwise
idle machine.
"""

import dataclasses
import functools
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import command
import jax
import jax.numpy as jnp
import numpy as np
import tables
import tyro

from vitjax import models as published
from vitjax.analysis.similarity import minibatch_cka
from vitjax.base import fields, processes
from vitjax.base.ranges import Count, Extent, Formats, Range, Side
from vitjax.data.augment import augment
from vitjax.data.augment.crop import Crop
from vitjax.data.feed import chunk_shape
from vitjax.data.feed.stream import Workers
from vitjax.data.kinds.folder import SUFFIXES
from vitjax.data.order import Order
from vitjax.data.preprocess import Preprocessing, read_square
from vitjax.data.source import Data, Encoded
from vitjax.experiment import find, resolved
from vitjax.experiment.loss import cross_entropy
from vitjax.experiment.optim import Optim, optimizer
from vitjax.inside.capture import known_paths
from vitjax.inside.intervene import Edit, intervene, places, sweep
from vitjax.layers.attend import Implementation
from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.models.base import Arithmetic, parameter_shapes
from vitjax.plan import flops, timing
from vitjax.training import layout, trainer
from vitjax.training import step as training

PEERS = pathlib.Path(__file__).parent / 'peers'

jax.config.update('jax_enable_compilation_cache', False)  # what is read from disk is not compiled


def compile_time(
    model: str = 'cait_xxs24', depths: Annotated[tuple[Extent, ...], Range(1)] = (12, 96),
    image_size: Side = 224,
    repeats: Count = 3, out: str | None = None,
) -> None:  # fmt: skip
    """Time to compile a model's gradient at several depths.

    Args:
        model: a published size, as in cait_xxs24.
        depths: of the trunk.
        image_size: side of the input in pixels.
        repeats: compilations, of which the median is taken.
        out: folder for compile.csv.
    """
    rows: list[tables.Row] = []
    for depth in depths:
        fn, args = _pass('forward+backward', published.named(model, depth=depth), 1, image_size)
        took = []
        for _ in range(repeats):
            jax.clear_caches()
            took.append(timing.compiled(fn, args)[1])
        rows.append({'model': model, 'depth': depth, 'compile_seconds': statistics.median(took)})
        rows[-1]['of_the_first'] = rows[-1]['compile_seconds'] / rows[0]['compile_seconds']
        tables.write(rows, out, 'compile')
    tables.show(rows)


Variant = Literal['multi_head', 'talking_heads', 'class', 'pooling']


def attention(
    variants: Annotated[tuple[Variant, ...], Range(1)] = (
        'multi_head', 'talking_heads', 'class', 'pooling',
    ),
    tokens: Annotated[tuple[Count, ...], Range(1)] = (64, 256, 1024, 4096),
    implementations: Annotated[tuple[Implementation, ...], Range(1)] = (
        'explicit', 'chunked', 'fused'
    ), batch: Count = 2,
    heads: Extent = 8, head_width: Extent = 48, dtype: Arithmetic = 'float32', repeats: Count = 10,
    out: str | None = None, format: Formats = ('png',),
) -> None:  # fmt: skip
    """Time, memory and arithmetic of attention layers against the number of tokens.

    A layer is what a model has: projections and attention, self-attention with or without talking
    heads, one class token over the patches (class), the same with a single head (pooling).

    Args:
        variants: which layers.
        tokens: patches.
        implementations: explicit, chunked, packed, multi_query, fused, pallas, auto.
        batch: images at a time.
        heads: of attention; pooling has one.
        head_width: channels of a head; a layer's width is heads x head_width.
        dtype: of the arithmetic, float32 or bfloat16.
        repeats: runs, of which the median is taken.
        out: folder for attention.csv and the figure of growth.
        format: of that figure.
    """

    def layer(variant: str, implementation: str) -> Any:
        options: dict[str, Any] = {'implementation': implementation, 'dtype': dtype}
        if variant in ('class', 'pooling'):
            return ClassAttention(heads if variant == 'class' else 1, **options)
        return MultiHeadAttention(heads, head_width, variant == 'talking_heads', **options)

    def run(module: Any, params: Any, inputs: Any) -> Any:
        return module.apply({'params': params}, *inputs)

    def look(module: Any, params: Any, inputs: Any) -> Any:  # computes nothing a second time
        return module.apply({'params': params}, *inputs, mutable=['intermediates'])[0]

    rows: list[tables.Row] = []
    for variant, count, implementation in itertools.product(variants, tokens, implementations):
        module, reference = layer(variant, implementation), layer(variant, 'explicit')
        patches = jax.ShapeDtypeStruct((batch, count, heads * head_width), dtype)
        token = jax.ShapeDtypeStruct((batch, 1, heads * head_width), dtype)
        inputs = (token, patches) if variant in ('class', 'pooling') else (patches,)
        params = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
        for direction in PASSES:
            fn, exact = functools.partial(run, module), functools.partial(look, reference)
            if direction != 'forward':
                fn, exact = timing.backward(fn, (0, 1)), timing.backward(exact, (0, 1))
            what = {'variant': variant, 'tokens': count, 'implementation': implementation}
            cost, args = flops.flops(exact, params, inputs), (params, inputs)
            measured = timing.measure(fn, args, flops=cost, repeats=repeats, dtype=dtype)
            rows.append({**what, 'pass': direction, **measured})
            tables.write(rows, out, 'attention')
    tables.show(rows)
    tables.growth(rows, 'tokens', ('variant', 'implementation'), out, 'attention', format)


def model(
    models: Annotated[tuple[str, ...], Range(1)] = ('vit_tiny_patch16', 'cait_xxs24'),
    image_sizes: tuple[Side, ...] = (), patch_sizes: tuple[Side, ...] = (),
    depths: tuple[Extent, ...] = (),
    implementations: Annotated[tuple[Implementation, ...], Range(1)] = ('auto',),
    batch: Count = 8, dtype: Arithmetic = 'float32',
    remat: bool = False, repeats: Count = 10, peer: str | None = None, out: str | None = None,
    format: Formats = ('png',),
) -> None:  # fmt: skip
    """Time, memory and arithmetic of whole models over image size, patch size and depth.

    Args:
        models: published sizes, as in vit_tiny_patch16, or files of experiments/, as in digits.
        image_sizes: sides of the input in pixels; an experiment's own, else 224, without it.
        patch_sizes: instead of the published one.
        depths: of the trunk, instead of the published one.
        implementations: of attention: explicit, chunked, packed, multi_query, fused, pallas, auto.
        batch: images at a time.
        dtype: of the arithmetic, float32 or bfloat16.
        remat: recompute blocks in the backward pass.
        repeats: runs, of which the median is taken.
        peer: a Python that has torch and timm: times timm's model after each published size, under
            torch.compile on a GPU.
        out: folder for model.csv and the figure of growth.
        format: of that figure.
    """
    _require(peer)
    processes.part_cores(batch)
    rows: list[tables.Row] = []
    for name, size, patch, depth, implementation in itertools.product(
        models, image_sizes or (None,), patch_sizes or (None,), depths or (None,), implementations
    ):
        if name in published.NAMES:
            network, size = published.named(name), size or 224
        else:
            network, size = find(name).experiment.model, size or find(name).experiment.augment.size
        there = fields.names(network)
        asked = {'patch_size': patch, 'depth': depth, 'remat': remat or None}
        asked |= {'dtype': dtype, 'attention': implementation}
        network = network.clone(**{k: v for k, v in asked.items() if k in there and v is not None})
        what: tables.Row = {'model': name, 'image_size': size}
        what |= {key: getattr(network, key) for key in ('patch_size', 'depth') if key in there}
        if network.trunk.patch_size:
            what['tokens'] = math.prod(network.trunk.grid(size))
        what['implementation'] = network.attention if 'attention' in there else ''
        for direction in (*PASSES, STEP):
            fn, args = _pass(direction, network, batch, size)
            cost = batch * flops.model_flops(network, size, backward=direction != 'forward')
            runs = STEPS if direction == STEP else 1
            measured = timing.measure(fn, args, flops=cost, repeats=repeats, dtype=dtype, runs=runs)
            row = {**what, 'pass': direction, **measured}
            rows.append({**row, 'images_per_second': batch / row['seconds']})
            tables.write(rows, out, 'model')
        if peer and patch is None and depth is None:
            times = _peer(peer, 'timm_model', (name, size, batch, dtype, repeats)) or []
            for row, seconds in zip(rows[-3:], times, strict=False):
                row |= {'timm_seconds': seconds, 'times_as_fast': seconds / row['seconds']}
            tables.write(rows, out, 'model')
    tables.show(rows)
    for grown in ('tokens', 'depth', 'image_size'):
        values = [{r.get(grown) for r in rows if r['model'] == name} - {None} for name in models]
        if min(map(len, values)) > 1:
            return tables.growth(rows, grown, ('model', 'implementation'), out, 'model', format)


def _require(peer: str | None) -> None:
    """Checks for the Python of a peer before anything is timed."""
    if peer is not None and shutil.which(peer) is None:
        raise ValueError(f'--peer must name a Python that can be run: {peer!r}.')


@functools.cache
def _peer(python: str, program: str, arguments: tuple[Any, ...]) -> Any:
    """What a program of peers/ prints, run by a Python that has what it times; None if it fails."""
    call = [python, str(PEERS / f'{program}.py'), json.dumps(arguments)]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def train(
    experiments: Annotated[tuple[str, ...], Range(1)] = (
        'vit_cifar100', 'patchconvnet_cifar10', 'cait_cifar10',
    ),
    batch_size: Count | None = None, attention: Implementation | None = None, repeats: Count = 5,
    out: str | None = None,
) -> None:  # fmt: skip
    """Images per second of experiments' training steps, and where the time goes.

    Times, on random images of the experiment's size, its augmentation, its model forward and
    forward+backward with dropout, the optimizer and the whole compiled step, on one device, and
    the step inside the loop over many steps that a run dispatches, on all cores of a CPU.

    Args:
        experiments: files of experiments/ by name.
        batch_size: images a step; the experiment's without it.
        attention: one of `attend.IMPLEMENTATIONS`; the experiment's without it.
        repeats: runs, of which the median is taken.
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
    """(part of a training step, seconds), each compiled by itself."""
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
    spread = layout.layout(experiment.parallel, _cores(batch), batch_size=batch)
    run = trainer.Trainer(experiment, Data(pixels, labels, ()), spread, (0,))
    key, (state,) = jax.random.key(0), run.init()
    state = jax.tree.map(jnp.asarray, jax.device_get(state))  # on one device
    index = jnp.arange(batch)
    vary = functools.partial(augment, settings, (mean, deviation), network.num_classes)
    images, soft = jax.jit(vary)(key, pixels, labels, index)
    tx = optimizer(experiment.optim, run.total)
    example = {'image': pixels, 'label': labels, 'index': index}

    def loss(params: Any) -> jax.Array:
        rngs = {'dropout': key}
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


def similarity(
    depths: Annotated[tuple[Extent, ...], Range(1)] = (12, 24), repeats: Count = 5,
    peer: str | None = None, out: str | None = None,
) -> None:  # fmt: skip
    """Time of CKA between all layers of two models, their forward passes excluded.

    Layers of ViT-Ti's size at 224 pixels (197 x 192 features), 256 images in batches of 64; the
    features are noise. Memory is the process's peak, which includes one batch of features.

    Args:
        depths: layers of each model.
        repeats: runs, of which the median is taken.
        peer: a Python that has torch and torch_cka: times that on the same features, once.
        out: folder for similarity.csv.
    """
    _require(peer)
    batches, shape = 4, (64, 197 * 192)

    def once(depth: int) -> tuple[float, np.ndarray]:
        making = 0.0

        def stream():
            nonlocal making
            for i in range(batches):
                start = time.perf_counter()
                rngs = [np.random.default_rng([i, side]) for side in (0, 1)]
                pair = tuple(r.standard_normal((depth, *shape), dtype=np.float32) for r in rngs)
                pair = jax.block_until_ready(jax.device_put(pair))
                making += time.perf_counter() - start
                yield pair

        start = time.perf_counter()
        matrix = minibatch_cka(stream())
        return time.perf_counter() - start - making, matrix

    rows: list[tables.Row] = []
    for depth in sorted(depths):
        once(depth)  # compiles
        seconds, matrices = zip(*(once(depth) for _ in range(repeats)), strict=True)
        ours = statistics.median(seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        row: tables.Row = {'layers': f'{depth} x {depth}', 'seconds': ours, 'bytes': peak}
        row['batch_MiB'] = 2 * depth * math.prod(shape) * 4 / 2**20
        if peer and (answer := _peer(peer, 'cka_by_torch', (depth, batches, shape))):
            theirs, matrix = answer
            row |= {'torch_cka_seconds': theirs, 'times_as_fast': theirs / ours}
            row['largest_difference'] = np.abs(matrices[0] - np.array(matrix)).max()
        rows.append(row)
        tables.write(rows, out, 'similarity')
    tables.show(rows)


def feed(
    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar='FOLDER')],
    size: Side = 224, batch: Count = 256, steps: Count = 9,
    repeats: Count = 3, workers: Count | None = None, out: str | None = None,
) -> None:  # fmt: skip
    """Images that a stream feeds in a second, beside decoding alone.

    Alone, as many processes make random resized crops of the same files and hand over nothing.

    Args:
        folder: of images, with folders in it; each is read several times where it has few.
        size: side of the crops in pixels.
        batch: images a step.
        steps: of one timing, rounded up to whole chunks of training.
        repeats: timings of each, in turn, of which the median is taken.
        workers: processes; without it what training takes, and alone a process for each core.
        out: folder for feed.csv.
    """
    files = sorted(p for p in pathlib.Path(folder).rglob('*') if p.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f'there are no images ({", ".join(SUFFIXES)}) in {folder}.')
    files = [*itertools.islice(itertools.cycle(files), max(len(files), batch))]
    crop, count = Crop(size, 0.08), workers or os.cpu_count() or 1
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
            stream.read(0, chunk, space)  # starts them
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


def interventions(
    model: str = 'vit_small_patch16', images: Count = 16, image_size: Side = 224, passes: Count = 6,
    repeats: Count = 3, peer: str | None = None, out: str | None = None,
) -> None:  # fmt: skip
    """Time of zeroing every head of every layer of a model, one at a time.

    One program, which starts each pass from the input of its layer, beside a loop of whole passes,
    compiled once; with `peer`, beside that loop in PyTorch, with hooks on timm's model. They take
    turns. Passes of a loop are all alike, so some are timed and the loop's seconds are as many
    times theirs.

    Args:
        model: a published size.
        images: at a time.
        image_size: side in pixels.
        passes: of each loop that are timed, of one for each head of each layer.
        repeats: turns, of which medians are taken, of the ratios too.
        peer: a Python that has torch and timm.
        out: folder for intervene.csv.
    """
    _require(peer)
    network, path = published.named(model), 'blocks/attention/heads'
    shape = jax.ShapeDtypeStruct((images, image_size, image_size, 3), jnp.float32)
    shapes = (parameter_shapes(network, image_size), shape)
    params, inputs = timing.random_arrays(shapes)
    if path not in (known := known_paths(network, inputs)):
        raise ValueError(f'--model must have {path}, as a ViT or CaiT has: {model}.')
    depth, _, _, heads, _ = known[path]
    each = np.eye(heads, dtype=bool)[None, :, None, None, :, None]
    sites = np.linspace(0, depth * heads - 1, passes).round().astype(int)
    sites = [divmod(int(site), heads) for site in sites]
    wheres = [places(network, inputs, path, layers=i, heads=j) for i, j in sites]

    def together(params: Any, images: jax.Array) -> jax.Array:
        return sweep(network, params, images, {path: Edit(each)})[0]

    def one(params: Any, images: jax.Array, where: Any) -> jax.Array:
        return intervene(network, params, images, {path: Edit(where)})[0]

    whole = timing.compiled(together, shapes)[0]
    single = timing.compiled(one, (*shapes, jax.ShapeDtypeStruct(wheres[0].shape, bool)))[0]
    rows: list[tables.Row] = []
    names = ['one program', 'a loop'] + ["a loop over timm's model in PyTorch"] * bool(peer)
    took: dict[str, list[float]] = {name: [] for name in names}
    single(params, inputs, wheres[0])
    for turn in range(repeats):
        start = time.perf_counter()
        found = jax.block_until_ready(whole(params, inputs))
        took[names[0]].append(time.perf_counter() - start)
        start = time.perf_counter()
        wanted = [jax.block_until_ready(single(params, inputs, where)) for where in wheres]
        took[names[1]].append((time.perf_counter() - start) * depth * heads / passes)
        asked = (model, image_size, images, tuple(sites), turn)
        if peer and (seconds := _peer(peer, 'timm_heads', asked)):
            took[names[2]].append(seconds * depth * heads / passes)
        difference = np.abs(np.array([found[site] for site in sites]) - wanted).max()
        rows = [
            {'what': name, 'ablations': depth * heads, 'images': images,
             'seconds': statistics.median(own),
             'times_as_long': statistics.median(np.divide(own, took[names[0]][: len(own)]))}
            for name, own in took.items() if own
        ]  # fmt: skip
        rows[0]['bytes'] = timing.program_bytes(whole)
        rows[1] |= {'bytes': timing.program_bytes(single), 'largest_difference': difference}
        tables.write(rows, out, 'intervene')
    tables.show(rows)


PASSES = ('forward', 'forward+backward')
STEP = 'training step'  # forward, backward and AdamW, `STEPS` in a loop, as a run dispatches them
STEPS = 3


def _cores(batch: int) -> list[Any]:
    """What a step is spread over: a CPU's cores that part a batch evenly, else one device."""
    devices = jax.devices()
    parts = devices[0].platform == 'cpu' and batch % len(devices) == 0
    return devices if parts else devices[:1]


def _pass(direction: str, network: Any, batch: int, size: int) -> tuple[Callable[..., Any], Any]:
    """A model's forward pass, its gradient or training steps; the shapes of the arguments."""
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    params = parameter_shapes(network, size)

    def run(params: Any, images: jax.Array) -> jax.Array:
        return network.apply({'params': params}, images)

    if direction != STEP:
        return run if direction == 'forward' else timing.backward(run), (params, images)
    tx, outputs = optimizer(Optim(), 1000), jax.eval_shape(run, params, images).shape[-1]
    devices = _cores(batch)
    soft = jnp.eye(batch // len(devices), outputs)
    split = training.WHOLE
    if len(devices) > 1:
        split = training.Split(layout.AXIS, layout.slices(len(soft), devices[0]))
    augmented = lambda _, x, *__: (x, soft)  # noqa: E731
    recipe = training.Recipe(model=network, tx=tx, augment=augmented, split=split)

    def steps(params: Any, images: jax.Array) -> training.TrainState:
        def step(_: jax.Array, state: training.TrainState) -> training.TrainState:
            return training.train_step(state, example, jax.random.key(0), recipe)[0]

        example = {'image': images, 'label': None, 'index': None}
        state = training.TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
        return jax.lax.fori_loop(0, STEPS, step, state)

    if len(devices) > 1:
        mesh, spec = jax.sharding.Mesh(devices, layout.AXIS), jax.sharding.PartitionSpec
        steps = jax.shard_map(
            steps, mesh=mesh, in_specs=(spec(), spec(layout.AXIS)), out_specs=spec(),
            check_vma=False,
        )  # fmt: skip
    return steps, (params, images)


if __name__ == '__main__':
    commands = {'compile': compile_time, 'intervene': interventions}
    commands |= {each.__name__: each for each in (attention, feed, model, similarity, train)}
    commands = {name: command.checked(each) for name, each in commands.items()}
    parse = functools.partial(command.parse, cli=tyro.extras.subcommand_cli_from_dict)
    command.guard(lambda: parse(commands, description=__doc__)())
