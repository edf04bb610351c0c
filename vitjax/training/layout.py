"""Layouts of a training step over devices.

All layouts run the same pure step, many times a dispatch, on data that are on the devices: the
whole set plus row indices, or one batch per step. A program is compiled once for each step; numbers
that differ between two runs of equal shape are its arguments.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from vitjax.base.types import PyTree, TrainState
from vitjax.training import split
from vitjax.training.step import Metrics, Split

AXIS = 'batch'
# `(state, batch, numbers, split=) -> (state, metrics)`; numbers are arguments of the program.
Step = Callable[..., tuple[TrainState, Metrics]]
# Images that one of several cores takes at a time: their activations stay in its cache. On two
# cores the gradient of `vit_cifar100` takes 0.72 of its time on 128 images a core at once.
SLICE = 8


def resolved(way: str, devices: int, seeds: int = 1) -> str:
    """The layout that `auto` means: `pmap` on several devices for one seed, else `none`.

    Raises:
        ValueError: for an unknown way.
    """
    if way == 'auto':
        return 'pmap' if devices > 1 and seeds == 1 else 'none'
    if way not in ('none', 'pmap', 'fsdp'):
        raise ValueError(f"parallel must be 'auto', 'none', 'pmap' or 'fsdp': {way!r}.")
    return way


def layout(
    way: str, devices: Sequence[Any] | None = None, *, batch_size: int, seeds: int = 1
) -> 'Layout':
    """The layout of an experiment's steps.

    Args:
        way: `none`, `pmap`, `fsdp` or `auto`, as `Experiment.parallel`.
        devices: devices to use; None takes all. `none` takes the first.
        batch_size: images a step, over all devices.
        seeds: seeds that train together. On accelerators they are one `vmap`. On CPU, whose batched
            kernels are slow, one follows the other with the bits of a single seed; a `lax.map` over
            them takes 1.08 times as long.

    Raises:
        ValueError: for an unknown way, a number of devices that does not divide the batch, or
            several seeds over several devices.
    """
    devices = jax.devices() if devices is None else devices
    # A process's devices are neighbours, for the slice of the batch that it reads.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    rule: Any = resolved(way, len(devices), seeds)
    if rule == 'none':
        devices = devices[:1]
        rule = 'seeds' if seeds > 1 and devices[0].platform != 'cpu' else 'none'
    elif seeds > 1:
        raise ValueError(f'several seeds train on one device: parallel={rule!r}, {seeds} seeds.')
    elif batch_size % len(devices):
        raise ValueError(
            f'batch_size must be a multiple of the number of devices: {batch_size=}, '
            f'{len(devices)} devices.'
        )
    # Auto axes: with make_mesh's default, linen's convolutions fail.
    mesh = Mesh(np.array(devices), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    return Layout(mesh, rule, batch_size, seeds)


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way to run the steps of one or several seeds; equal layouts share compiled programs.

    What it places is a tuple of states, on each of which the program runs: one for each seed where
    they take turns, else a single one.

    Attributes:
        mesh: the devices, along one axis.
        rule: `none`: one device, seeds in turn; `seeds`: one device, all seeds in a `vmap`, states
            with a leading axis of seeds; `pmap`: parameters on every device, the batch split,
            gradients averaged; `fsdp`: one global program, in which the batch, large parameters
            and their moments are split, and parameters gathered where a module reads them
            (`vitjax.training.split`).
        batch_size: images a step, over all devices.
        seeds: number of seeds.
    """

    mesh: Mesh
    rule: Literal['none', 'seeds', 'pmap', 'fsdp']
    batch_size: int
    seeds: int = 1

    @property
    def devices(self) -> list[Any]:
        """Devices that the steps run on."""
        return [*self.mesh.devices.flat]

    @property
    def shared(self) -> bool:
        """True if devices, and processes, share each batch."""
        return self.rule in ('pmap', 'fsdp')

    def place(self, states: Sequence[TrainState]) -> tuple[TrainState, ...]:
        """Moves states, one per seed and unsharded, to the devices."""
        states = [_stack(states)] if self.rule == 'seeds' else states
        return tuple(jax.device_put(state, self._shardings(state)) for state in states)

    def fetch(self, placed: tuple[TrainState, ...]) -> list[TrainState]:
        """The inverse of `place`: states of global arrays, as checkpoints hold them."""
        if self.rule != 'seeds':
            return [*placed]
        return [jax.tree.map(operator.itemgetter(i), placed[0]) for i in range(self.seeds)]

    def place_batch(self, images: np.ndarray, labels: np.ndarray) -> list[PyTree]:
        """Moves images and labels to the devices, for each of the states that `place` makes.

        Args:
            images: the whole set [N, H, W, 3], or this process's part of K batches,
                [K, seeds, batch, H, W, 3].
            labels: [N], or [K, seeds, batch].
        """
        if _by_step((images, labels)):
            return [*zip(self._place_parts(images), self._place_parts(labels), strict=True)]
        placed = self._place(images, self._over()), self._place(labels, self._over())
        return [placed] * (self.seeds if self.rule == 'none' else 1)  # one array for all

    def wrap(self, step: Step, state: TrainState) -> Any:
        """The jitted `(state, data, rows, count, numbers) -> (state, metrics)`: `many_steps`.

        It is the program that `run` calls, and that is compiled for machines that are not here. The
        input state is donated.

        Args:
            step: one step; equal steps compile once.
            state: a state of one seed, or its shapes.
        """
        leaves, tree = jax.tree.flatten(self._shardings(state))
        return _program(self, step, tuple(leaves), tree)

    def run(
        self, program: Any, placed: tuple[TrainState, ...], data: list[PyTree], rows: np.ndarray,
        count: int, numbers: Sequence[PyTree],
    ) -> tuple[tuple[TrainState, ...], dict[str, np.ndarray]]:  # fmt: skip
        """Takes the first `count` of the K steps whose examples are `rows` [K, seeds, batch].

        Args:
            program: the jitted function, of `wrap`.
            placed: the states, of `place`; donated.
            data: the data, of `place_batch`.
            rows: rows of each step's examples, this process's part.
            count: steps to take; another number does not recompile.
            numbers: the step's numbers, one tree per seed.

        Returns:
            The states, and metrics [K, seeds], NaN for steps that were not taken.
        """
        numbers = [_stack(numbers)] if self.rule == 'seeds' else numbers
        each = zip(placed, data, self._place_parts(rows), numbers, strict=True)
        ran = [program(state, own, its, count, given) for state, own, its, given in each]
        found = {name: np.stack([m[name] for _, m in ran], 1) for name in ran[0][1]}
        if self.rule == 'seeds':  # which have the axis
            found = {name: values[:, 0] for name, values in found.items()}
        return tuple(state for state, _ in ran), found

    def abstract(
        self, states: Sequence[TrainState], data: PyTree, steps: int, numbers: Sequence[PyTree]
    ) -> tuple[Any, ...]:
        """Shapes and shardings of a program's arguments, on devices that need not be present.

        Args:
            states: shapes of the states, one per seed.
            data: shapes of images and labels as one seed has them: the whole set, or those of
                batches, [K, batch, H, W, 3] and [K, batch].
            steps: K.
            numbers: the step's numbers, one tree per seed.
        """
        state, given, seeds = states[0], numbers[0], ()
        if self.rule == 'seeds':
            state, given = (jax.eval_shape(_stack, list(trees)) for trees in (states, numbers))
            seeds = (self.seeds,)
            if _by_step(data):
                data = tuple(x.update(shape=(steps, *seeds, *x.shape[1:])) for x in data)
        rows = jax.ShapeDtypeStruct((steps, *seeds, self.batch_size), jnp.int32)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        whole, by_batch = self._over(), self._over(None, AXIS)
        of_data = by_batch if _by_step(data) else whole
        shardings = self._shardings(state), of_data, by_batch, whole, whole
        return _sharded((state, data, rows, count, given), shardings)

    def _over(self, *axes: str | None) -> Sharding:
        """Sharding of arrays split along axes of the mesh, or replicated."""
        if self.shared:
            return NamedSharding(self.mesh, PartitionSpec(*axes))
        return SingleDeviceSharding(self.devices[0])

    def _shardings(self, state: TrainState) -> Any:
        """Sharding of each leaf of a state."""

        def sharding(path: Any, leaf: Any) -> Sharding:
            if self.rule != 'fsdp':
                return self._over()
            axis = split.split_axis(path, leaf.shape, self.mesh.size)
            return split.split_along(self.mesh, axis, leaf.ndim)

        return jax.tree_util.tree_map_with_path(sharding, state)

    def _place_parts(self, batches: np.ndarray) -> list[jax.Array]:
        """Moves batches [K, seeds, batch, ...] to the devices, for each state."""
        if self.rule == 'seeds':
            return [self._place(batches, self._over())]
        return [self._place(part, self._over(None, AXIS)) for part in np.moveaxis(batches, 1, 0)]

    def _place(self, local: np.ndarray, sharding: Sharding) -> jax.Array:
        if self.shared:
            return jax.make_array_from_process_local_data(sharding, local)
        return jax.device_put(local, sharding)


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _by_step(data: PyTree) -> bool:
    """Returns True for batches of single steps, False for the whole set."""
    return data[1].ndim > 1


