"""Measure what runs cost: compilation, attention, whole models; time, memory and arithmetic.

Times are medians over repeats with the device synchronised, compilation apart. Run on a machine
that does nothing else.
"""

import csv
import functools
import itertools
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import command
import tyro

Row = dict[str, Any]

os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'  # a program read from disk took no compiling


def compile_time(
    model: str = 'cait_xxs24',
    depths: tuple[int, ...] = (12, 96),
    image_size: int = 224,
    repeats: int = 3,
    out: str | None = None,
) -> None:
    """Time to compile a model's gradient at several depths; one program serves all layers.

    Args:
        model: a published size, as in cait_xxs24.
        depths: of the trunk.
        image_size: side of the input in pixels.
        repeats: compilations, of which the median counts.
        out: folder for compile.csv.
    """
    import jax

    from vitjax import models

    rows: list[Row] = []
    for depth in depths:
        network = models.named(model, depth=depth)
        fn, args = _pass('forward+backward', network, 1, image_size)
        seconds = []
        for _ in range(repeats):
            jax.clear_caches()
            start = time.perf_counter()
            jax.jit(fn).lower(*args).compile()
            seconds.append(time.perf_counter() - start)
        rows.append({'model': model, 'depth': depth, 'compile_seconds': statistics.median(seconds)})
        rows[-1]['of_the_first'] = rows[-1]['compile_seconds'] / rows[0]['compile_seconds']
        _write(rows, out, 'compile')
    _print(rows)


def attention(
    variants: tuple[str, ...] = ('multi_head', 'talking_heads', 'class', 'pooling'),
    tokens: tuple[int, ...] = (64, 256, 1024, 4096),
    implementations: tuple[str, ...] = ('explicit', 'chunked', 'fused'),
    batch: int = 2,
    heads: int = 8,
    head_width: int = 48,
    dtype: str = 'float32',
    repeats: int = 10,
    out: str | None = None,
) -> None:
    """Time, memory and arithmetic of attention layers against the number of tokens.

    A layer is what a model has: projections and attention, self-attention with or without talking
    heads, one class token over the patches (class), the same with a single head (pooling).

    Args:
        variants: multi_head, talking_heads, class, pooling.
        tokens: patches.
        implementations: explicit, chunked, fused, pallas, auto.
        batch: images at a time.
        heads: of attention; pooling has one.
        head_width: channels of a head; a layer's width is heads x head_width.
        dtype: of the arithmetic, float32 or bfloat16.
        repeats: runs, of which the median counts.
        out: folder for attention.csv and attention.png.
    """
    import jax

    from vitjax.flops import flops
    from vitjax.layers.attention import ClassAttention, MultiHeadAttention

    def layer(variant: str, implementation: str) -> Any:
        options: dict[str, Any] = {'implementation': implementation, 'dtype': dtype}
        if variant in ('class', 'pooling'):
            return ClassAttention(heads if variant == 'class' else 1, **options)
        return MultiHeadAttention(heads, head_width, variant == 'talking_heads', **options)

    def looked_at(module: Any, params: Any, inputs: Any) -> Any:  # computes nothing again
        return module.apply({'params': params}, *inputs, mutable=['intermediates'])[0]

    _require('variants', variants, ('multi_head', 'talking_heads', 'class', 'pooling'))
    rows: list[Row] = []
    for variant, count, implementation in itertools.product(variants, tokens, implementations):
        module, reference = layer(variant, implementation), layer(variant, 'explicit')
        patches = jax.ShapeDtypeStruct((batch, count, heads * head_width), dtype)
        token = jax.ShapeDtypeStruct((batch, 1, heads * head_width), dtype)
        inputs = (token, patches) if variant in ('class', 'pooling') else (patches,)
        params = jax.eval_shape(module.init, jax.random.key(0), *inputs)['params']
        for direction in PASSES:
            fn = _direction(direction, lambda p, x, m=module: m.apply({'params': p}, *x), (0, 1))
            exact = _direction(direction, lambda p, x, m=reference: looked_at(m, p, x), (0, 1))
            what = {'variant': variant, 'tokens': count, 'implementation': implementation}
            cost = flops(exact, params, inputs)
            row = {**what, 'pass': direction}
            rows.append({**row, **measure(fn, (params, inputs), cost, repeats, dtype)})
            _write(rows, out, 'attention')
    _print(rows)
    _report(rows, 'tokens', ('variant', 'implementation'), out, 'attention')


