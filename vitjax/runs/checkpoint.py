"""Orbax checkpoints of a run, verified against a digest before reading.

A checkpoint is a folder `checkpoints/STEP`. Its `digests.json` has the SHA-256 of every file and is
written before the folder gets its name. A checkpoint without it is of an earlier version and is
read unchecked. Orbax never reads a damaged one.
"""

import asyncio
import contextlib
import functools
import itertools
import pathlib
import shutil
import threading
from collections.abc import Container, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies
from orbax.checkpoint.path import atomicity

from vitjax.base import files, quiet
from vitjax.base.types import PyTree, TrainState
from vitjax.pretrained.resize import misfits

FOLDER = 'checkpoints'
DIGESTS = 'digests.json'
DELETED = 'deleted'
ASIDE = 'damaged'  # folder of a run for damaged checkpoints
ITEMS = ('params', 'opt_state', 'ema', 'position')
FULL = ('No space left on device', 'Disk quota exceeded', 'File too large')
Path = str | pathlib.Path
Manager = ocp.CheckpointManager
_SAVING = threading.Lock()


def _accuracy(metrics: dict[str, float]) -> float:
    return metrics['accuracy']


class _Draft(atomicity.AtomicRenameTemporaryPath):
    """A checkpoint or item that orbax writes: it has another name until it is complete."""

    async def finalize(self) -> None:
        if self.get_final().parent.name == FOLDER:
            await asyncio.to_thread(_write_digests, pathlib.Path(self.get()))
        await super().finalize()


def _write_digests(folder: pathlib.Path) -> None:
    # Two files at the top change once more during the rename; their content is not read.
    written = sorted(p for p in folder.rglob('*') if p.is_file() and p.parent != folder)
    digests = {str(path.relative_to(folder)): files.digest(path) for path in written}
    files.write_json(folder / DIGESTS, digests)


def forget_places(run: Path) -> None:
    """Empties orbax's notes of the folder that a checkpoint was written in: runs are shared."""
    for note in (pathlib.Path(run) / FOLDER).rglob('commit_success.txt'):
        note.write_text('')
    for step in steps(run):
        _write_digests(_folder(run, step))


@contextlib.contextmanager
def writing(run: Path, *, keep_latest: int = 1) -> Iterator[Manager]:
    """Manager of a run's checkpoints, which keeps the latest and the best.

    Leave the `with` block before the process ends: a save in flight is lost otherwise.

    Raises:
        ValueError: if the disk fills, or a save takes too long.
    """
    directory = files.inside(run, FOLDER).absolute()
    # best_fn makes the manager write metrics to disk. The policy decides what to keep, since
    # best_fn with max_to_keep would delete the newest checkpoint.
    best = policies.BestN(get_metric_fn=_accuracy, n=1, keep_checkpoints_without_metrics=False)
    options = ocp.CheckpointManagerOptions(
        best_fn=_accuracy, save_interval_steps=1, create=True, cleanup_tmp_directories=True,
        preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_latest), best]),
        temporary_path_class=_Draft, todelete_subdir=DELETED,
    )  # fmt: skip
    try:
        with quiet.orbax(_failed), ocp.CheckpointManager(directory, options=options) as opened:
            yield opened
        _empty(directory)
    except Exception as error:
        if not _failed(error):
            raise
        what = f'the disk of {run} is full'
        if isinstance(error, TimeoutError):
            what = f'a save in {run} took too long by the clock: {files.first_line(error)}'
        raise ValueError(f'{what}; the last checkpoint is kept.') from None


def _failed(error: Exception) -> bool:
    """Returns True for the error of a save that a full disk or a timeout ended."""
    return isinstance(error, TimeoutError) or any(reason in str(error) for reason in FULL)


def _empty(directory: pathlib.Path) -> None:
    """Deletes the checkpoints that orbax moved aside.

    It moves them in one step: a checkpoint in the middle of being deleted would look damaged.
    """
    if jax.process_index() == 0:
        shutil.rmtree(directory / DELETED, ignore_errors=True)


def steps(run: Path) -> list[int]:
    """The steps of a run's checkpoints, in order."""
    folder = files.inside(run, FOLDER)
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def _folder(run: Path, step: int) -> pathlib.Path:
    return pathlib.Path(run) / FOLDER / str(step)


def damage(run: Path, step: int, skip: Container[str] = ()) -> str | None:
    """Damage of a checkpoint's files in one line; None if there is none.

    Args:
        run: the run directory.
        step: step of the checkpoint.
        skip: items, of `ITEMS`, that may be damaged.
    """
    try:
        folder = files.inside(run, _folder('', step))
        known = files.read_json(files.inside(folder, DIGESTS))
        for name, wanted in known.items():
            path = files.inside(folder, name)
            if name.split('/')[0] not in skip and files.digest(path) != wanted:
                return f'{path} has changed since it was written'
    except FileNotFoundError as error:
        missing = pathlib.Path(error.filename)
        return None if missing.name == DIGESTS else f'{missing} is missing'
    except OSError as error:
        return f'{error.filename} cannot be read: {error.strerror}'
    except ValueError as error:
        return files.first_line(error)
    return None


