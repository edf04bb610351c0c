"""The ways to spread a training step: one device, with one seed or several, `pmap` or `fsdp`.

All run the same pure step, many at a dispatch, on data that are on the devices: all that there are,
of which rows say what a step takes, or those of each step, a device having its part of the batch.
A program is compiled once for each step: what differs between two runs of equal shape is an
argument of it.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from vitjax.base.types import PyTree, TrainState
from vitjax.training import split
from vitjax.training.step import Metrics

AXIS = 'batch'
# (state, batch, given, axis=, slices=, gather=)
Step = Callable[..., tuple[TrainState, Metrics]]
# Images that one of several cores takes at a time, whose activations stay in its cache. On two the
# gradient of `vit_cifar100` takes 0.72 of the time that it takes on 128 images a core at once.
SLICE = 8


class Spread(NamedTuple):
    """One way to run the steps of one or several seeds.

    Attributes:
        put: a list of states, one for each seed, as every device or host sees them whole, to the
            devices.
        get: the inverse: a list of states of global arrays, which is what checkpoints hold.
        put_data: images and labels to the devices: all, [N, H, W, 3] and [N], or those of K steps,
            [K, seeds, batch, H, W, 3] and [K, seeds, batch].
        run: `(state, data, rows [K, seeds, batch], count) -> (state, metrics [K, seeds])`: takes
            the first `count` of K steps, whose examples are `rows` of the data or the data's own,
            and stops after one whose loss or gradient is not finite. The state given is used up.
            `count` does not recompile.
        program: `(data, steps) -> (function, arguments)`: the jitted function that `run` calls, and
            the shapes of its arguments with their shardings, for images and labels of which only
            shape and dtype are read, and K = `steps`. `function.lower(*arguments).compile()` needs
            no device to be present. Where seeds train in turn it is the program of one.
        apart: whether `rows` are this process's slice of the batch or the whole.
        chunks_apart: the same of data that are those of each step, and of their rows.
    """

    put: Callable[[list[TrainState]], Any]
    get: Callable[[Any], list[TrainState]]
    put_data: Callable[[np.ndarray, np.ndarray], Any]
    run: Callable[..., tuple[Any, Metrics]]
    program: Callable[[Any, int], tuple[Any, tuple[Any, ...]]]
    apart: bool = False
    chunks_apart: bool = False


def spread(
    way: str, step: Step, given: list[Any], states: list[Any], *, batch_size: int,
    devices: Sequence[Any] | None = None,
) -> Spread:  # fmt: skip
    """Spreads a step over devices.

    Args:
        way: `none`, `pmap`, `fsdp`, or `auto`: pmap on more than one device and for one seed, else
            none. `none` is the first device. Several seeds there are one `vmap` over them; on CPU,
            where batched kernels are slow, one after the other by the program of a single seed: as
            fast as alone and with its bits, where a `lax.map` over them takes 1.08 times as long.
        step: `(state, batch, given, axis=, slices=, gather=)`, as `functools.partial(train_step,
            ...)` makes it. The very same object does not compile again.
        given: of each seed what every step is given unchanged: its training key, or a tree with it.
        states: of each seed its state, or the shapes of it.
        batch_size: images a step, over all devices.
        devices: which devices; None takes all.

    Raises:
        ValueError: for an unknown way, a number of devices that does not divide the batch, or
            several seeds over several devices.
    """
    devices = jax.devices() if devices is None else devices
    # A process's devices side by side, for the slice of the batch that it reads.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    seeds, shapes = len(given), jax.eval_shape(lambda tree: tree, states)
    way = resolved(way, len(devices), seeds)
    if way == 'none':
        together = seeds > 1 and devices[0].platform != 'cpu'
        return (_together if together else _in_turn)(step, given, shapes, batch_size, devices[0])
    if seeds > 1:
        raise ValueError(f'several seeds train on one device: parallel={way!r}, {seeds} seeds.')
    if batch_size % len(devices):
        raise ValueError(
            f'batch_size must be a multiple of the number of devices: {batch_size=}, '
            f'{len(devices)} devices.'
        )
    return (_pmap if way == 'pmap' else _fsdp)(step, given[0], shapes[0], batch_size, devices)


def resolved(way: str, devices: int, seeds: int = 1) -> str:
    """What `spread` takes a way for: `auto` is `pmap` on several devices for one seed, else `none`.

    Raises:
        ValueError: for an unknown way.
    """
    if way == 'auto':
        return 'pmap' if devices > 1 and seeds == 1 else 'none'
    if way not in ('none', 'pmap', 'fsdp'):
        raise ValueError(f"parallel must be 'auto', 'none', 'pmap' or 'fsdp': {way!r}.")
    return way


def many_steps(
    step: Step, state: TrainState, data: tuple[jax.Array, jax.Array], rows: jax.Array,
    count: jax.Array, given: PyTree, axis: str | None = None,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """The first `count` of the K steps whose examples are `rows` [K, ..., batch] of `data`.

    `data` may have those of each step instead, [K, ..., batch, H, W, 3] and [K, ..., batch].

    One compiled program for any count, so that a run stopped anywhere and resumed takes the very
    same steps. Stops after a step whose loss or gradient is not finite. Metrics are [K, ...], NaN
    where no step was taken.
    """
    batch = rows.shape[-1]
    first = 0 if axis is None else jax.lax.axis_index(axis) * batch

    def one(state: TrainState, i: jax.Array) -> tuple[TrainState, Metrics]:
        taken = i if _of_steps(data) else rows[i]
        index = first + jnp.arange(batch)
        with jax.named_scope('examples'):
            examples = {'image': data[0][taken], 'label': data[1][taken], 'index': index}
        return step(state, examples, given, axis=axis)

    def more(carry: Any) -> jax.Array:
        i, _, _, finite = carry
        return (i < count) & finite

    def body(carry: Any) -> Any:
        i, state, metrics, _ = carry
        state, new = one(state, i)
        metrics = {name: metrics[name].at[i].set(new[name]) for name in metrics}
        return i + 1, state, metrics, jnp.isfinite(new['loss'] + new['grad_norm']).all()

    shapes = jax.eval_shape(one, state, jnp.zeros((), jnp.int32))[1]
    metrics = {n: jnp.full((len(rows), *s.shape), jnp.nan) for n, s in shapes.items()}
    start = (jnp.zeros((), jnp.int32), state, metrics, jnp.array(True))
    _, state, metrics, _ = jax.lax.while_loop(more, body, start)
    return state, metrics


def _of_steps(data: Any) -> bool:
    """Whether data are those of each step, and not all that there are."""
    return data[1].ndim > 1


@functools.lru_cache(maxsize=16)
def _program(step: Step) -> Any:
    def take(state: TrainState, data: PyTree, rows: jax.Array, count: jax.Array, given: PyTree):
        return many_steps(step, state, data, rows, count, given)

    return jax.jit(take, donate_argnums=0)


_COUNT = jax.ShapeDtypeStruct((), jnp.int32)


def _rows(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _abstract(values: Any, shardings: Any) -> Any:
    """The shapes of values, with a tree of shardings, or one for all, or none."""
    shapes = jax.eval_shape(lambda tree: tree, values)
    if shardings is None or isinstance(shardings, Sharding):
        one = shardings
        shardings = jax.tree.map(lambda _: one, shapes)
    return jax.tree.map(lambda x, where: x.update(sharding=where), shapes, shardings)


def _in_turn(step: Step, given: list[Any], states: PyTree, batch_size: int, device: Any) -> Spread:
    """The steps of each seed by the program of a single one; the state is a list of states."""
    program = _program(step)

    def run(states: list[TrainState], data: PyTree, rows: np.ndarray, count: int):
        ran = [
            program(state, each, rows[:, i], count, own)
            for i, (state, each, own) in enumerate(zip(states, data, given, strict=True))
        ]
        metrics = jax.tree.map(lambda *of_seeds: np.stack(of_seeds, 1), *(m for _, m in ran))
        return [state for state, _ in ran], metrics

    def program_of_one(data: PyTree, steps: int):
        each = jax.eval_shape(lambda data: of_seeds(data)[0], data)
        values = states[0], each, _rows(steps, batch_size), _COUNT, given[0]
        return program, _abstract(values, SingleDeviceSharding(device))

    def of_seeds(data: PyTree) -> list[PyTree]:
        if _of_steps(data):
            return [tuple(values[:, i] for values in data) for i in range(len(given))]
        return [data] * len(given)  # one array on the device, for all

    put = functools.partial(jax.device_put, device=device)

    def put_data(*data: np.ndarray) -> list[PyTree]:
        return [put(each) for each in of_seeds(data)] if _of_steps(data) else of_seeds(put(data))

    return Spread(put, lambda states: states, put_data, run, program_of_one)


def _together(step: Step, given: list[Any], states: PyTree, batch_size: int, device: Any) -> Spread:
    """The steps of all seeds at once; leaves of the state have a leading axis of seeds."""
    program = _program(_over_seeds(step))
    stacked = _stack(given)

    def get(state: TrainState) -> list[TrainState]:
        return [jax.tree.map(operator.itemgetter(i), state) for i in range(len(given))]

    def run(state: TrainState, data: PyTree, rows: np.ndarray, count: int):
        return program(state, data, rows, count, stacked)

    def program_of_all(data: PyTree, steps: int):
        state = jax.eval_shape(_stack, states)
        values = state, data, _rows(steps, len(given), batch_size), _COUNT, stacked
        return program, _abstract(values, SingleDeviceSharding(device))

    put = functools.partial(jax.device_put, device=device)
    return Spread(
        lambda states: put(_stack(states)), get, lambda *data: put(data), run, program_of_all
    )


@functools.lru_cache(maxsize=16)
def _over_seeds(step: Step) -> Step:
    def mapped(state: TrainState, batch: PyTree, given: PyTree, axis: str | None = None):
        shared = {'image': 0, 'label': 0, 'index': None}
        return jax.vmap(functools.partial(step, axis=axis), (0, shared, 0))(state, batch, given)

    return mapped


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def slices(images: int, device: Any) -> int:
    """In how many slices one of several devices takes its images of a step."""
    return images // SLICE if device.platform == 'cpu' and images % SLICE == 0 else 1


@functools.lru_cache(maxsize=16)
def _pmap_program(step: Step, devices: tuple[Any, ...], slices: int) -> Any:
    step = functools.partial(step, slices=slices)

    def take(state: TrainState, data: PyTree, rows: jax.Array, count: jax.Array, given: PyTree):
        return many_steps(step, state, data, rows, count, given, axis=AXIS)

    return jax.pmap(take, AXIS, in_axes=(0, 0, 0, None, None), devices=devices, donate_argnums=0)


def _pmap(step: Step, given: PyTree, state: PyTree, batch_size: int, devices: Any) -> Spread:
    """Data parallel: parameters on every device, the batch split, gradients averaged."""
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    stacked = NamedSharding(mesh, PartitionSpec(AXIS))
    whole = NamedSharding(mesh, PartitionSpec())
    local = [d for d in devices if d.process_index == jax.process_index()]

    each = batch_size // len(devices)
    mapped = _pmap_program(step, tuple(devices), slices(each, devices[0]))

    def onto(parts: list[Any]) -> jax.Array:
        """An array [...] for each of this process's devices to one of [devices, ...]."""
        copies = [jax.device_put(x[None], d) for x, d in zip(parts, local, strict=True)]
        shape = (len(devices), *parts[0].shape)
        return jax.make_array_from_single_device_arrays(shape, stacked, copies)

    def replicate(tree: PyTree) -> Any:
        """[...] to [devices, ...], a copy on each device."""
        return jax.tree.map(lambda x: onto([np.asarray(x)] * len(local)), tree)

    def put_data(*data: np.ndarray) -> Any:
        if not _of_steps(data):
            return replicate(data)
        return tuple(onto(np.split(values[:, 0], len(local), axis=1)) for values in data)

    def get(state: TrainState) -> list[TrainState]:
        """[devices, ...] to [...], replicated."""

        def leaf(x: jax.Array) -> jax.Array:
            copies = [shard.data[0] for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape[1:], whole, copies)

        return [jax.tree.map(leaf, state)]

    def run(state: TrainState, data: PyTree, rows: np.ndarray, count: int):
        apart = rows.reshape(len(rows), len(local), -1).swapaxes(0, 1)
        state, metrics = mapped(state, data, apart, count, given)
        return state, {k: x.addressable_shards[0].data[0][:, None] for k, x in metrics.items()}

    def program(data: PyTree, steps: int):
        if _of_steps(data):
            data = jax.eval_shape(lambda data: tuple(x[:, 0, :each] for x in data), data)
        once = state, data, _rows(steps, each)
        copy = jax.vmap(lambda tree: tree, in_axes=None, axis_size=len(devices))
        return mapped, (*jax.eval_shape(copy, once), _COUNT, _abstract(given, None))

    return Spread(
        lambda states: replicate(states[0]), get, put_data, run, program,
        apart=True, chunks_apart=True,
    )  # fmt: skip


