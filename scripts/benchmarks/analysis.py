"""Cost of analysis: similarity of representations, and ablating heads."""

import math
import resource
import statistics
import time
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks import peers
from command import tables

from vitjax import models as published
from vitjax.analysis.similarity import minibatch_cka
from vitjax.base.ranges import Count, Extent, Range, Side
from vitjax.inside.capture import paths
from vitjax.inside.intervene import Edit, intervene, places
from vitjax.inside.sweep import sweep
from vitjax.models.base import parameter_shapes
from vitjax.plan import timing


def similarity(
    depths: Annotated[tuple[Extent, ...], Range(1)] = (12, 24), repeats: Count = 5,
    peer: str | None = None, out: str | None = None,
) -> None:  # fmt: skip
    """Time of CKA between all layers of two models, without their forward passes.

    Layers have ViT-Ti's size at 224 pixels (197 x 192 features) and 256 images in batches of 64;
    the features are noise. Memory is the process's peak, which includes one batch of features.

    Args:
        depths: layers of each model.
        peer: Python with torch and torch_cka, which times torch_cka once on the same features.
        out: folder for similarity.csv.
    """
    peers.require(peer)
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
        if peer and (answer := peers.ask(peer, 'cka_by_torch', (depth, batches, shape))):
            theirs, matrix = answer
            row |= {'torch_cka_seconds': theirs, 'times_as_fast': theirs / ours}
            row['largest_difference'] = np.abs(matrices[0] - np.array(matrix)).max()
        rows.append(row)
        tables.write(rows, out, 'similarity')
    tables.show(rows)


def interventions(
    model: str = 'vit_small_patch16', images: Count = 16, image_size: Side = 224, passes: Count = 6,
    repeats: Count = 3, peer: str | None = None, out: str | None = None,
) -> None:  # fmt: skip
    """Time of zeroing every head of every layer of a model, one at a time.

    Compares one program, which starts each pass from the input of its layer, with a loop of whole
    passes, compiled once; with --peer also with that loop in PyTorch, by hooks on timm's model.
    They take turns. All passes of a loop cost the same: --passes of them are timed, and their
    seconds scaled to the whole loop.

    Args:
        model: published size, as in vit_small_patch16.
        images: images per batch.
        image_size: side of the input in pixels.
        passes: passes of each loop that are timed, of one for each head of each layer.
        repeats: turns; results, ratios included, are their median.
        peer: Python with torch and timm.
        out: folder for intervene.csv.
    """
    peers.require(peer)
    network, path = published.named(model), 'blocks/attention/heads'
    shape = jax.ShapeDtypeStruct((images, image_size, image_size, 3), jnp.float32)
    shapes = (parameter_shapes(network, image_size), shape)
    params, inputs = timing.random_arrays(shapes)
    if path not in (known := paths(network, inputs)):
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
        if peer and (seconds := peers.ask(peer, 'timm_heads', asked)):
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