def model(
    models: tuple[str, ...] = ('vit_tiny_patch16', 'cait_xxs24'),
    image_sizes: tuple[int, ...] = (),
    patch_sizes: tuple[int, ...] = (),
    depths: tuple[int, ...] = (),
    implementations: tuple[str, ...] = ('auto',),
    batch: int = 8,
    dtype: str = 'float32',
    remat: bool = False,
    repeats: int = 10,
    peer: str | None = None,
    out: str | None = None,
) -> None:
    """Time, memory and arithmetic of whole models over image size, patch size and depth.

    Args:
        models: published sizes, as in vit_tiny_patch16, or files of experiments/, as in digits.
        image_sizes: sides of the input in pixels; an experiment's own, else 224, without it.
        patch_sizes: instead of the published one.
        depths: of the trunk, instead of the published one.
        implementations: of attention: explicit, chunked, fused, pallas, auto.
        batch: images at a time.
        dtype: of the arithmetic, float32 or bfloat16.
        remat: recompute blocks in the backward pass.
        repeats: runs, of which the median counts.
        peer: a Python that has torch and timm, which is then timed after each published size, under
            torch.compile on a GPU.
        out: folder for model.csv and model.png.
    """
    import json
    import subprocess

    from vitjax.flops import model_flops

    timed: dict[tuple[str, int], list[float]] = {}  # the peer's seconds: it has one implementation
    rows: list[Row] = []
    for name, size, patch, depth, implementation in itertools.product(
        models, image_sizes or (None,), patch_sizes or (None,), depths or (None,), implementations
    ):
        fields = {'patch_size': patch, 'depth': depth, 'remat': remat or None}
        fields |= {'dtype': dtype, 'attention': implementation}
        network, own_size = _network(name)
        size = size or own_size
        known = {k: v for k, v in fields.items() if v is not None and hasattr(network, k)}
        network = network.clone(**known)
        what: Row = {'model': name, 'image_size': size}
        what |= {k: getattr(network, k) for k in ('patch_size', 'depth') if hasattr(network, k)}
        what |= (
            {'tokens': (size // network.patch_size) ** 2} if hasattr(network, 'patch_size') else {}
        )
        what |= {'implementation': getattr(network, 'attention', '')}
        for direction in (*PASSES, STEP):
            fn, args = _pass(direction, network, batch, size)
            cost = batch * model_flops(network, size, backward=direction != 'forward')
            runs = STEPS if direction == STEP else 1
            row = {**what, 'pass': direction, **measure(fn, args, cost, repeats, dtype, runs)}
            rows.append({**row, 'images_per_second': batch / row['seconds']})
            _write(rows, out, 'model')
        if peer and patch is None and depth is None:
            if (name, size) not in timed:
                command = [peer, '-c', TIMM, json.dumps([name, size, batch, dtype, repeats])]
                printed = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
                timed[name, size] = json.loads(printed or '[]')
            for row, seconds in zip(rows[-3:], timed[name, size], strict=False):
                row |= {'timm_seconds': seconds, 'times_as_fast': seconds / row['seconds']}
            _write(rows, out, 'model')
    _print(rows)
    for grown in ('tokens', 'depth', 'image_size'):
        of_models = {name: {r.get(grown) for r in rows if r['model'] == name} for name in models}
        if all(len(values - {None}) > 1 for values in of_models.values()):
            return _report(rows, grown, ('model', 'implementation'), out, 'model')


def _network(name: str) -> tuple[Any, int]:
    """A published model or an experiment's, and the side of its images."""
    import importlib

    from vitjax.models import NAMES, named

    if name in NAMES:
        return named(name), 224
    experiment = importlib.import_module('train').find(name).experiment
    return experiment.model, experiment.augment.size


# Times timm's model of our name, as `PASSES` and `STEP` time ours; prints the medians in seconds.
# Parameters stay float32 where they train, as ours do.
TIMM = """
import json, statistics, sys, time
import timm, torch

name, size, batch, dtype, repeats = json.loads(sys.argv[1])
names = [n for n in (f'{name}_{size}', f'{name}_224', name) if timm.is_model(n)]
if not names:
    print('[]')
    sys.exit()
gpu = torch.cuda.is_available()
device, half = 'cuda' if gpu else 'cpu', dtype == 'bfloat16'
torch.set_float32_matmul_precision('highest')

def median(run):
    def once():
        run()
        if gpu:
            torch.cuda.synchronize()
    for _ in range(3):
        once()
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        once()
        took.append(time.perf_counter() - start)
    return statistics.median(took)

def make():
    try:
        network = timm.create_model(names[0], img_size=size)
    except TypeError:  # a model that takes any size
        network = timm.create_model(names[0])
    return network.to(device)

images = torch.randn(batch, 3, size, size, device=device)
network = make().eval()
inputs = images
if half:
    network, inputs = network.bfloat16(), images.bfloat16()
forward = torch.compile(network) if gpu else network
with torch.inference_mode():
    times = [median(lambda: forward(inputs))]
network = make().train()
trained = torch.compile(network) if gpu else network

labels = torch.arange(batch, device=device)
optimizer = torch.optim.AdamW(network.parameters(), 1e-4)

def backward(loss):
    network.zero_grad(set_to_none=True)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
        out = trained(images)
    loss(out.float()).backward()

def step():
    backward(lambda out: torch.nn.functional.cross_entropy(out, labels))
    optimizer.step()

times.append(median(lambda: backward(lambda out: out.square().sum())))
print(json.dumps([*times, median(step)]))
"""


def train(
    experiments: tuple[str, ...] = ('vit_cifar100', 'patchconvnet_cifar10', 'cait_cifar10'),
    batch_size: int | None = None,
    attention: str | None = None,
    repeats: int = 5,
    out: str | None = None,
) -> None:
    """Images per second of experiments' training steps, and where the time goes.

    Times, on random images of the experiment's size, its augmentation, its model forward and
    forward+backward with dropout, the optimizer, the whole compiled step, and the step inside the
    loop over many steps that a run dispatches.

    Args:
        experiments: files of experiments/ by name.
        batch_size: images a step; the experiment's without it.
        attention: explicit, chunked, fused, pallas or auto; the experiment's without it.
        repeats: runs, of which the median counts.
        out: folder for train.csv.
    """
    import importlib

    rows: list[Row] = []
    for name in experiments:
        experiment = importlib.import_module('train').find(name).experiment
        size = batch_size or experiment.batch_size
        for part, seconds in _parts(experiment, size, attention, repeats):
            row = {'experiment': name, 'batch': size, 'part': part, 'seconds': seconds}
            rows.append({**row, 'images_per_second': size / seconds})
            _write(rows, out, 'train')
    _print(rows)


def _parts(
    experiment: Any, batch: int, attention: str | None, repeats: int
) -> Iterator[tuple[str, float]]:
    """(part of a training step, seconds), each compiled by itself."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vitjax import sharding
    from vitjax.data import augment
    from vitjax.optim import optimizer, trainable
    from vitjax.train import cross_entropy, init_state, train_step

    network, settings = experiment.model, experiment.augment
    if attention and hasattr(network, 'attention'):
        network = network.clone(attention=attention)
    side, key = settings.size, jax.random.key(0)
    tx = optimizer(experiment.optim, 1000)
    state = init_state(
        key, model=network, tx=tx, image_shape=(side, side, 3), ema=experiment.optim.ema > 0
    )
    original = 8 if side == 8 else experiment.data.size or 32
    pixels = np.random.default_rng(0).integers(0, 256, (batch, original, original, 3), np.uint8)
    labels = np.arange(batch, dtype=np.int32) % network.num_classes
    index = jnp.arange(batch)
    vary = functools.partial(
        augment.augment, settings, ((0.5,) * 3, (0.25,) * 3), network.num_classes
    )
    images, soft = jax.jit(vary)(key, pixels, labels, index)
    pattern = experiment.optim.train
    mask = None if pattern == '.*' else trainable(state.params, pattern)

    def loss(params: Any) -> jax.Array:
        rngs = {'dropout': key}
        return cross_entropy(network.apply({'params': params}, images, True, rngs=rngs), soft)

    step = functools.partial(
        train_step, model=network, tx=tx, augment=vary, ema=experiment.optim.ema, trainable=mask
    )
    example = {'image': pixels, 'label': labels, 'index': index}

    def seconds(fn: Callable[..., Any], *args: Any) -> float:
        return _seconds(jax.jit(fn), args, repeats)

    yield 'augment', seconds(vary, key, pixels, labels, index)
    yield 'forward', seconds(loss, state.params)
    yield 'forward+backward', seconds(jax.value_and_grad(loss), state.params)
    yield 'optimizer', seconds(tx.update, state.params, state.opt_state, state.params)
    yield 'step', seconds(step, state, example, key)
    spread = sharding.spread('none', step, key, state, batch_size=batch)
    data = spread.put_data(pixels, labels)
    rows = np.tile(np.arange(batch, dtype=np.int32), (repeats, 1))
    here, _ = spread.run(spread.put(state), data, rows, 0)
    jax.block_until_ready(here)
    start = time.perf_counter()
    jax.block_until_ready(spread.run(here, data, rows, repeats))
    yield 'step in the loop', (time.perf_counter() - start) / repeats


def similarity(
    depths: tuple[int, ...] = (12, 24),
    repeats: int = 5,
    peer: str | None = None,
    out: str | None = None,
) -> None:
    """Time of CKA between all layers of two models, their forward passes excluded.

    Layers of ViT-Ti's size at 224 pixels (197 x 192 features), 256 images in batches of 64; the
    features are noise. Memory is the most that the process ever had, one batch of features with it.

    Args:
        depths: layers of each model.
        repeats: runs, of which the median counts.
        peer: a Python that has torch and torch_cka, which is then timed on the same features, once.
        out: folder for similarity.csv.
    """
    import json
    import resource
    import subprocess

    import jax
    import numpy as np

    from vitjax.analysis.similarity import minibatch_cka

    batches, shape = 4, (64, 197 * 192)

    def features(batch: int, depth: int, side: int) -> jax.Array:
        rng = np.random.default_rng([batch, side])
        return jax.device_put(rng.standard_normal((depth, *shape), dtype=np.float32))

    def once(depth: int) -> tuple[float, np.ndarray]:
        making = 0.0

        def stream():
            nonlocal making
            for i in range(batches):
                start = time.perf_counter()
                pair = jax.block_until_ready((features(i, depth, 0), features(i, depth, 1)))
                making += time.perf_counter() - start
                yield pair

        start = time.perf_counter()
        matrix = minibatch_cka(stream())
        return time.perf_counter() - start - making, matrix

    rows: list[Row] = []
    for depth in sorted(depths):
        once(depth)  # compiles
        seconds, matrices = zip(*(once(depth) for _ in range(repeats)), strict=True)
        ours = statistics.median(seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        row: Row = {'layers': f'{depth} x {depth}', 'seconds': ours, 'bytes': peak}
        row['batch_MiB'] = 2 * depth * math.prod(shape) * 4 / 2**20
        if peer:
            command = [peer, '-c', TORCH_CKA, json.dumps([depth, batches, shape])]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            theirs, matrix = json.loads(printed)
            row |= {'torch_cka_seconds': theirs, 'times_as_fast': theirs / ours}
            row['largest_difference'] = np.abs(matrices[0] - np.array(matrix)).max()
        rows.append(row)
        _write(rows, out, 'similarity')
    _print(rows)


# Times torch_cka on the features that `similarity` takes; prints its seconds and its matrix.
TORCH_CKA = """
import json, sys, time, warnings
import numpy as np, torch
from torch_cka import CKA

warnings.simplefilter('ignore')
depth, batches, shape = json.loads(sys.argv[1])
features = [
    [torch.from_numpy(np.random.default_rng([i, side]).standard_normal(
        (depth, *shape), dtype=np.float32)) for i in range(batches)]
    for side in (0, 1)
]

class Replay(torch.nn.Module):  # hands features out as if its layers had made them
    def __init__(self, side):
        super().__init__()
        self.side = side
        self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(depth))

    def forward(self, index):
        for layer, value in zip(self.layers, features[self.side][int(index)]):
            layer(value)

names = [f'layers.{i}' for i in range(depth)]
cka = CKA(Replay(0), Replay(1), 'x', 'y', names, names)
loader = torch.utils.data.DataLoader(torch.arange(batches)[:, None])
start = time.perf_counter()
cka.compare(loader, loader)
print(json.dumps([time.perf_counter() - start, cka.hsic_matrix.tolist()]))
"""


PASSES = ('forward', 'forward+backward')
STEP = 'training step'  # forward, backward and AdamW, `STEPS` in a loop, as a run dispatches them
STEPS = 3


def _pass(direction: str, network: Any, batch: int, size: int) -> tuple[Callable[..., Any], Any]:
    """A model's forward pass, its gradient at the parameters or steps; its arguments' shapes."""
    import jax
    import jax.numpy as jnp

    from vitjax.optim import Optim, optimizer
    from vitjax.train import TrainState, train_step

    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), images)['params']

    def run(params: Any, images: jax.Array) -> jax.Array:
        return network.apply({'params': params}, images)

    if direction != STEP:
        return _direction(direction, run, 0), (params, images)
    tx, outputs = optimizer(Optim(), 1000), jax.eval_shape(run, params, images).shape[-1]
    soft = jnp.eye(batch, outputs)
    settings: dict[str, Any] = {'model': network, 'tx': tx, 'augment': lambda _, x, *__: (x, soft)}

    def steps(params: Any, images: jax.Array) -> TrainState:
        example = {'image': images, 'label': None, 'index': None}
        state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
        key = jax.random.key(0)
        return jax.lax.fori_loop(
            0, STEPS, lambda _, state: train_step(state, example, key, **settings)[0], state
        )

    return steps, (params, images)


def _direction(direction: str, run: Callable[..., Any], argnums: Any) -> Callable[..., Any]:
    """`run` as it is, or its gradient at some arguments, which needs every output."""
    import jax
    import jax.numpy as jnp

    if direction == 'forward':
        return run

    def scalar(*args: Any) -> jax.Array:
        return jnp.square(run(*args).astype(jnp.float32)).sum()

    return jax.value_and_grad(scalar, argnums)


def measure(
    fn: Callable[..., Any], shapes: Any, flops: int, repeats: int, dtype: str, runs: int = 1
) -> Row:
    """Compiles and times `fn`, `runs` of something, on random arguments of the given shapes.

    Bytes are what the compiler says that arguments, results and temporaries take together. Where
    that is more than the device has, or the device says so while it runs, `status` is `out of
    memory` and the times are NaN. Utilisation is FLOP/s over `peak`'s: of the model's own FLOPs,
    without what is recomputed, as Chowdhery et al. (2022, appendix B) have it.
    """
    import jax

    row: Row = {'status': 'ok', 'compile_seconds': math.nan, 'seconds': math.nan}
    row |= {'bytes': math.nan, 'flops': flops, 'flops_per_second': math.nan}
    row |= {'utilisation': math.nan}
    try:
        start = time.perf_counter()
        compiled = jax.jit(fn).lower(*shapes).compile()
        row['compile_seconds'] = time.perf_counter() - start
        memory: Any = compiled.memory_analysis()
        row['bytes'] = (
            memory.argument_size_in_bytes + memory.output_size_in_bytes
            + memory.temp_size_in_bytes - memory.alias_size_in_bytes
        )  # fmt: skip
        if row['bytes'] > device_bytes():
            return row | {'status': 'out of memory'}
        row['seconds'] = _seconds(compiled, _random(shapes), repeats) / runs
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return row | {'status': 'out of memory'}
    speed = flops / row['seconds']
    return row | {'flops_per_second': speed, 'utilisation': speed / peak(dtype)}


@functools.cache
def peak(dtype: str) -> float:
    """FLOP/s of one large matrix product: what this device reaches, not what its sheet says."""
    import jax
    import jax.numpy as jnp

    side = 2048 if jax.default_backend() == 'cpu' else 8192
    args = _random((jax.ShapeDtypeStruct((side, side), dtype),) * 2)
    return 2 * side**3 / _seconds(jax.jit(jnp.dot), args, 5)


def _seconds(compiled: Callable[..., Any], args: Any, repeats: int) -> float:
    """The median time of a call, after one that warms up."""
    import jax

    took = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:])


def device_bytes() -> float:
    """Memory of the device that runs: what it reports, else the machine's."""
    import jax

    reported = jax.devices()[0].memory_stats() or {}
    return reported.get('bytes_limit') or os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def _random(shapes: Any) -> Any:
    """Arrays of the shapes, normal with deviation 0.1."""
    import jax

    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    draw = zip(keys, leaves, strict=True)
    return tree.unflatten([0.1 * jax.random.normal(k, s.shape, s.dtype) for k, s in draw])


def _require(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [value for value in given if value not in known]
    if unknown:
        raise ValueError(f'--{name} must be of {", ".join(known)}: {", ".join(unknown)}.')


def _write(rows: list[Row], out: str | None, name: str) -> None:
    """Writes the rows so far: what was measured is there if the next one is killed."""
    cells = (f'{_head(name)} {_text(name, value)}' for name, value in rows[-1].items())
    print(', '.join(cells), file=sys.stderr)
    if out:
        path = pathlib.Path(out) / f'{name}.csv'
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('w', newline='') as file:
            writer = csv.DictWriter(file, dict.fromkeys(k for row in rows for k in row))
            writer.writeheader()
            writer.writerows(rows)


def _print(rows: list[Row]) -> None:
    """Prints rows as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    names = dict.fromkeys(name for row in rows for name in row)
    for name in names:
        table.add_column(_head(name), justify='right')
    for row in rows:
        table.add_row(*(_text(name, row.get(name, '')) for name in names))
    Console(width=max(180, Console().width)).print(table)  # a cut name says nothing


HEADS = {
    'compile_seconds': 'compile s', 'seconds': 'ms', 'bytes': 'MiB', 'flops': 'GFLOP',
    'flops_per_second': 'GFLOP/s', 'images_per_second': 'images/s', 'timm_seconds': 'timm ms',
}  # fmt: skip


def _head(name: str) -> str:
    return HEADS.get(name, name.replace('_', ' '))


def _text(name: str, value: Any) -> str:
    if value == '' or isinstance(value, float) and math.isnan(value):
        return '-'
    scales = {
        'seconds': 1e-3,
        'timm_seconds': 1e-3,
        'bytes': 2**20,
        'flops': 1e9,
        'flops_per_second': 1e9,
    }
    if name in scales or isinstance(value, float):
        value = value / scales.get(name, 1)
        return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'
    return str(value)


def _report(
    rows: list[Row], grown: str, names: tuple[str, str], out: str | None, name: str
) -> None:
    """Prints the exponents of time and memory against `grown`, and draws them."""
    import numpy as np

    from vitjax.figures.scaling import exponent, scaling

    if len({row[grown] for row in rows}) < 2:
        return  # nothing grows
    curves: dict[str, dict[tuple[str, str], Any]] = {}
    fits: dict[tuple[str, ...], Row] = {}
    for direction, (quantity, unit) in itertools.product(PASSES, UNITS.items()):
        panel = curves.setdefault(f'{direction}, {unit}', {})
        for curve in dict.fromkeys((row[names[0]], row[names[1]]) for row in rows):
            mine = [r for r in rows if (r[names[0]], r[names[1]], r['pass']) == (*curve, direction)]
            mine.sort(key=lambda row: row[grown])
            x = np.array([row[grown] for row in mine])
            y = np.array([row[quantity] for row in mine], float)  # NaN: out of memory
            panel[curve] = (x, y)
            fit = dict(zip((*names, 'pass'), (*curve, direction), strict=True))
            fits.setdefault((*curve, direction), fit)[f'exponent of {unit}'] = exponent(x, y)
    _print(list(fits.values()))
    if out:
        figure = scaling(curves, x_label=grown)
        figure.savefig(pathlib.Path(out) / f'{name}.png', dpi=120)


UNITS = {'seconds': 'time (s)', 'bytes': 'memory (bytes)'}

COMMANDS: Mapping[str, Callable[..., None]] = {
    'compile': compile_time,
    'attention': attention,
    'model': model,
    'similarity': similarity,
    'train': train,
}

if __name__ == '__main__':
    command.guard(lambda: tyro.extras.subcommand_cli_from_dict(dict(COMMANDS), description=__doc__))
