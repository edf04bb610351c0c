"""Run directories, and the one way to open a trained model, of a run or of published weights.

A run directory holds `experiment.json`, `metrics.jsonl`, `environment.jsonl`, `checkpoints/`,
`figures/` and, once it is tested, `predictions.json`: JSON, Orbax checkpoints and PNG, which can be
read without the code that wrote them.
"""

import atexit
import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vitjax import experiment as experiments
from vitjax import models, pretrained
from vitjax.base import files
from vitjax.base.types import Params
from vitjax.data.source import Source
from vitjax.experiment import (
    Experiment,
    Prepared,
    differences,
    from_json,
    prepared,
    sized_by_data,
    to_json,
)
from vitjax.models.base import parameter_shapes
from vitjax.runs import checkpoint
from vitjax.runs.environment import describe

Path = str | pathlib.Path
Record = dict[str, Any]  # one line of metrics.jsonl
METRICS, WATCH, ATTENTION = 'metrics.jsonl', 'watch.jsonl', 'attention.jsonl'
ENVIRONMENT, PREDICTIONS = 'environment.jsonl', 'predictions.json'
NUMBERS = ('step', 'epoch', 'loss', 'accuracy', 'seconds')  # that every line has


class Loaded(NamedTuple):
    """A trained model.

    Attributes:
        experiment: its model, preprocessing and class names, and where it came from.
        params: its parameters.
        changes: what was changed on the way, as `pretrained.Change` values, in order.
    """

    experiment: Prepared
    params: Params
    changes: tuple[Any, ...] = ()