def position(run: Path) -> dict[str, Any]:
    """The newest undamaged position of a run's checkpoints; empty if there is none."""
    for step in reversed(steps(run)):
        with contextlib.suppress(ValueError, OSError):
            if damage(run, step, skip={*ITEMS} - {'position'}) is None:
                return files.read_json(files.inside(run, _folder('', step) / 'position/metadata'))
    return {}


def set_aside(run: Path) -> None:
    """Ensures that a run resumes from a whole checkpoint: moves newer, damaged ones aside.

    They go to the run's `damaged/`, with a line on stderr.

    Raises:
        ValueError: if there are checkpoints and none is whole, or if an older one is damaged, which
            stays since it is the best; with what to delete.
    """
    wrong = {step: damage(run, step) for step in steps(run)}
    whole = [step for step, reason in wrong.items() if reason is None]
    if wrong and not whole:
        advice = f'delete {pathlib.Path(run) / FOLDER} to train from the start'
        raise ValueError(f'no checkpoint of {run} is whole: {wrong[max(wrong)]}; {advice}.')
    for step, reason in wrong.items():
        folder = _folder(run, step)
        if reason and step > max(whole):
            aside = files.inside(run, ASIDE)
            aside.mkdir(exist_ok=True)
            kept = next(p for i in itertools.count() if not (p := aside / f'{step}.{i}').exists())
            folder.rename(kept)
            files.warn(f'{reason}; resuming from step {max(whole)}, and that checkpoint is {kept}')
        elif reason and damage(run, step, skip=('opt_state',)):
            raise _best_is_damaged(reason, folder)


def _best_is_damaged(reason: str, folder: pathlib.Path) -> ValueError:
    return ValueError(f'{reason}: it may be the best checkpoint; delete {folder} to do without it.')


def save(
    manager: Manager, step: int, trees: dict[str, Any], position: dict[str, Any],
    metrics: dict[str, float] | None = None, *, wait: bool = False,
) -> None:  # fmt: skip
    """Starts saving a checkpoint.

    Args:
        manager: manager of the run, as `writing` yields it.
        step: step of the checkpoint.
        trees: its items, `params` among them.
        position: plain JSON values.
        metrics: metrics whose `accuracy` makes the checkpoint a candidate for the best.
        wait: returns when it is written; for a process with several managers.

    Raises:
        ValueError: if the disk has no room for it.
    """
    manager.wait_until_finished()  # the previous save may still move checkpoints to be deleted
    _empty(pathlib.Path(manager.directory))
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
    free = shutil.disk_usage(manager.directory).free
    if free < needed:
        has = f'the disk of {manager.directory} has {free / 2**20:,.1f} free'
        kept = 'the checkpoints before it are kept'
        raise ValueError(f'a checkpoint needs {needed / 2**20:,.1f} MiB, {has}; {kept}.')
    items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    items['position'] = ocp.args.JsonSave(position)
    # Orbax counts background work once per process: two managers that save at the same time wait
    # for each other's folders.
    with _SAVING if wait else contextlib.nullcontext():
        manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        if wait:
            manager.wait_until_finished()


def restore(run: Path, step: int, trees: dict[str, Any]) -> dict[str, Any]:
    """Restores the items of `trees` (arrays, or shapes with shardings) and `position` at a step.

    Raises:
        ValueError: if an item is missing or cannot be read; if it has other names, shapes or
            dtypes, with the differences.
    """
    folder = files.inside(run, _folder('', step)).absolute()
    for name in trees:
        if not (folder / name).is_dir():
            raise ValueError(f'the checkpoint of step {step} has no {name}: {folder.parent}.')
    with _named(folder), quiet.orbax(), ocp.StandardCheckpointer() as reader:
        saved: Any = {name: reader.metadata(folder / name).item_metadata for name in trees}
    for name, tree in trees.items():
        require_equal(f'{name} of the checkpoint', saved[name].tree, tree)
    items: dict[str, Any] = {n: ocp.args.StandardRestore(tree) for n, tree in trees.items()}
    items['position'] = ocp.args.JsonRestore()
    handler = ocp.CompositeCheckpointHandler
    with _named(folder), quiet.orbax(), ocp.Checkpointer(handler()) as checkpointer:
        restored = checkpointer.restore(folder, args=ocp.args.Composite(**items))
    return {name: restored[name] for name in items}


