"""Checkpoints of a run: save, restore, and `load`, which everything after training begins with."""

import contextlib
import json
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vitjax import experiment as experiments
from vitjax.experiment import Experiment

FOLDER = 'checkpoints'
_SAVING = threading.Lock()

# Orbax warns of files that it never wrote, and logs errors that it raises as well.
absl.logging.set_verbosity(absl.logging.FATAL)


def _accuracy(metrics: dict[str, float]) -> float:
    return metrics['accuracy']


def manager(
    run: str | pathlib.Path, *, read_only: bool = False, latest: int = 1
) -> ocp.CheckpointManager:
    """A run's checkpoint manager, which keeps the latest checkpoints and the best.

    Call `close()` (or leave its `with` block) before the process ends: a save in flight is lost
    otherwise.
    """
    directory = (pathlib.Path(run) / FOLDER).absolute()
    # best_fn makes the manager write metrics to disk; what is kept is the policy's to say, since
    # best_fn with max_to_keep would delete the newest checkpoint.
    best = policies.BestN(get_metric_fn=_accuracy, n=1, keep_checkpoints_without_metrics=False)
    keep = None if read_only else policies.AnyPreservationPolicy([policies.LatestN(latest), best])
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            best_fn=_accuracy,
            preservation_policy=keep,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        ),
    )


def steps(run: str | pathlib.Path) -> list[int]:
    """The steps that a run directory has checkpoints of."""
    if not (pathlib.Path(run) / FOLDER).is_dir():
        return []
    with manager(run, read_only=True) as found:
        return list(found.all_steps())


def save(
    manager: ocp.CheckpointManager,
    step: int,
    trees: dict[str, Any],
    position: dict[str, Any],
    metrics: dict[str, float] | None = None,
    *,
    wait: bool = False,
) -> None:
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


def restore(manager: ocp.CheckpointManager, step: int, trees: dict[str, Any]) -> dict[str, Any]:
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


def load(run: str | pathlib.Path, which: str = 'best') -> tuple[Experiment, Any]:
    """A run's experiment and parameters: `best` by validation accuracy, or `latest`.

    The moving average of the parameters where the run keeps one. Parameters are on the first
    device, whatever number of devices wrote them.

    Raises:
        ValueError: if it is no run directory, has no checkpoint, or the checkpoint is not of the
            experiment's model.
    """
    if which not in ('best', 'latest'):
        raise ValueError(f"which must be 'best' or 'latest': {which!r}.")
    experiment = experiments.read(run)
    if not (pathlib.Path(run) / FOLDER).is_dir():
        raise ValueError(f'{run} has no checkpoint yet.')
    with manager(run, read_only=True) as found:
        step = found.best_step() if which == 'best' else found.latest_step()
        step = found.latest_step() if step is None else step
        if step is None:
            raise ValueError(f'{run} has no checkpoint yet.')
        item = 'ema' if experiment.optim.ema else 'params'
        shapes = _placed(parameter_shapes(experiment))
        return experiment, restore(found, step, {item: shapes})[item]


def parameter_shapes(experiment: Experiment) -> Any:
    """Shapes and dtypes of the parameters of an experiment's model; computes nothing."""
    prepared = experiment.preprocessing
    size = prepared.size if prepared else experiment.augment.size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    make = experiment.model.init
    return jax.eval_shape(lambda key, x: make(key, x), jax.random.key(0), images)['params']


def write_run(run: str | pathlib.Path, experiment: Experiment, params: Any) -> None:
    """Writes parameters and their experiment as a run directory, whole or not at all.

    Raises:
        ValueError: if something is in the way.
    """
    run = pathlib.Path(run)
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(f'the output directory must be new or empty: {run} is not.')
    run.parent.mkdir(parents=True, exist_ok=True)
    draft = pathlib.Path(tempfile.mkdtemp(prefix=f'.{run.name}-', dir=run.parent))
    try:
        draft.chmod(0o755)  # mkdtemp's is the owner's alone
        write_experiment(draft, experiment)
        with manager(draft) as new:
            save(new, 0, {'params': params}, {})
        if run.exists():
            run.rmdir()
        draft.rename(run)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_experiment(run: str | pathlib.Path, experiment: Experiment) -> None:
    """Writes `experiment.json` in one step: a reader sees the old one or the new one."""
    path = pathlib.Path(run) / 'experiment.json'
    draft = path.with_suffix('.tmp')
    draft.write_text(json.dumps(experiments.to_json(experiment), indent=1) + '\n')
    draft.replace(path)


def _placed(shapes: Any) -> Any:
    """Shapes with a place: the first device, or a copy on every one where processes share a run."""
    devices = jax.devices() if jax.process_count() > 1 else jax.devices()[:1]
    mesh = jax.sharding.Mesh(np.array(devices), ('device',))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)


def _saved_shapes(manager: ocp.CheckpointManager, step: int, item: str) -> Any:
    directory = pathlib.Path(manager.directory) / str(step) / item
    if not directory.is_dir():
        raise ValueError(f'the checkpoint of step {step} has no {item}: {manager.directory}.')
    with ocp.StandardCheckpointer() as checkpointer:
        metadata: Any = checkpointer.metadata(directory).item_metadata
    return metadata.tree


def require_equal(what: str, saved: Any, wanted: Any) -> None:
    """Checks that two trees have the same paths, shapes and dtypes.

    Raises:
        ValueError: naming every difference.
    """

    def flat(tree: Any, of: Callable[[Any], Any]) -> dict[str, Any]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {_path(path): of(leaf) for path, leaf in leaves}

    old = flat(saved, lambda x: f'{x.dtype}{list(x.shape)}')
    new = flat(wanted, lambda x: f'{x.dtype}{list(x.shape)}')
    wrong = [f'- {name} {new[name]}' for name in new if name not in old]
    wrong += [f'+ {name} {old[name]}' for name in old if name not in new]
    wrong += [
        f'  {name}: saved {old[name]}, wanted {new[name]}'
        for name in new
        if name in old and old[name] != new[name]
    ]
    if wrong:
        lines = '\n'.join(wrong)
        raise ValueError(f'{what} does not fit the model (- missing, + surplus):\n{lines}')


def _path(path: Any) -> str:
    """A parameter's path, however a container names its children (dicts, tuples, dataclasses)."""
    return '/'.join(
        str(getattr(entry, 'key', getattr(entry, 'name', getattr(entry, 'idx', entry))))
        for entry in path
    )
