"""Print a model as a table: part, output shape, parameters, FLOPs."""

import difflib
import math
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import command
import tables
from tyro.conf import Positional, arg

from vitjax.ranges import Side


class Part(NamedTuple):
    """A module or a parameter; `repeats` is the depth of its stack."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    repeats: int
    parameters: int
    flops: int


def main(
    model: Annotated[Positional[str], arg(metavar='NAME_OR_RUN')], image_size: Side | None = None
) -> None:
    """Print a model as a table: part, output shape, parameters, FLOPs of one image.

    Args:
        model: a published size, as in cait_xxs24, or a run directory.
        image_size: side of the input in pixels; a run's own, else 224 (150 for convnet).
    """
    network, own_size = find(model)
    size = own_size if image_size is None else image_size
    parts = list(split(network, size))
    whole = [part for part in parts if len(part.path) == 1]
    parameters, flops = sum(part.parameters for part in whole), sum(part.flops for part in whole)

    table = tables.table('part', 'output', 'parameters', 'FLOPs')
    for part in parts:
        inside = len(part.path) > 1  # a stack: its parts are one layer's, times the depth
        each = part.repeats if inside else 1
        times = f' ×{part.repeats}' if part.repeats > 1 else ''
        table.add_row(
            f'{"  " * (len(part.path) - 1)}{part.path[-1]}{"" if inside else times}',
            '×'.join(map(str, part.shape)),
            f'{part.parameters // each:,}{times if inside and part.parameters else ""}',
            f'{tables.scaled(part.flops // each)}{times if inside and part.flops else ""}',
            style='dim' if inside else '',
        )
    table.add_section()
    table.add_row('total', '', f'{parameters:,}', tables.scaled(flops), style='bold')
    print(f'{model}: {type(network).__name__}, one image of {size}x{size} pixels')
    tables.put(table)
    print(f'{flops / 2e9:.2f} GMACs; a FLOP is half a multiply-add.')


def find(name: str) -> tuple[Any, int]:
    """The model of a published size or a run, and the side of its images.

    Raises:
        ValueError: if there is neither; it lists close names.
    """
    from vitjax import models, runs

    if name in models.NAMES:
        return models.named(name), 150 if name == 'convnet' else 224
    if pathlib.Path(name).is_file():
        raise ValueError(f'{name} is no run; scripts/convert.py makes one of weights.')
    if pathlib.Path(name).exists():
        run = runs.read_experiment(name)
        return run.model, run.preprocessing.size if run.preprocessing else run.augment.size
    close = difflib.get_close_matches(name, models.NAMES, n=4, cutoff=0.5) or models.NAMES
    raise ValueError(f'no run and no model is named {name!r}; close: {", ".join(close)}.')


def split(model: Any, image_size: int) -> Iterator[Part]:
    """A model's parts in the order they run, a stack's own right after it; computes nothing."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from vitjax.flops import model_flops_by_scope

    shapes: dict[tuple[str, ...], tuple[int, ...]] = {}

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = context.module.path
        if context.method_name != '__call__' or not 1 <= len(path) <= 2:
            return call(*args, **kwargs)
        shapes[path] = ()  # a part comes before what it is made of
        out = call(*args, **kwargs)
        shapes[path] = (out[0] if isinstance(out, tuple) else out).shape[1:]
        return out

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(record):
        made = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    leaves, _ = jax.tree_util.tree_flatten_with_path(made['params'])
    sizes = {tuple(key.key for key in path): leaf.shape for path, leaf in leaves}
    shapes |= {path: shape for path, shape in sizes.items() if len(path) == 1}
    scopes = {
        tuple(s for s in scope.split('/') if not s.startswith(type(model).__name__)): count
        for scope, count in model_flops_by_scope(model, image_size).items()
    }
    stacks = model.trunk.stacks
    for path, shape in shapes.items():
        repeats = stacks.get(path[0], 1)
        parameters = sum(math.prod(s) for p, s in sizes.items() if p[: len(path)] == path)
        flops = sum(count for p, count in scopes.items() if p[: len(path)] == path)
        if len(path) == 1 or (path[0] in stacks and (parameters or flops)):
            yield Part(path, shape, repeats, parameters, flops)


if __name__ == '__main__':
    command.run(main)
