"""Experiment: one frozen dataclass with everything a run depends on, to JSON and back."""

import dataclasses
import importlib.util
import pathlib
import sys
from types import ModuleType
from typing import Annotated, Any, Literal

from vitjax import models
from vitjax.base import fields
from vitjax.base.ranges import Count, Epochs, Hidden, Seed, Steps, Whole
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment.distill import Distill
from vitjax.experiment.optim import Optim
from vitjax.models.base import Model

Watched = Literal['cka', 'rank']


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run depends on.

    Attributes:
        model: any module of `vitjax.models`. One with its class's own `num_classes`, or 0, gets an
            output for each class of the data when a run starts.
        data: which images; None where there are none, as for published weights.
        augment: what training images go through.
        optim: optimizer and schedule.
        loss: of a training step: `cross_entropy` of soft labels, or `binary`: each class by itself,
            present wherever an image has a share of it. Evaluation always says `cross_entropy`.
        distill: a frozen teacher's part of the loss.
        batch_size: images a step, over all devices.
        repeats: how often an example comes in a batch, augmented anew each time; an epoch then has
            as many steps as before, and one in `repeats` of the examples.
        epochs: passes over the training images; give this or `steps`.
        steps: training steps; give this or `epochs`.
        seed: of initial weights, order of examples, augmentation and dropout.
        patience: epochs without a better validation accuracy after which to stop; 0 never stops.
        evaluate_every: epochs between evaluations and checkpoints.
        attention_every: epochs between pictures of attention on validation images; 0 draws none.
        watch: what of the layers to follow on validation images at each evaluation, into
            `watch.jsonl`, and to draw over training time at the end: `cka` of depth with depth,
            effective `rank`.
        parallel: auto, none, pmap or fsdp.
        weights: run directory or published weights to start from; None starts afresh.
        preprocessing: what the model's input is, of `augment.size` pixels whatever its own; where
            an experiment gives none, it is filled in when a run starts: whole squares, normalised
            as the data's statistics or the weights have it.
        classes: names of the classes; filled in when a run starts.
    """

    model: Model = dataclasses.field(default_factory=models.ViT)
    data: Source | None = None
    augment: Augment = Augment()
    optim: Optim = Optim()
    loss: Literal['cross_entropy', 'binary'] = 'cross_entropy'
    distill: Distill = Distill()
    batch_size: Count = 256
    repeats: Count = 1
    epochs: Epochs | None = None
    steps: Steps | None = None
    seed: Seed = 0
    patience: Whole = 0
    evaluate_every: Epochs = 1
    attention_every: Whole = 0
    watch: tuple[Watched, ...] = ()
    parallel: Literal['auto', 'none', 'pmap', 'fsdp'] = 'auto'
    weights: str | None = None
    preprocessing: Annotated[Preprocessing | None, Hidden()] = None
    classes: Annotated[tuple[str, ...], Hidden()] = ()


def require_data(experiment: Experiment) -> Source:
    """The experiment's images.

    Raises:
        ValueError: if it has none, with the flag that gives them.
    """
    if experiment.data is None:
        raise ValueError(
            'the experiment has no images: --data.name takes digits, tfds:NAME or folder:PATH '
            '(its file, data=Source(NAME)).'
        )
    return experiment.data


def sized_by_data(model: Any) -> bool:
    """Returns True if the data decide how many outputs a model's head gets when it trains.

    They do for a model with the default number of its class, or without a head.
    """
    return model.num_classes in (0, _default_classes(model))


def unsized(model: Any) -> Any:
    """A model whose head gets an output for each class of the data that it will train on."""
    return model.clone(num_classes=_default_classes(model))


def _default_classes(model: Any) -> Any:
    return {field.name: field.default for field in dataclasses.fields(model)}['num_classes']


def preprocessing(experiment: Experiment) -> Preprocessing:
    """What its model's input is: as recorded, else whole squares of `augment.size` pixels."""
    return experiment.preprocessing or Preprocessing(experiment.augment.size, crop=1.0)


def with_length(experiment: Experiment, **length: Any) -> Experiment:
    """The experiment with another length, `steps` or `epochs`, in place of its own."""
    return dataclasses.replace(experiment, **{'steps': None, 'epochs': None, **length})


def to_json(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain JSON values; the model says its `type`."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {name: plain(getattr(value, name)) for name in fields.names(value)}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    values = plain(experiment)
    return {**values, 'model': {'type': type(experiment.model).__name__, **values['model']}}


def from_json(values: Any) -> Experiment:
    """The inverse of `to_json`; fields that are not there have their defaults.

    Raises:
        ValueError: for what is no experiment: a field that does not exist, a value that its field
            does not take, by dotted path.
    """
    fields.check(values, dict, 'an experiment')
    fields.check(values.get('model'), dict, 'model')
    model = dict(values['model'])
    kind = model.pop('type', None)
    literal: Any = Literal
    fields.check(kind, literal[tuple(models.KINDS)], 'model.type')
    made = fields.make(models.KINDS[kind], model, 'model')
    experiment = fields.make(Experiment, {**values, 'model': made})
    fields.require(experiment)
    return experiment


def differences(old: Experiment, new: Experiment) -> list[str]:
    """The fields in which two experiments differ, as `model.depth: 6 -> 8`."""
    return fields.differences(to_json(old), to_json(new))


def known() -> dict[str, pathlib.Path]:
    """The files of `experiments/` by name: of this project, else of the working directory."""
    beside = pathlib.Path(__file__).resolve().parents[2] / 'experiments'
    folder = beside if beside.is_dir() else pathlib.Path('experiments')
    return {path.stem: path for path in sorted(folder.glob('*.py'))}


def find(name: str) -> ModuleType:
    """The module of an experiment: a file of `experiments/` by its name, or any file by its path.

    It has `experiment`, and `grid()` where it has an ablation.

    Raises:
        ValueError: if there is none, or it has no `experiment`.
    """
    path = pathlib.Path(name) if name.endswith('.py') else known().get(name)
    if path is None or not path.is_file():
        given = pathlib.Path(name)
        if (given / 'experiment.json').exists():
            raise ValueError(
                f'{name} is a run, not an experiment: the command that began it resumes it, and '
                f'--weights {name} starts another from its parameters.'
            )
        if given.suffix in ('.safetensors', '.npz'):
            raise ValueError(f'{name} is no experiment: name one, and --weights {name}.')
        there = ', '.join(known())
        raise ValueError(f'no experiment {name!r}; there are {there}, or give a path to a file.')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    if str(path.parent) not in sys.path:  # an experiment may build on its neighbour
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if 'experiment' not in vars(module):
        raise ValueError(f'{path} must define `experiment`: it does not.')
    try:
        fields.check(module.experiment, Experiment, 'experiment')
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    return module