def _sharded(tree: Any, shardings: Any) -> Any:
    """Shapes of a tree with their shardings, of which one may stand for all of a subtree."""

    def place(sharding: Sharding, part: Any) -> Any:
        return jax.tree.map(lambda x: x.update(sharding=sharding), part)

    return jax.tree.map(place, shardings, jax.eval_shape(lambda tree: tree, tree))


@functools.lru_cache(maxsize=16)
def _program(layout: Layout, step: Step, leaves: tuple[Any, ...], tree: Any) -> Any:
    """The jitted function of `Layout.wrap`; the state's shardings are `leaves` of `tree`."""
    mesh, whole, split_batch = layout.mesh, PartitionSpec(), PartitionSpec(None, AXIS)
    if layout.rule == 'none':
        return jax.jit(functools.partial(many_steps, step), donate_argnums=0)
    if layout.rule == 'seeds':
        # Each seed has its own state, examples and numbers, but not its own places in the batch.
        axes = 0, {'image': 0, 'label': 0, 'index': None}, 0
        over_seeds = jax.vmap(step, in_axes=axes)
        return jax.jit(functools.partial(many_steps, over_seeds), donate_argnums=0)
    if layout.rule == 'fsdp':
        gathering = functools.partial(_gathering_step, layout, step)
        shardings = jax.tree.unflatten(tree, leaves), NamedSharding(mesh, whole)
        take = functools.partial(many_steps, gathering)
        return jax.jit(take, donate_argnums=0, out_shardings=shardings)

    own = Split(AXIS, slices(layout.batch_size // mesh.size, layout.devices[0]))
    take = functools.partial(many_steps, functools.partial(step, split=own), axis=AXIS)

    def on_each_device(
        state: TrainState, data: PyTree, rows: jax.Array, count: jax.Array, numbers: PyTree
    ) -> tuple[TrainState, Metrics]:
        of_data = split_batch if _by_step(data) else whole
        # Under its own checks, the mean over devices after `grad` would be N times too large.
        mapped = jax.shard_map(
            take, mesh=mesh, in_specs=(whole, of_data, split_batch, whole, whole),
            out_specs=whole, check_vma=False,
        )  # fmt: skip
        return mapped(state, data, rows, count, numbers)

    return jax.jit(on_each_device, donate_argnums=0)


def _gathering_step(
    layout: Layout, step: Step, state: TrainState, batch: PyTree, numbers: PyTree
) -> tuple[TrainState, Metrics]:
    """The global step of `fsdp`: the batch and what modules return stay split by image."""
    by_image = NamedSharding(layout.mesh, PartitionSpec(AXIS))
    batch = jax.lax.with_sharding_constraint(batch, by_image)
    gather = functools.partial(split.boxed, mesh=layout.mesh)
    with split.by_image(layout.mesh, layout.batch_size):
        return step(state, batch, numbers, split=Split(gather=gather))


def slices(images: int, device: Any) -> int:
    """Number of slices in which one of several devices takes its images of a step."""
    return images // SLICE if device.platform == 'cpu' and images % SLICE == 0 else 1


def many_steps(
    step: Step, state: TrainState, data: tuple[jax.Array, jax.Array], rows: jax.Array,
    count: jax.Array, numbers: PyTree, axis: str | None = None,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """The first `count` of the K steps whose examples are `rows` [K, ..., batch] of `data`.

    `data` may be the steps' batches instead, [K, ..., batch, H, W, 3] and [K, ..., batch].

    One compiled program serves any count, so that a run stopped anywhere and resumed takes the very
    same steps. It stops after a step whose loss or gradient is not finite. Metrics are [K, ...],
    NaN for steps that were not taken.
    """
    batch = rows.shape[-1]
    first = 0 if axis is None else jax.lax.axis_index(axis) * batch

    def one(state: TrainState, i: jax.Array) -> tuple[TrainState, Metrics]:
        taken = i if _by_step(data) else rows[i]
        index = first + jnp.arange(batch)
        with jax.named_scope('examples'):
            examples = {'image': data[0][taken], 'label': data[1][taken], 'index': index}
        return step(state, examples, numbers)

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