def _fsdp(step: Step, given: PyTree, state: PyTree, batch_size: int, devices: Any) -> Spread:
    """Fully sharded: one global program; large parameters, moments and the batch are split."""
    # Auto axes: with make_mesh's default, linen's convolutions fail.
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    split_rows = NamedSharding(mesh, PartitionSpec(None, AXIS))
    gather = functools.partial(split.boxed, mesh=mesh)

    def sharded_step(state: TrainState, batch: PyTree, given: PyTree, axis: str | None = None):
        batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(AXIS)))
        with split.by_image(mesh, batch_size):
            return step(state, batch, given, axis=axis, gather=gather)

    def shard(path: Any, leaf: Any) -> NamedSharding:
        axis = split.split_axis(path, leaf.shape, len(devices))
        return split.split_along(mesh, axis, leaf.ndim)

    shardings = jax.tree_util.tree_map_with_path(shard, state)
    take = jax.jit(
        functools.partial(many_steps, sharded_step),
        donate_argnums=0,
        out_shardings=(shardings, whole),
    )

    def put_data(*data: np.ndarray) -> Any:
        if not _of_steps(data):
            return jax.device_put(data, whole)
        shapes = ((len(x), batch_size, *x.shape[3:]) for x in data)
        make = jax.make_array_from_process_local_data
        return tuple(make(split_rows, x[:, 0], s) for x, s in zip(data, shapes, strict=True))

    def run(state: TrainState, data: PyTree, rows: np.ndarray, count: int):
        # Rows of data that are those of each step are this process's slice, which nothing reads.
        rows = np.zeros((len(rows), batch_size), np.int32) if _of_steps(data) else rows[:, 0]
        state, metrics = take(state, data, jax.device_put(rows, split_rows), count, given)
        return state, {name: values[:, None] for name, values in metrics.items()}

    def program(data: PyTree, steps: int):
        where = whole
        if _of_steps(data):
            data, where = (
                jax.eval_shape(lambda data: tuple(x[:, 0] for x in data), data),
                split_rows,
            )
        values = state, data, _rows(steps, batch_size), _COUNT, given
        return take, tuple(map(_abstract, values, (shardings, where, split_rows, whole, whole)))

    return Spread(
        lambda states: jax.device_put(states[0], shardings), lambda state: [state], put_data, run,
        program, chunks_apart=True,
    )  # fmt: skip
