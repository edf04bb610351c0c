"""Cost of attention layers and whole models: time, memory, arithmetic, compilation."""

import functools
import itertools
import math
import statistics
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from benchmarks import peers
from command import tables

from vitjax import models as published
from vitjax import ops
from vitjax.base import fields, processes
from vitjax.base.ranges import Count, Extent, Formats, Range, Side
from vitjax.experiment import find
from vitjax.experiment.optim import Optim, optimizer
from vitjax.layers.attention import ClassAttention, MultiHeadAttention
from vitjax.models.base import Arithmetic, parameter_shapes
from vitjax.ops import Implementation
from vitjax.plan import flops, timing
from vitjax.training import layout
from vitjax.training import step as training

PASSES = ('forward', 'forward+backward')
STEP = 'training step'  # forward, backward, AdamW: `STEPS` of them in a loop, as in a run
STEPS = 3


def compile_time(
    model: str = 'cait_xxs24', depths: Annotated[tuple[Extent, ...], Range(1)] = (12, 96),
    image_size: Side = 224,
    repeats: Count = 3, out: str | None = None,
) -> None:  # fmt: skip
    """Time to compile a model's gradient at several depths.

    Args:
        model: published size, as in cait_xxs24.
        depths: depths of the trunk.
        image_size: side of the input in pixels.
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

    A layer is a model's, with its projections: self-attention without (multi_head) or with talking
    heads (talking_heads), or a class token's attention over the patches with all heads (class) or a
    single one (pooling).

    Args:
        variants: layers to measure.
        tokens: numbers of patches.
        implementations: implementations of attention to compare.
        batch: images per batch.
        heads: attention heads; pooling has one.
        head_width: channels of a head; the layer's width is heads x head_width.
        dtype: type of the arithmetic.
        out: folder for attention.csv and a figure of growth.
    """

    def layer(variant: str, implementation: str) -> Any:
        options: dict[str, Any] = {'implementation': implementation, 'dtype': dtype}
        if variant in ('class', 'pooling'):
            return ClassAttention(heads if variant == 'class' else 1, **options)
        talking = variant == 'talking_heads'
        return MultiHeadAttention(heads, head_width=head_width, talking=talking, **options)

    def run(module: Any, params: Any, inputs: Any) -> Any:
        with ops.entered():
            return module.apply({'params': params}, *inputs)

    def plain(module: Any, params: Any, inputs: Any) -> Any:  # without recomputation
        return module.apply({'params': params}, *inputs, mutable=['intermediates'])[0]

    rows: list[tables.Row] = []
    for variant, count, implementation in itertools.product(variants, tokens, implementations):
        module, reference = layer(variant, implementation), layer(variant, 'explicit')
        patches = jax.ShapeDtypeStruct((batch, count, heads * head_width), dtype)
        token = jax.ShapeDtypeStruct((batch, 1, heads * head_width), dtype)
        inputs = (token, patches) if variant in ('class', 'pooling') else (patches,)
        params = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
        for direction in PASSES:
            fn, exact = functools.partial(run, module), functools.partial(plain, reference)
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
        image_sizes: sides of the input in pixels; by default an experiment's own, or 224.
        patch_sizes: patch sizes in place of the model's own.
        depths: depths of the trunk in place of the model's own.
        implementations: implementations of attention to compare.
        batch: images per batch.
        dtype: type of the arithmetic.
        remat: recompute blocks in the backward pass.
        peer: Python with torch and timm, which times timm's model after each published size, under
            torch.compile on a GPU.
        out: folder for model.csv and a figure of growth.
    """
    peers.require(peer)
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
            times = peers.ask(peer, 'timm_model', (name, size, batch, dtype, repeats)) or []
            for row, seconds in zip(rows[-3:], times, strict=False):
                row |= {'timm_seconds': seconds, 'times_as_fast': seconds / row['seconds']}
            tables.write(rows, out, 'model')
    tables.show(rows)
    for grown in ('tokens', 'depth', 'image_size'):
        values = [{r.get(grown) for r in rows if r['model'] == name} - {None} for name in models]
        if min(map(len, values)) > 1:
            return tables.growth(rows, grown, ('model', 'implementation'), out, 'model', format)


def cores(batch: int) -> list[Any]:
    """Returns the devices of a step: a CPU's cores if they divide the batch evenly, else one."""
    devices = jax.devices()
    parts = devices[0].platform == 'cpu' and batch % len(devices) == 0
    return devices if parts else devices[:1]


def _pass(direction: str, network: Any, batch: int, size: int) -> tuple[Callable[..., Any], Any]:
    """Returns a model's forward pass, gradient or training steps, and shapes of its arguments."""
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    params = parameter_shapes(network, size)

    def run(params: Any, images: jax.Array) -> jax.Array:
        with ops.entered():
            return network.apply({'params': params}, images)

    if direction != STEP:
        return run if direction == 'forward' else timing.backward(run), (params, images)
    tx, outputs = optimizer(Optim(), 1000), jax.eval_shape(run, params, images).shape[-1]
    devices = cores(batch)
    soft = jnp.eye(batch // len(devices), outputs)
    split = training.WHOLE
    if len(devices) > 1:
        split = training.Split(layout.AXIS, layout.slices(len(soft), devices[0]))

    def labelled(key: Any, images: jax.Array, *_: Any) -> tuple[jax.Array, jax.Array]:
        return images, soft

    recipe = training.Recipe(model=network, tx=tx, augment=labelled, split=split)

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