def load(
    path: Path, *, model: str | None = None, image_size: int | None = None,
    patch_size: int | None = None, num_classes: int | None = None,
    stated: pretrained.Stated | None = None, which: str = 'best',
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
        stated: a user's statements about weights; not for a run.
        which: of a run's checkpoints, `best` (by validation accuracy) or `latest`.
        report: is called with each change as it is made.

    Raises:
        ValueError: if there is no such run or file, it is damaged, or does not fit its model or the
            sizes; if parameters are not finite.
    """
    changes: list[Any] = []

    def note(change: Any) -> None:
        changes.append(change)
        report(change)

    sizes: dict[str, Any] = {
        'image_size': image_size, 'patch_size': patch_size, 'num_classes': num_classes
    }  # fmt: skip
    if pathlib.Path(path).is_dir() and not pretrained.is_folder(path):
        if model is not None:
            raise ValueError(f'a run directory knows its model: {path}; leave out {model}.')
        if given := ', '.join(stated.given() if stated else ()):
            raise ValueError(f'a run directory has its {given}: {path}; leave them out.')
        experiment = read_experiment(path)
        experiment = prepared(experiment)
        params = checkpoint.load(
            path,
            parameter_shapes(experiment.model, experiment.preprocessing.size),
            which=which,
            item='ema' if experiment.optim.ema else 'params',
        )
        experiment, params = pretrained.fit(experiment, params, **sizes, report=note)
    else:
        if hint := _no_weights(pathlib.Path(path)):
            raise ValueError(hint)
        experiment, params = pretrained.load(path, model=model, **sizes, stated=stated, report=note)
    _require_finite(params, path)
    return Loaded(prepared(experiment), params, tuple(changes))


def _no_weights(path: pathlib.Path) -> str:
    """What to give instead of something that is neither a run nor weights; empty if it may be."""
    name = path.stem if path.suffix == '.py' else str(path)
    if name in experiments.known() and (path.suffix == '.py' or not path.exists()):
        return f'{path} is an experiment: scripts/train.py {path} makes a run of it, runs/{name}.'
    if name in models.NAMES and not path.exists():
        return f'{path} is a model without weights: give a file of them, or a run.'
    weights = path.suffix in ('.safetensors', '.npz')
    if path.is_file() and not weights and (path.parent / 'experiment.json').exists():
        return f'{path} is a file of a run: give the run, {path.parent}.'
    return ''


def _no_run(path: pathlib.Path) -> str:
    """Why a directory is no run, and what to give instead where that can be told."""
    said = f'a run directory has an experiment.json: {path} has none.'
    if one := next(path.glob('cells/*/seed_*'), None):
        return f'{said}\nIt is an ablation: give one of its runs, as in {one}.'
    if (path / 'index.json').exists() and (path / 'examples.npy').exists():
        return f'{said}\nIt is a capture, which scripts/similarity.py compares.'
    around = next((up for up in path.parents if (up / 'experiment.json').exists()), None)
    return f'{said}\nIt lies in the run {around}.' if around else said


def _require_finite(params: Params, path: Path) -> None:
    for name, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(name, simple=True, separator='/')
            raise ValueError(f'parameters must be finite: {name} of {path} is not.')


def read_experiment(run: Path) -> Experiment:
    """The experiment of a run directory.

    Raises:
        ValueError: if there is none, or it cannot be read, by file and field.
    """
    path = files.inside(run, 'experiment.json')
    try:
        values = files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(_no_run(pathlib.Path(run))) from None
    try:
        return from_json(values)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def write_experiment(run: Path, experiment: Experiment) -> None:
    """Writes `experiment.json` in one step: a reader sees the old one or the new one."""
    files.write_json(files.inside(run, 'experiment.json'), to_json(experiment))


def write(run: Path, experiment: Experiment, params: Params) -> None:
    """Writes parameters and their experiment as a run directory, whole or not at all.

    Args:
        run: the directory: missing, or empty.
        experiment: as `load` shall return it.
        params: likewise.

    Raises:
        ValueError: if the directory holds anything, or the parameters are not those that `load`
            would ask of the model.
        OSError: if it cannot be written.
    """
    if not files.is_empty(run):
        raise ValueError(f'the output directory must be new or empty: {run} is not.')
    wanted = parameter_shapes(experiment.model, experiments.preprocessing(experiment).size)
    checkpoint.require_equal('what is to be written, for images of 3 channels,', params, wanted)
    with files.writing_folder(run) as draft:
        write_experiment(draft, experiment)
        with checkpoint.writing(draft) as new:
            checkpoint.save(new, 0, {'params': params}, {})


def require_same(experiment: Experiment, run: Path) -> None:
    """Refuses a directory in which another experiment has begun to train.

    A folder of images may have moved: `provenance.require_same` compares what is in it.

    Raises:
        ValueError: with every field that differs.
    """
    run = pathlib.Path(run)
    if files.is_empty(run):
        return
    known = read_experiment(run)
    # What a run fills in from its data or weights is not the user's to differ in.
    prepared = experiment.preprocessing
    if prepared is None or experiment.weights is not None:
        prepared = known.preprocessing
    else:
        prepared = dataclasses.replace(
            prepared,
            size=experiment.augment.size,
            grey=bool(known.preprocessing and known.preprocessing.grey),
        )
    experiment = with_head_of(run, experiment)
    asked = dataclasses.replace(experiment, preprocessing=prepared, classes=known.classes)
    if known.data and asked.data and 'origin' in checkpoint.position(run):
        asked = dataclasses.replace(asked, data=_placed_as(asked.data, known.data))
    different = differences(known, asked)
    if different and (checkpoint.steps(run) or read_metrics(run)):
        lines = '\n'.join(f'  {line}' for line in different)
        raise ValueError(
            f'{run} holds another configuration (there -> asked); choose another --out:\n{lines}'
        )


def with_head_of(run: Path, experiment: Experiment) -> Experiment:
    """An experiment with as many outputs as a run has that began with it, if data size its head."""
    if not (checkpoint.steps(run) and sized_by_data(experiment.model)):
        return experiment
    outputs = read_experiment(run).model.num_classes
    return dataclasses.replace(experiment, model=experiment.model.clone(num_classes=outputs))


def _placed_as(asked: Source, known: Source) -> Source:
    """A source with the folder of another of its kind: a place, which digests may vouch for."""
    kinds = {source.name.partition(':')[0] for source in (asked, known)}
    name = known.name if kinds == {'folder'} else asked.name
    return dataclasses.replace(asked, name=name, dir=known.dir)


@contextlib.contextmanager
def lock(run: Path, doing: str = 'training') -> Iterator[None]:
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
        raise ValueError(f'another process is {doing} in {run}.') from None
    finally:
        os.close(directory)


# ---- Metrics -----------------------------------------------------------------------------------


def read_metrics(run: Path) -> list[Record]:
    """The lines of a run's `metrics.jsonl` that are whole; `rewind` mends the others."""
    return _read_metrics(run)[0]


def _read_metrics(run: Path) -> tuple[list[Record], int]:
    """The whole lines of `metrics.jsonl`, and how many others there are."""
    found, broken = files.read_lines(files.inside(run, METRICS))
    records = [record for record in found if _is_record(record)]
    return records, len(broken) + len(found) - len(records)


def _is_record(values: Record) -> bool:
    numbers = all(isinstance(values.get(name), int | float) for name in NUMBERS)
    return numbers and values.get('split') in ('train', 'validation', 'test')


def tested(run: Path) -> Record | None:
    """The record of the test split, the last of a finished run; None before.

    A run with damaged lines is not finished: resuming it restores them.
    """
    records, broken = _read_metrics(run)
    return next((r for r in records[::-1] if r['split'] == 'test' and not broken), None)


def rewind(run: Path, step: int, kept: list[Record] | None = None) -> list[Record]:
    """Brings the files of lines back to a step; returns those of `metrics.jsonl`.

    Later lines will be written again. What was wrong with those before is said on stderr.

    Args:
        run: the run directory.
        step: training resumes from it.
        kept: the lines up to it, as its checkpoint has them; None where that is of an earlier
            version, which leaves those of the file that are whole.
    """
    found, broken = _read_metrics(run)
    records = [record for record in found if record['step'] <= step and record['split'] != 'test']
    if jax.process_index() == 0:
        path = files.inside(run, METRICS)
        if kept is not None and kept != records:
            files.warn(f'{path} was damaged: its {len(kept)} lines are those of the checkpoint')
        elif kept is None and broken > 1:  # a kill may have cut one
            files.warn(f'{path} was damaged: {broken} lines are lost')
        files.replace(path, ''.join(map(files.line, records if kept is None else kept)))
        for name in (WATCH, ATTENTION):
            if (path := files.inside(run, name)).exists():
                seen = [record for record in read_notes(run, name) if record['step'] <= step]
                files.replace(path, ''.join(map(files.line, seen)))
    return records if kept is None else kept


def append(run: Path, record: Record) -> None:
    """Adds a line to `metrics.jsonl`, and to TensorBoard's events where tensorboardX is there."""
    if jax.process_index() > 0:
        return
    run = pathlib.Path(run)
    note(run, record, METRICS)
    _add_event(run, record)


def note(run: Path, record: Record, name: str) -> None:
    """Adds a line to a file of JSON lines of a run."""
    if jax.process_index() == 0:
        with files.inside(run, name).open('a') as file:
            file.write(files.line(record))


def read_notes(run: Path, name: str) -> list[Record]:
    """What `note` wrote to a file of a run, without lines that are damaged."""
    found, broken = files.read_lines(path := files.inside(run, name))
    records = [record for record in found if isinstance(record.get('step'), int)]
    if lost := len(broken) + len(found) - len(records):
        files.warn(f'{path} was damaged: {lost} lines are lost')
    return records


def note_start(outs: Iterable[Path], step: int, devices: Sequence[Any]) -> None:
    """Adds a line to `environment.jsonl` of runs that start or resume: at which step, and where.

    What is damaged in the file is left out, and said on stderr.
    """
    if jax.process_index() == 0:
        record = {'step': step, **describe(devices)}
        for run in outs:
            records = [*read_notes(run, ENVIRONMENT), record]
            files.replace(files.inside(run, ENVIRONMENT), ''.join(map(files.line, records)))


def write_predictions(run: Path, values: Record) -> None:
    """Writes `predictions.json`: what the best parameters say of each test image, and its digest.

    Args:
        run: the run directory.
        values: as `evaluate.answers` makes them.
    """
    if jax.process_index() == 0:
        files.write_json(files.inside(run, PREDICTIONS), values)


def read_predictions(run: Path) -> dict[str, np.ndarray]:
    """What `write_predictions` wrote: arrays [N] by name.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path = files.inside(run, PREDICTIONS)
    try:
        found = {name: np.array(values) for name, values in files.read_json(path).items()}
    except FileNotFoundError:
        raise ValueError(f'{run} has no {PREDICTIONS}.') from None
    if len({values.shape for values in found.values()}) != 1 or len(found['labels'].shape) != 1:
        raise ValueError(f'{path} must hold lists of one length: it does not.')
    return found


def _add_event(run: pathlib.Path, record: Record) -> None:
    try:
        from tensorboardX.proto import event_pb2
    except ImportError:
        return
    protocol: Any = event_pb2
    names = sorted(record.keys() - {'step', 'epoch', 'split', 'seconds'})
    tags = {f'{name}/{record["split"]}': record[name] for name in names}
    event = protocol.Event(wall_time=time.time(), step=record['step'])
    for tag, value in tags.items():
        event.summary.value.add(tag=tag, simple_value=value)
    writer = _events(run)
    writer.write_event(event)
    writer.flush()


@functools.lru_cache(maxsize=64)  # as many seeds as may train together
def _events(run: pathlib.Path) -> Any:
    # Not its SummaryWriter: its thread ends at a full disk, and then whoever writes waits for ever.
    from tensorboardX.event_file_writer import EventsWriter

    writer = EventsWriter(str(run / 'events'))
    atexit.register(writer.close)
    return writer


def save_figure(figure: Any, run: Path, name: str) -> None:
    """Writes a figure, or an animation, into the run's `figures/`, in one step."""
    if jax.process_index() == 0:
        files.inside(run, 'figures').mkdir(exist_ok=True)
        path = files.inside(run, f'figures/{name}')
        with files.writing(path) as file, tempfile.TemporaryDirectory() as folder:
            if name.endswith('.gif'):  # matplotlib saves animations under a name only
                film = pathlib.Path(folder) / name
                figure.save(film, writer='pillow', dpi=100)
                file.write(film.read_bytes())
            else:
                figure.savefig(file, format=path.suffix[1:])
