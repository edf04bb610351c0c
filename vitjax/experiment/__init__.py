"""Experiment: one frozen dataclass with everything a run depends on, to JSON and back."""

import dataclasses
import difflib
import pathlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from vitjax import models
from vitjax.base import fields, shell
from vitjax.base.ranges import Count, Epochs, Hidden, Seed, Steps, Whole
from vitjax.data.augment import Augment
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Source
from vitjax.experiment import loss as losses
from vitjax.experiment import registry
from vitjax.experiment.distill import Distill
from vitjax.experiment.optim import OPTIMIZERS, Optim
from vitjax.models.base import Model

Watched = Literal['cka', 'rank']
Made = TypeVar('Made', bound='Prepared')


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run depends on.

    Attributes:
        model: any module of `vitjax.models`, or a `Model` of a user's module. If `num_classes` is 0
            or the class's default, its head gets an output for each class of the data.
        data: source of the images; None if there are none, as for published weights.
        augment: augmentation of training images.
        optim: optimizer and schedule.
        loss: training loss on soft labels: `cross_entropy`; `binary`, each class by itself, present
            if its soft label is positive; or MODULE:NAME, a function like those of
            `vitjax.experiment.loss`. Evaluation always reports `cross_entropy`.
        distill: loss against a frozen teacher.
        batch_size: images a step, over all devices.
        repeats: copies of each example per batch, augmented independently. An epoch keeps its
            number of steps, and shows one in `repeats` of the examples.
        epochs: passes over the training images; give this or `steps`.
        steps: training steps; give this or `epochs`.
        seed: seed of initial weights, order of examples, augmentation and dropout.
        patience: epochs without a better validation accuracy before the run stops; 0 never stops.
        evaluate_every: epochs between evaluations and checkpoints.
        attention_every: epochs between pictures of attention on validation images; 0 draws none.
        watch: measures of the layers on validation images at each evaluation, written to
            `watch.jsonl` and drawn over training time at the end: `cka` of depth with depth,
            effective `rank`.
        parallel: layout over devices: none, one device; pmap, parameters on every device; fsdp,
            parameters split over them; or auto, which is pmap if there are several devices.
        weights: run directory or published weights to start from; None starts afresh.
        preprocessing: the model's input, of `augment.size` pixels whatever its own `size`. If None,
            a run fills it in: the image's central square, normalized by the data's statistics or
            as the weights were.
        classes: names of the classes; filled in when a run starts.
    """

    model: Model = dataclasses.field(default_factory=models.ViT)
    data: Source | None = None
    augment: Augment = Augment()
    optim: Optim = Optim()
    loss: Annotated[str, losses.NAME] = 'cross_entropy'
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


@dataclasses.dataclass(frozen=True)
class Prepared(Experiment):
    """An experiment whose preprocessing is known, as that of a run or of published weights."""

    preprocessing: Preprocessing = Preprocessing()


@dataclasses.dataclass(frozen=True)
class Resolved(Prepared):
    """An experiment resolved against its data: their preprocessing and classes are known too."""

    data: Source = Source()


def prepared(experiment: Experiment) -> Prepared:
    """An experiment with its preprocessing: the central square of `augment.size` by default."""
    return _as(Prepared, experiment, preprocessing=preprocessing(experiment))


def resolved(
    experiment: Experiment, preprocessing: Preprocessing, classes: tuple[str, ...] = ()
) -> Resolved:
    """An experiment with its data, their preprocessing and the names of their classes.

    Raises:
        ValueError: if it has no images.
    """
    found = {'preprocessing': preprocessing, 'classes': classes, 'data': require_data(experiment)}
    return _as(Resolved, experiment, **found)


def _as(kind: Callable[..., Made], experiment: Experiment, **changes: Any) -> Made:
    return kind(**{name: getattr(experiment, name) for name in fields.names(experiment)} | changes)


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
    """Returns True if the data decide the number of outputs of a model's head.

    They do if the model has its class's default number, or no head.
    """
    return model.num_classes in (0, _default_classes(model))


def unsized(model: Any) -> Any:
    """A model whose head gets an output for each class of its training data."""
    return model.clone(num_classes=_default_classes(model))


def _default_classes(model: Any) -> Any:
    return {field.name: field.default for field in dataclasses.fields(model)}['num_classes']


def preprocessing(experiment: Experiment) -> Preprocessing:
    """An experiment's preprocessing; without one, the central square of `augment.size` pixels."""
    return experiment.preprocessing or Preprocessing(experiment.augment.size, crop=1.0)


