"""Run directories, and the one way to open a trained model, of a run or of published weights.

A run directory holds `experiment.json`, `metrics.jsonl`, `checkpoints/` and `figures/`: JSON, Orbax
checkpoints and PNG, which can be read without the code that wrote them.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from vitjax import checkpoint, pretrained
from vitjax.data.preprocess import Preprocessing
from vitjax.experiment import Experiment, differences, from_json, to_json
from vitjax.models.trunk import parameter_shapes
from vitjax.types import Params

Path = str | pathlib.Path
Record = dict[str, Any]  # one line of metrics.jsonl


class Loaded(NamedTuple):
    """A trained model.

    Attributes:
        experiment: its model, preprocessing and class names, and where it came from.
        params: its parameters.
        changes: what was changed on the way, as `pretrained.Change` values, in order.
    """

    experiment: Experiment
    params: Params
    changes: tuple[Any, ...] = ()


def load(
    path: Path, *, model: str | None = None, image_size: int | None = None,
    patch_size: int | None = None, num_classes: int | None = None, which: str = 'best',
    report: Callable[[Any], object] = print,
) -> Loaded:  # fmt: skip
    """Opens a run directory or a file of published weights.

    The experiment's model, preprocessing and class names are those of the parameters returned: the
    moving average where a run keeps one. Parameters are on the first device, whatever number of
    devices wrote them.

    Args:
        path: a run directory, or what `pretrained.read` takes.
        model: a published model's name where the weights do not say it; not for a run.
        image_size: side in pixels of the images; None keeps what the model was made for.
        patch_size: of the patches; None keeps it.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        which: of a run's checkpoints, `best` (by validation accuracy) or `latest`.
        report: is called with each change as it is made.

    Raises:
        ValueError: if there is no such run or file, or it does not fit its model or the sizes.
    """
    changes: list[Any] = []

    def note(change: Any) -> None:
        changes.append(change)
        report(change)

    sizes: dict[str, Any] = {
        'image_size': image_size, 'patch_size': patch_size, 'num_classes': num_classes
    }  # fmt: skip
    if pathlib.Path(path).is_dir():
        if model is not None:
            raise ValueError(f'a run directory knows its model: {path}; leave out {model}.')
        experiment = read_experiment(path)
        size = experiment.augment.size
        prepared = experiment.preprocessing or Preprocessing(size, crop=1.0)
        experiment = dataclasses.replace(experiment, preprocessing=prepared)
        params = checkpoint.load(
            path,
            parameter_shapes(experiment.model, prepared.size),
            which=which,
            item='ema' if experiment.optim.ema else 'params',
        )
        experiment, params = pretrained.fit(experiment, params, **sizes, report=note)
    else:
        experiment, params = pretrained.load(path, model=model, **sizes, report=note)
    return Loaded(experiment, params, tuple(changes))


def read_experiment(run: Path) -> Experiment:
    """The experiment of a run directory.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    path = pathlib.Path(run) / 'experiment.json'
    try:
        return from_json(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f'a run directory has an experiment.json: {run} has none.') from None
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f'{path} cannot be read: {error}.') from None


def write_experiment(run: Path, experiment: Experiment) -> None:
    """Writes `experiment.json` in one step: a reader sees the old one or the new one."""
    _replace(pathlib.Path(run) / 'experiment.json', json.dumps(to_json(experiment), indent=1))


def write(run: Path, experiment: Experiment, params: Params) -> None:
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
        with checkpoint.manager(draft) as new:
            checkpoint.save(new, 0, {'params': params}, {})
        if run.exists():
            run.rmdir()
        draft.rename(run)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def require_same(experiment: Experiment, run: Path) -> None:
    """Refuses a directory in which another experiment has begun to train.

    Raises:
        ValueError: with every field that differs.
    """
    run = pathlib.Path(run)
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    known = read_experiment(run)
    # What a run fills in from its data is not the user's to differ in.
    asked = dataclasses.replace(
        experiment, preprocessing=known.preprocessing, classes=known.classes
    )
    different = differences(known, asked)
    if different and (checkpoint.steps(run) or read_metrics(run)):
        lines = '\n'.join(f'  {line}' for line in different)
        raise ValueError(
            f'{run} holds another configuration (there -> asked); choose another --out:\n{lines}'
        )


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Keeps a second process out of the directory; the lock ends with the process, however it does.

    Raises:
        ValueError: if another process has it.
    """
    directory = os.open(run, os.O_RDONLY)
    try:
        if jax.process_index() == 0:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f'another process is training in {run}.') from None
    finally:
        os.close(directory)


# ---- Metrics -----------------------------------------------------------------------------------


def read_metrics(run: Path, name: str = 'metrics.jsonl') -> list[Record]:
    """The lines of a run's `metrics.jsonl`, except a last one that a kill cut short."""
    path = pathlib.Path(run) / name
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def tested(run: Path) -> Record | None:
    """The record of the test split, the last of a finished run; None before."""
    return next((r for r in read_metrics(run)[::-1] if r['split'] == 'test'), None)


def rewind(run: Path, step: int) -> list[Record]:
    """Drops the lines after a step, which will be written again; returns the metrics that stay."""
    kept = {}
    for name in ('watch.jsonl', 'metrics.jsonl'):
        path = pathlib.Path(run) / name
        kept[name] = [record for record in read_metrics(run, name) if record['step'] <= step]
        if jax.process_index() == 0 and (path.exists() or name == 'metrics.jsonl'):
            lines = map(json.dumps, kept[name])
            _replace(path, '\n'.join(lines), end='\n' * bool(kept[name]))
    return kept['metrics.jsonl']


def append(run: Path, record: Record) -> None:
    """Adds a line to `metrics.jsonl`, and to TensorBoard's events where tensorboardX is there."""
    if jax.process_index() > 0:
        return
    run = pathlib.Path(run)
    note(run, record, 'metrics.jsonl')
    if writer := _events(run):
        for name in sorted(record.keys() - {'step', 'epoch', 'split', 'seconds'}):
            writer.add_scalar(f'{name}/{record["split"]}', record[name], record['step'])
        writer.flush()


def note(run: Path, record: Record, name: str) -> None:
    """Adds a line to a JSONL file of a run."""
    if jax.process_index() == 0:
        with (pathlib.Path(run) / name).open('a') as file:
            file.write(json.dumps(record) + '\n')


@functools.lru_cache(maxsize=1)
def _events(run: pathlib.Path) -> Any:
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(run))


def save_figure(figure: Any, run: Path, name: str) -> None:
    """Writes a figure, or an animation, into the run's `figures/`."""
    if jax.process_index() == 0:
        folder = pathlib.Path(run) / 'figures'
        folder.mkdir(exist_ok=True)
        if name.endswith('.gif'):
            figure.save(folder / name, writer='pillow', dpi=100)
        else:
            figure.savefig(folder / name, dpi=120)


def _replace(path: pathlib.Path, text: str, end: str = '\n') -> None:
    draft = path.with_suffix('.tmp')
    draft.write_text(text + end)
    draft.replace(path)
