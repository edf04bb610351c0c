"""Print a model as a table: part, output shape, parameters, FLOPs."""

import difflib
import itertools
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import command
from command import tables
from tyro.conf import Positional, arg

from vitjax.base.ranges import Side


class Part(NamedTuple):
    """A module or a parameter of a model; `repeats` is the depth of its stack."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    repeats: int
    parameters: int
    flops: int


def main(
    model: Annotated[Positional[str], arg(metavar='MODEL')], image_size: Side | None = None
) -> None:
    """Print a model as a table: part, output shape, parameters, FLOPs of one image.

    Args:
        model: published size, as in cait_xxs24; experiment, as in digits; run directory; or
            published weights (.safetensors, .npz or hf-hub:owner/name).
        image_size: side of the input in pixels; by default that of the experiment, run or weights,
            and for a published size 224 (150 for convnet).
    """
    network, own_size, trains = find(model)
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
    table.add_row('trainable', '', f'{trainable(network, size, trains):,}', '')
    print(f'{model}: {type(network).__name__}, one image of {size}x{size} pixels')
    tables.put(table)
    print(f'{tables.scaled(flops // 2)}MACs; a FLOP is half a multiply-add.')


def find(name: str) -> tuple[Any, int, str]:
    """Returns a model by its name, the side of its input, and `optim.train`.

    Raises:
        ValueError: if there is no such model; it lists close names.
    """
    from vitjax import experiment, models, pretrained, runs

    path, known = pathlib.Path(name), experiment.known()
    if name in models.NAMES:
        return models.named(name), 150 if name == 'convnet' else 224, '.*'
    if name in known or (path.suffix == '.py' and path.is_file()):
        found = experiment.find(name).experiment
    elif path.is_dir() and not pretrained.is_folder(path):
        found = runs.read_experiment(name)
    elif path.exists() or name.startswith('hf-hub:'):
        found = runs.load(name).experiment
    else:
        close = difflib.get_close_matches(name, (*known, *models.NAMES), n=4, cutoff=0.5)
        there = ', '.join(close) or f'{", ".join(known)}, and the models that the README names'
        raise ValueError(
            f'no model, experiment, run or weights file is named {name!r}; '
            f'{"close" if close else "there are"}: {there}.'
        )
    return found.model, experiment.preprocessing(found).size, found.optim.train


def trainable(model: Any, image_size: int, pattern: str) -> int:
    """Returns the number of parameters that train: those of paths that match the pattern."""
    import jax

    from vitjax.experiment import optim
    from vitjax.models.base import parameter_shapes

    shapes = parameter_shapes(model, image_size)
    train = jax.tree.leaves(optim.trainable(shapes, pattern))
    return sum(leaf.size for leaf, on in zip(jax.tree.leaves(shapes), train, strict=True) if on)


def split(model: Any, image_size: int) -> Iterator[Part]:
    """Yields a model's parts in the order they run, a stack followed by its own; traces only."""
    import jax
    import jax.numpy as jnp

    from vitjax.plan.flops import model_flops_by_scope

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    params, shapes = outputs(model, image)
    found, _ = jax.tree_util.tree_flatten_with_path(params)
    leaves = {tuple(key.key for key in path): leaf for path, leaf in found}
    shapes |= {path: leaf.shape for path, leaf in leaves.items() if len(path) == 1}
    sizes = {path: leaf.size for path, leaf in leaves.items()}
    scopes = {
        tuple(s for s in scope.split('/') if not s.startswith(type(model).__name__)): count
        for scope, count in model_flops_by_scope(model, image_size).items()
    }

    def inside(counts: dict[tuple[str, ...], int], path: tuple[str, ...]) -> int:
        return sum(count for p, count in counts.items() if p[: len(path)] == path)

    stacks, pools = model.trunk.stacks, pooled(model, params, image)
    for module, paths in itertools.groupby(shapes, lambda path: path[0]):
        for path in paths:
            parameters, flops = inside(sizes, path), inside(scopes, path)
            if len(path) == 1 or (module in stacks and (parameters or flops)):
                yield Part(path, shapes[path], stacks.get(module, 1), parameters, flops)
        yield from (Part((name,), shape, 1, 0, 0) for name, shape in pools.pop(module, []))


def outputs(model: Any, image: Any) -> tuple[Any, dict[tuple[str, ...], tuple[int, ...]]]:
    """Returns the shapes of a model's parameters, and of its modules' outputs for one image.

    Modules are in the order they run, to a depth of two, each before its own.
    """
    import flax.linen as nn
    import jax

    shapes: dict[tuple[str, ...], tuple[int, ...]] = {}

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = context.module.path
        if context.method_name != '__call__' or not 1 <= len(path) <= 2:
            return call(*args, **kwargs)
        shapes[path] = ()  # a module precedes its own
        out = call(*args, **kwargs)
        shapes[path] = (out[0] if isinstance(out, tuple) else out).shape[1:]
        return out

    with nn.intercept_methods(record):
        made = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    return made['params'], shapes


# Operations of a model between its modules, by jax's name.
POOLS = {'reduce_sum': 'mean pooling', 'reshape': 'flatten', 'squeeze': 'first token',
         'dot_general': 'average pooling'}  # fmt: skip


def pooled(model: Any, params: Any, image: Any) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Returns the pooling after each module: names of operations, and their outputs' shapes.

    In the trace these operations belong to no module and change the shape.
    """
    import jax

    own, last = type(model).__name__, ''
    found: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    trace = jax.make_jaxpr(lambda params, x: model.apply({'params': params}, x))(params, image)
    for step in trace.jaxpr.eqns:
        scope = [s for s in str(step.source_info.name_stack).split('/') if s]
        inside = [s for s in scope if not s.startswith(own)]
        if inside:
            last = inside[0]
            continue
        if step.primitive.name not in POOLS or not last:
            continue
        before, after = (x[0].aval.shape for x in (step.invars, step.outvars))
        if len(before) == len(after) == 4 or len(before) > len(after) == 2:
            found.setdefault(last, []).append((POOLS[step.primitive.name], after[1:]))
    return found


if __name__ == '__main__':
    command.run(main)
