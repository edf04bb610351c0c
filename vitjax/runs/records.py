"""Files of a run besides its checkpoints: lines of metrics and notes, predictions, figures.

Only the first process writes; every process may read. Lines carry a check, so damaged ones are
found, reported and left out.
"""

import atexit
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from vitjax.base import files
from vitjax.runs.environment import describe

Path = str | pathlib.Path
Record = dict[str, Any]  # one line of metrics.jsonl
METRICS, WATCH, ATTENTION = 'metrics.jsonl', 'watch.jsonl', 'attention.jsonl'
ENVIRONMENT, PREDICTIONS = 'environment.jsonl', 'predictions.json'
NUMBERS = ('step', 'epoch', 'seconds')  # in every line of metrics
SCORES = ('loss', 'accuracy')  # in those of a split of the data


def read_metrics(run: Path) -> list[Record]:
    """The intact lines of a run's `metrics.jsonl`; `rewind` repairs the others."""
    return _read_metrics(run)[0]


def _read_metrics(run: Path) -> tuple[list[Record], int]:
    """The intact lines of `metrics.jsonl`, and the number of damaged ones."""
    return _intact(run, METRICS, is_record)


def _intact(run: Path, name: str, known: Callable[[Record], bool]) -> tuple[list[Record], int]:
    found, broken = files.read_lines(files.inside(run, name))
    records = [record for record in found if known(record)]
    return records, len(broken) + len(found) - len(records)


def is_record(values: Record) -> bool:
    """Returns True for a line of metrics: of a split of the data, or of a user's hook."""
    split = values.get('split')
    scored = SCORES if split in ('train', 'validation', 'test') else ()
    numbers = all(isinstance(values.get(name), int | float) for name in (*NUMBERS, *scored))
    return numbers and isinstance(split, str)


def tested(run: Path) -> Record | None:
    """The record of the test split, the last of a finished run; None before.

    A run with damaged lines is not finished: resuming it restores them.
    """
    records, broken = _read_metrics(run)
    return next((r for r in records[::-1] if r['split'] == 'test' and not broken), None)


def rewind(run: Path, step: int, kept: list[Record] | None = None) -> list[Record]:
    """Cuts a run's files of lines back to a step; returns those of `metrics.jsonl`.

    Resuming writes the later lines again. Damage among the earlier ones is reported on stderr.

    Args:
        run: the run directory.
        step: step that training resumes from.
        kept: lines up to that step, as the checkpoint stores them; None for checkpoints of an
            earlier version, after which the intact lines of the file stay.
    """
    found, broken = _read_metrics(run)
    records = [record for record in found if record['step'] <= step and record['split'] != 'test']
    stored = records if kept is None else kept
    if jax.process_index() == 0:
        path = files.inside(run, METRICS)
        if stored != records:
            files.warn(f'{path} was damaged: its {len(stored)} lines are those of the checkpoint')
        elif kept is None and broken > 1:  # a kill may have cut one
            files.warn(f'{path} was damaged: {broken} lines are lost')
        _rewrite(path, stored)
        for name in (WATCH, ATTENTION):
            if (path := files.inside(run, name)).exists():
                _rewrite(path, [note for note in read_notes(run, name) if note['step'] <= step])
    return stored


def _rewrite(path: pathlib.Path, records: Iterable[Record]) -> None:
    files.replace(path, ''.join(map(files.line, records)))


def append(run: Path, record: Record) -> None:
    """Adds a line to `metrics.jsonl`, and to TensorBoard's events if tensorboardX is installed."""
    note(run, record, METRICS)
    if jax.process_index() == 0:
        _add_event(pathlib.Path(run), record)


def note(run: Path, record: Record, name: str) -> None:
    """Adds a line to a run's file of JSON lines."""
    if jax.process_index() == 0:
        with files.inside(run, name).open('a') as file:
            file.write(files.line(record))


def read_notes(run: Path, name: str) -> list[Record]:
    """The intact lines that `note` wrote to a file of a run."""
    records, lost = _intact(run, name, lambda record: isinstance(record.get('step'), int))
    if lost:
        files.warn(f'{files.inside(run, name)} was damaged: {lost} lines are lost')
    return records


def note_start(outs: Iterable[Path], step: int, devices: Sequence[Any]) -> None:
    """Adds a line to `environment.jsonl` of runs that start or resume: the step and the machine.

    Damaged lines of the file are dropped, with a warning on stderr.
    """
    if jax.process_index() == 0:
        record = {'step': step, **describe(devices)}
        for run in outs:
            _rewrite(files.inside(run, ENVIRONMENT), [*read_notes(run, ENVIRONMENT), record])


def write_predictions(run: Path, values: Record) -> None:
    """Writes `predictions.json`: predictions of the best parameters for each test image.

    Args:
        run: the run directory.
        values: lists of one length, as `evaluate.predictions` returns them.
    """
    if jax.process_index() == 0:
        files.write_json(files.inside(run, PREDICTIONS), values)


def read_predictions(run: Path) -> dict[str, np.ndarray]:
    """The arrays [N] of `predictions.json`, by name.

    Raises:
        ValueError: if there is no such file, or it is damaged.
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
    event = protocol.Event(wall_time=time.time(), step=record['step'])
    for name in sorted(record.keys() - {'step', 'epoch', 'split', 'seconds'}):
        event.summary.value.add(tag=f'{name}/{record["split"]}', simple_value=record[name])
    writer = _events(run)
    writer.write_event(event)
    writer.flush()


@functools.lru_cache(maxsize=64)  # as many seeds as may train together
def _events(run: pathlib.Path) -> Any:
    # Not SummaryWriter: its thread ends when the disk is full, and later writes then hang.
    from tensorboardX.event_file_writer import EventsWriter

    writer = EventsWriter(str(run / 'events'))
    atexit.register(writer.close)
    return writer


def save_figure(figure: Any, run: Path, name: str) -> None:
    """Writes a figure or an animation into the run's `figures/`, in one step."""
    if jax.process_index() == 0:
        files.inside(run, 'figures').mkdir(exist_ok=True)
        path = files.inside(run, f'figures/{name}')
        with files.writing(path) as file, tempfile.TemporaryDirectory() as folder:
            if name.endswith('.gif'):  # matplotlib saves animations only under a name
                film = pathlib.Path(folder) / name
                figure.save(film, writer='pillow', dpi=100)
                file.write(film.read_bytes())
            else:
                figure.savefig(file, format=path.suffix[1:])
