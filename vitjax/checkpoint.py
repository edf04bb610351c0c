"""Checkpoints of a run: what orbax writes and reads, checked by the parameters' paths."""

import contextlib
import functools
import pathlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vitjax.train import TrainState
from vitjax.types import PyTree

FOLDER = 'checkpoints'
Manager = ocp.CheckpointManager
_SAVING = threading.Lock()

# Orbax warns of files that it never wrote, and logs errors that it raises as well.
absl.logging.set_verbosity(absl.logging.FATAL)


def _accuracy(metrics: dict[str, float]) -> float:
    return metrics['accuracy']


def manager(run: str | pathlib.Path, *, read_only: bool = False, keep_latest: int = 1) -> Manager:
    """A run's checkpoint manager, which keeps the latest checkpoints and the best.

    Call `close()` (or leave its `with` block) before the process ends: a save in flight is lost
    otherwise.
    """
    directory = (pathlib.Path(run) / FOLDER).absolute()
    # best_fn makes the manager write metrics to disk; what is kept is the policy's to say, since
    # best_fn with max_to_keep would delete the newest checkpoint.
    best = policies.BestN(get_metric_fn=_accuracy, n=1, keep_checkpoints_without_metrics=False)
    keep = policies.AnyPreservationPolicy([policies.LatestN(keep_latest), best])
    options = ocp.CheckpointManagerOptions(
        best_fn=_accuracy, preservation_policy=None if read_only else keep, read_only=read_only,
        save_interval_steps=0 if read_only else 1, create=not read_only,
        cleanup_tmp_directories=not read_only,
    )  # fmt: skip
    return ocp.CheckpointManager(directory, options=options)


@contextlib.contextmanager
def writing(run: str | pathlib.Path, *, keep_latest: int = 1) -> Iterator[Manager]:
    """`manager` of a run that trains, closed at the end; a full disk is an error in one line."""
    try:
        with manager(run, keep_latest=keep_latest) as opened:
            yield opened
    except Exception as error:
        if 'No space left on device' in str(error):
            raise ValueError(f'the disk of {run} is full; the last checkpoint is kept.') from None
        raise


def steps(run: str | pathlib.Path) -> list[int]:
    """The steps that a run directory has checkpoints of."""
    if not (pathlib.Path(run) / FOLDER).is_dir():
        return []
    with manager(run, read_only=True) as found:
        return list(found.all_steps())


def save(
    manager: Manager, step: int, trees: dict[str, Any], position: dict[str, Any],
    metrics: dict[str, float] | None = None, *, wait: bool = False,
) -> None:  # fmt: skip
    """Starts saving `trees` (`params` among them) and `position`, plain JSON values, at a step.

    `metrics` with an `accuracy` makes the checkpoint a candidate for the best. `wait` returns when
    it is written: for a process that has several managers.

    Raises:
        ValueError: if the disk has no room for it.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
    free = shutil.disk_usage(manager.directory).free
    if free < needed:
        raise ValueError(
            f'a checkpoint needs {needed / 2**20:,.1f} MiB, the disk of {manager.directory} has '
            f'{free / 2**20:,.1f} free; the checkpoints before it are kept.'
        )
    items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    items['position'] = ocp.args.JsonSave(position)
    # Orbax numbers its work in the background by one counter for the whole process: two managers
    # that save at a time wait for each other's folders.
    with _SAVING if wait else contextlib.nullcontext():
        manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        if wait:
            manager.wait_until_finished()


def restore(manager: Manager, step: int, trees: dict[str, Any]) -> dict[str, Any]:
    """Restores the items of `trees` (arrays, or shapes with shardings) and `position` at a step.

    Raises:
        ValueError: if a tree in the checkpoint has other names, shapes or dtypes, with all of them.
    """
    for name, tree in trees.items():
        require_equal(f'{name} of the checkpoint', _saved_shapes(manager, step, name), tree)
    items: dict[str, Any] = {n: ocp.args.StandardRestore(tree) for n, tree in trees.items()}
    items['position'] = ocp.args.JsonRestore()
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    return {name: restored[name] for name in items}


def trees(state: TrainState) -> dict[str, Any]:
    """The items that a checkpoint keeps of a state; its step is the checkpoint's."""
    items = {'params': state.params, 'opt_state': state.opt_state}
    return items if state.ema is None else {**items, 'ema': state.ema}


def latest(
    managers: list[Manager], like: list[TrainState]
) -> tuple[int, list[TrainState], list[dict[str, Any]]] | None:
    """The last step that all of several runs have a checkpoint of, their states and positions.

    None where there is none. States are placed as those of `like`, one for each run, which may be
    shapes.

    Raises:
        ValueError: as `restore` does.
    """
    step = min(manager.latest_step() or 0 for manager in managers)
    if not step:
        return None
    states, positions = [], []
    for manager, known in zip(managers, like, strict=True):
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), trees(known)
        )
        found = restore(manager, step, shapes)
        positions.append(found.pop('position'))
        states.append(TrainState(step=jnp.asarray(step, jnp.int32), **found))
    return step, states, positions


def load(run: str | pathlib.Path, shapes: Any, *, which: str = 'best', item: str = 'params') -> Any:
    """Parameters out of a run's checkpoints, on the first device.

    Args:
        run: the run directory.
        shapes: of the parameters, a tree of `jax.ShapeDtypeStruct`.
        which: `best` by validation accuracy, or `latest`.
        item: `params`, or `ema`, their moving average.

    Raises:
        ValueError: if there is no checkpoint, or it has other names or shapes.
    """
    if which not in ('best', 'latest'):
        raise ValueError(f"which must be 'best' or 'latest': {which!r}.")
    if (pathlib.Path(run) / FOLDER).is_dir():
        with manager(run, read_only=True) as found:
            step = found.best_step() if which == 'best' else None
            step = found.latest_step() if step is None else step
            if step is not None:
                return restore(found, step, {item: _placed(shapes)})[item]
    raise ValueError(f'{run} has no checkpoint yet.')


def _placed(shapes: Any) -> Any:
    """Shapes with a place: the first device, or a copy on every one where processes share a run."""
    devices = jax.devices() if jax.process_count() > 1 else jax.devices()[:1]
    mesh = jax.sharding.Mesh(np.array(devices), ('device',))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)


def _saved_shapes(manager: Manager, step: int, item: str) -> Any:
    directory = pathlib.Path(manager.directory) / str(step) / item
    if not directory.is_dir():
        raise ValueError(f'the checkpoint of step {step} has no {item}: {manager.directory}.')
    with ocp.StandardCheckpointer() as checkpointer:
        metadata: Any = checkpointer.metadata(directory).item_metadata
    return metadata.tree


def require_equal(what: str, saved: PyTree, wanted: PyTree) -> None:
    """Checks that two trees have the same paths, shapes and dtypes.

    Raises:
        ValueError: naming every difference.
    """

    def kinds(tree: PyTree) -> dict[str, str]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
        return {name(path): f'{x.dtype}{list(x.shape)}' for path, x in leaves}

    old, new = kinds(saved), kinds(wanted)
    wrong = [f'- {name} {new[name]}' for name in new if name not in old]
    wrong += [f'+ {name} {old[name]}' for name in old if name not in new]
    both = [name for name in new if name in old]
    wrong += [f'  {n}: saved {old[n]}, wanted {new[n]}' for n in both if old[n] != new[n]]
    if lines := '\n'.join(wrong):
        raise ValueError(f'{what} does not fit the model (- missing, + surplus):\n{lines}')