@contextlib.contextmanager
def _named(folder: pathlib.Path) -> Iterator[None]:
    """Turns any error of orbax into a line: a checkpoint without digests may be damaged."""
    try:
        yield
    except jax.errors.JaxRuntimeError:  # out of memory
        raise
    except Exception as error:
        raise ValueError(f'{folder} cannot be read: {files.first_line(error)}.') from None


def trees(state: TrainState) -> dict[str, Any]:
    """Items of a checkpoint of a state; its step is the checkpoint's."""
    items = {'params': state.params, 'opt_state': state.opt_state}
    return items if state.ema is None else {**items, 'ema': state.ema}


def latest(
    outs: Sequence[Path], like: list[TrainState]
) -> tuple[int, list[TrainState], list[dict[str, Any]]] | None:
    """The last step of which all runs have a checkpoint, with their states and positions.

    None if there is no such step. Checkpoints must be whole (`set_aside`).

    Args:
        outs: run directories.
        like: states, or their shapes, one per run; the restored states get their shardings.

    Raises:
        ValueError: as `restore` does.
    """
    if not (step := min(max(steps(out), default=0) for out in outs)):
        return None
    states, positions = [], []
    for out, known in zip(outs, like, strict=True):
        found = restore(out, step, jax.tree.map(_shape, trees(known)))
        positions.append(found.pop('position'))
        states.append(TrainState(step=jnp.asarray(step, jnp.int32), **found))
    return step, states, positions


def _shape(x: Any, sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding)


def load(run: Path, shapes: Any, *, which: str = 'best', item: str = 'params') -> Any:
    """Parameters of a run's checkpoint, on the first device.

    A run may save and delete checkpoints meanwhile; then they are listed again.

    Args:
        run: the run directory.
        shapes: tree of the parameters' `jax.ShapeDtypeStruct`.
        which: `best` by validation accuracy, or `latest`: the newest whole one, with a line on
            stderr for each newer one that is damaged.
        item: `params`, or `ema`, their moving average.

    Raises:
        ValueError: if there is no checkpoint, it has other names or shapes, the best is damaged, or
            all are.
    """
    if which not in ('best', 'latest'):
        raise ValueError(f"which must be 'best' or 'latest': {which!r}.")
    found = steps(run)
    while True:
        try:
            return _load(run, found, shapes, which, item)
        except (ValueError, OSError):
            before, found = found, steps(run)
            if {*before} <= {*found}:
                raise
            # A training run replaced some of them meanwhile.


def _load(run: Path, found: list[int], shapes: Any, which: str, item: str) -> Any:
    """`load` from the checkpoints of the steps `found`."""
    others = {'params', 'opt_state', 'ema'} - {item}
    if which == 'best' and len(found) > 1:
        found = [_best(run, found)]
    for step in reversed(found):
        reason = damage(run, step, skip=others)
        if reason is None:
            return restore(run, step, {item: _placed(shapes)})[item]
        folder = _folder(run, step)
        if step == found[0] or not folder.exists():
            if which == 'best':
                raise _best_is_damaged(reason, folder)
            raise ValueError(f'no checkpoint of {run} is whole: {reason}.')
        files.warn(f'{reason}; an older checkpoint is taken')
    raise ValueError(f'{run} has no checkpoint yet.')


def _best(run: Path, found: list[int]) -> int:
    """The step of the highest validation accuracy, the last of equals; without any, the last."""
    ranks = {}
    for step in found:
        if reason := damage(run, step, skip=ITEMS):
            raise _best_is_damaged(reason, _folder(run, step))
        path = files.inside(_folder(run, step), 'metrics/metrics')
        try:
            ranks[step] = float(files.read_json(path)['accuracy'])
        except FileNotFoundError:  # saved by a run that was asked to stop
            ranks[step] = -1.0
        except (KeyError, TypeError):
            raise ValueError(f'{path} has no accuracy.') from None
    return max(found, key=lambda step: (ranks[step], step))


def _placed(shapes: Any) -> Any:
    """Shapes placed on the first device, or replicated if processes share a run."""
    devices = jax.devices() if jax.process_count() > 1 else jax.devices()[:1]
    mesh = jax.sharding.Mesh(np.array(devices), ('device',))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(functools.partial(_shape, sharding=place), shapes)


def require_equal(what: str, saved: PyTree, wanted: PyTree) -> None:
    """Checks that two trees have the same paths, shapes and dtypes.

    Raises:
        ValueError: with the differences, shortened by `files.few`.
    """

    def kinds(tree: PyTree) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        name = functools.partial(jax.tree_util.keystr, simple=True, separator='/')
        return {name(path): f'{x.dtype}{list(x.shape)}' for path, x in leaves}

    if wrong := misfits(kinds(saved), kinds(wanted)):
        lines = files.few(wrong)
        raise ValueError(f'{what} does not fit the model (- missing, + surplus):\n{lines}')
