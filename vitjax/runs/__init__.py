"""Run directories, and the one way to open a trained model: from a run or from published weights.

A run directory holds `experiment.json`, `metrics.jsonl`, `environment.jsonl`, `checkpoints/`,
`figures/` and, after the test, `predictions.json`. These are JSON, Orbax checkpoints and PNG, which
can be read without the code that wrote them.
"""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import experiment as experiments
from vitjax import models, pretrained
from vitjax.base import files, shell
from vitjax.base.types import Params
from vitjax.data.source import Source
from vitjax.experiment import Experiment, Prepared
from vitjax.models.base import parameter_shapes
from vitjax.runs import checkpoint, records

Path = str | pathlib.Path


class Loaded(NamedTuple):
    """A trained model.

    Attributes:
        experiment: experiment with the model, its preprocessing, class names and origin.
        params: parameters of the model.
        changes: `pretrained.Change` values of everything changed on the way, in order.
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

    The experiment's model, preprocessing and class names are those of the parameters returned. A
    run that keeps a moving average returns it. Parameters are on the first device, whatever number
    of devices wrote them.

    Args:
        path: a run directory, or a path as `pretrained.read` takes it.
        model: a published model's name if the weights do not tell it; not for a run.
        image_size: side of the images in pixels; None keeps the model's.
        patch_size: side of the patches in pixels; None keeps the model's.
        num_classes: another number starts a fresh head, 0 leaves it out; None keeps the head.
        stated: a user's statements about weights; not for a run.
        which: checkpoint of a run, `best` (by validation accuracy) or `latest`.
        report: called with each change as it is made.

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
        experiment = experiments.prepared(read_experiment(path))
        shapes = parameter_shapes(experiment.model, experiment.preprocessing.size)
        stored = checkpoint.position(path).get('dtype', 'float32')
        if stored != 'float32':
            note(pretrained.Change('parameters', f'parameters: stored as {stored}'))
            shapes = jax.eval_shape(functools.partial(_cast, dtype=stored), shapes)
        params = checkpoint.load(path, shapes, which=which, item=_item(experiment))
        params = _cast(params, 'float32')
        experiment, params = pretrained.fit(experiment, params, **sizes, report=note)
    else:
        if hint := _hint_for_weights(pathlib.Path(path)):
            raise ValueError(hint)
        experiment, params = pretrained.load(path, model=model, **sizes, stated=stated, report=note)
    _require_finite(params, path)
    return Loaded(experiment, params, tuple(changes))


def _require_finite(params: Params, path: Path) -> None:
    for place, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(leaf).all():
            name = jax.tree_util.keystr(place, simple=True, separator='/')
            raise ValueError(f'parameters must be finite: {name} of {path} is not.')


def _hint_for_weights(path: pathlib.Path) -> str:
    """The argument to give for a path that is neither a run nor weights; empty if it may be one."""
    name = path.stem if path.suffix == '.py' else str(path)
    if name in experiments.known() and (path.suffix == '.py' or not path.exists()):
        train = shell.command('train', str(path))
        return f'{path} is an experiment: {train} makes a run of it, runs/{name}.'
    if name in models.NAMES and not path.exists():
        return f'{path} is a model without weights: give a file of them, or a run.'
    weights = path.suffix in ('.safetensors', '.npz')
    if path.is_file() and not weights and (path.parent / 'experiment.json').exists():
        return f'{path} is a file of a run: give the run, {path.parent}.'
    return ''


def _hint_for_run(path: pathlib.Path) -> str:
    """The reason why a directory is not a run, and the argument to give if it can be told."""
    reason = f'a run directory has an experiment.json: {path} has none.'
    if one := next(path.glob('cells/*/seed_*'), None):
        return f'{reason}\nIt is an ablation: give one of its runs, as in {one}.'
    if (path / 'index.json').exists() and (path / 'examples.npy').exists():
        return f'{reason}\nIt is a capture: {shell.command("similarity", str(path))} compares it.'
    around = next((up for up in path.parents if (up / 'experiment.json').exists()), None)
    return f'{reason}\nIt lies in the run {around}.' if around else reason


def read_experiment(run: Path) -> Experiment:
    """The experiment of a run directory.

    Raises:
        ValueError: if there is none, or it cannot be read, by file and field.
    """
    path = files.inside(run, 'experiment.json')
    try:
        values = files.read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(_hint_for_run(pathlib.Path(run))) from None
    with files.naming(path):
        return experiments.from_json(values)


def write_experiment(run: Path, experiment: Experiment) -> None:
    """Writes `experiment.json` in one step: a reader sees the old one or the new one."""
    files.write_json(files.inside(run, 'experiment.json'), experiments.to_json(experiment))


def write(
    run: Path, experiment: Experiment, params: Params, *, dtype: str = 'float32',
    source: Path | None = None,
) -> None:  # fmt: skip
    """Writes parameters and their experiment as a run directory, complete or not at all.

    Args:
        run: a missing or empty directory.
        experiment: the experiment that `load` shall return.
        params: the parameters that `load` shall return.
        dtype: type of the stored parameters, float32 or float16; `load` returns float32.
        source: run that trained these parameters; its records (metrics, environment, predictions,
            identity of its data) are copied.

    Raises:
        ValueError: if the directory holds anything, the parameters are not those that `load` would
            ask of the model, or one of them is outside of the range of `dtype`.
        OSError: if it cannot be written.
    """
    if not files.is_empty(run):
        raise ValueError(f'the output directory must be new or empty: {run} is not.')
    wanted = parameter_shapes(experiment.model, experiments.preprocessing(experiment).size)
    checkpoint.require_equal('what is to be written, for images of 3 channels,', params, wanted)
    position: dict[str, Any] = {}
    if dtype != 'float32':
        position, params = {'dtype': dtype}, _cast(params, dtype)
        _require_finite(params, f'{run} in {dtype}')
    with files.writing_folder(run) as draft:
        write_experiment(draft, experiment)
        if source is not None:
            position |= {'origin': checkpoint.position(source).get('origin')}
            for name in (records.METRICS, records.ENVIRONMENT, records.PREDICTIONS):
                if (path := files.inside(source, name)).exists():
                    shutil.copyfile(path, draft / name)
        with checkpoint.writing(draft) as new:
            checkpoint.save(new, 0, {_item(experiment): params}, position)
        checkpoint.forget_places(draft)


def _item(experiment: Experiment) -> str:
    """Item of a checkpoint that `load` returns: the moving average of a run that keeps one."""
    return 'ema' if experiment.optim.ema else 'params'


def _cast(params: Params, dtype: str) -> Params:
    return jax.tree.map(lambda x: jnp.astype(x, dtype), params)


def require_same(experiment: Experiment, run: Path) -> None:
    """Refuses a directory in which another experiment has begun to train.

    A folder of images may have moved: `provenance.require_same` compares its contents.

    Raises:
        ValueError: with every field that differs.
    """
    run = pathlib.Path(run)
    if files.is_empty(run):
        return
    known = read_experiment(run)
    # A run fills these in from its data or weights: the user cannot differ in them.
    prepared, theirs = experiment.preprocessing, known.preprocessing
    if prepared is None or experiment.weights is not None:
        prepared = theirs
    else:
        own = {'size': experiment.augment.size, 'grey': bool(theirs and theirs.grey)}
        prepared = dataclasses.replace(prepared, **own)
    experiment = with_head_of(run, experiment)
    asked = dataclasses.replace(experiment, preprocessing=prepared, classes=known.classes)
    if known.data and asked.data and 'origin' in checkpoint.position(run):
        asked = dataclasses.replace(asked, data=_placed_as(asked.data, known.data))
    different = experiments.differences(known, asked)
    if different and (checkpoint.steps(run) or records.read_metrics(run)):
        lines = '\n'.join(f'  {line}' for line in different)
        rule = f'{run} holds another configuration (there -> asked); choose another --out'
        raise ValueError(f'{rule}:\n{lines}')


def with_head_of(run: Path, experiment: Experiment) -> Experiment:
    """An experiment with the outputs of the run that it began, if the data size its head."""
    if not (checkpoint.steps(run) and experiments.sized_by_data(experiment.model)):
        return experiment
    outputs = read_experiment(run).model.num_classes
    return dataclasses.replace(experiment, model=experiment.model.clone(num_classes=outputs))


def _placed_as(asked: Source, known: Source) -> Source:
    """A source at the place of another of its kind; digests vouch for the images."""
    kinds = {source.name.partition(':')[0] for source in (asked, known)}
    name = known.name if kinds == {'folder'} else asked.name
    return dataclasses.replace(asked, name=name, dir=known.dir)


def lock(run: Path, doing: str = 'training') -> contextlib.AbstractContextManager[None]:
    """Keeps other processes out of a directory; the lock ends with the process, however it ends.

    Raises:
        ValueError: if another process holds it.
    """
    first = jax.process_index() == 0
    refusal = f'another process is {doing} in {run}.'
    return files.locked(run, refusal) if first else contextlib.nullcontext()