def with_length(experiment: Experiment, **length: Any) -> Experiment:
    """The experiment with another length, `steps` or `epochs`, instead of its own."""
    return dataclasses.replace(experiment, **{'steps': None, 'epochs': None, **length})


def to_json(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain JSON values; its model has a `type`."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {name: plain(getattr(value, name)) for name in fields.names(value)}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    values = plain(experiment)
    kind = registry.name_of(models.KINDS, type(experiment.model))
    return {**values, 'model': {'type': kind, **values['model']}}


def from_json(values: Any) -> Experiment:
    """The inverse of `to_json`; missing fields have their defaults. Nothing is imported.

    Raises:
        ValueError: for an unknown field, a value that its field does not take, or a name of a
            module that is not imported; by dotted path.
    """
    fields.check(values, dict, 'an experiment')
    fields.check(values.get('model'), dict, 'model')
    model = dict(values['model'])
    named = model.pop('type', None)
    kind = registry.find('model.type', models.KINDS, named)
    if not (isinstance(kind, type) and issubclass(kind, Model)):
        raise ValueError(f'model.type must be a class of models: {named}.')
    made = fields.make(kind, model, 'model')
    experiment = fields.make(Experiment, {**values, 'model': made})
    fields.require(experiment)
    registry.find('loss', losses.LOSSES, experiment.loss)
    registry.find('optim.name', OPTIMIZERS, experiment.optim.name)
    return experiment


def imports(experiment: Experiment) -> list[str]:
    """Users' modules that an experiment names, as `registry.require` takes them."""
    values = to_json(experiment)
    named = values['model']['type'], values['loss'], values['optim']['name']
    modules: set[str] = {name.partition(':')[0] for name in named if ':' in name}
    return [registry.source(module) for module in sorted(modules)]


def differences(old: Experiment, new: Experiment) -> list[str]:
    """The fields in which two experiments differ, as `model.depth: 6 -> 8`."""
    return fields.differences(to_json(old), to_json(new))


def known() -> dict[str, pathlib.Path]:
    """The files of `experiments/` by name: of this project, else of the working directory."""
    own = shell.folder('experiments')
    folder = own if own.is_dir() else pathlib.Path('experiments')
    return {path.stem: path for path in sorted(folder.glob('*.py'))}


def hooks(module: ModuleType) -> tuple[Callable[..., Any], ...]:
    """The hooks of an experiment's file; none if it has no `hooks`.

    Raises:
        ValueError: if they are not a tuple of functions.
    """
    found = vars(module).get('hooks', ())
    if not isinstance(found, tuple) or not all(map(callable, found)):
        raise ValueError(f'hooks of {module.__file__} must be a tuple of functions: {found!r}.')
    return found


def find(name: str) -> ModuleType:
    """The module of an experiment: a file of `experiments/` by its name, or any file by its path.

    It has `experiment`, `grid()` if it has an ablation, and `hooks`, a tuple of functions that
    training calls (`vitjax.loop.hooks`), if it has any.

    Raises:
        ValueError: if there is none, or it has no `experiment`.
    """
    there = known()
    found = there.get(name, there.get(name.replace('-', '_')))
    path = pathlib.Path(name) if name.endswith('.py') else found
    if path is None or not path.is_file():
        given = pathlib.Path(name)
        if (given / 'experiment.json').exists():
            raise ValueError(
                f'{name} is a run, not an experiment: the command that began it resumes it, and '
                f'--weights {name} starts another from its parameters.'
            )
        if given.suffix in ('.safetensors', '.npz'):
            raise ValueError(
                f'{name} is a weights file: name an experiment and pass the file with '
                f'--weights {name}.'
            )
        if name.endswith('.py') or given.is_dir():
            raise ValueError(
                f'an experiment must be a name or a file of Python: {name!r} is neither.'
            )
        close = ', '.join(difflib.get_close_matches(name.replace('-', '_'), there, n=3))
        listed = f'close: {close}' if close else f'there are {", ".join(there)}'
        raise ValueError(f'no experiment {name!r}; {listed}, or give a path to a file.')
    if str(path.parent) not in sys.path:  # an experiment may build on its neighbour
        sys.path.insert(0, str(path.parent))
    registry.folders.add(str(path.parent.absolute()))
    try:
        module = registry.load(path)
    except SyntaxError as error:
        raise ValueError(
            f'an experiment must be a file of Python: {registry.unparsed(error)}.'
        ) from error
    except ImportError as error:
        raise ValueError(f'{path} must import: {error}.') from error
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if 'experiment' not in vars(module):
        raise ValueError(f'{path} must define `experiment`: it does not.')
    try:
        fields.check(module.experiment, Experiment, 'experiment')
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    return module
