"""An experiment: one frozen dataclass that says everything a run depends on, to JSON and back."""

import dataclasses
import json
import pathlib
from typing import Any

import flax.linen as nn
import tyro

from vitjax import models
from vitjax.data.augment import Augment
from vitjax.data.images import Preprocessing
from vitjax.data.sources import Source
from vitjax.optim import Optim


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run depends on.

    Attributes:
        model: any module of `vitjax.models`.
        data: which images.
        augment: what training images go through.
        optim: optimizer and schedule.
        batch_size: images a step, over all devices.
        epochs: passes over the training images; give this or `steps`.
        steps: training steps; give this or `epochs`.
        seed: of initial weights, order of examples, augmentation and dropout.
        patience: epochs without a better validation accuracy after which to stop; 0 never stops.
        evaluate_every: epochs between evaluations and checkpoints.
        attention_every: epochs between pictures of attention on validation images; 0 draws none.
        parallel: auto, none, pmap or fsdp.
        weights: run directory or converted weights to start from; None starts afresh.
        preprocessing: filled in when a run starts, from the training images.
        classes: names of the classes, filled in when a run starts.
    """

    model: nn.Module = dataclasses.field(default_factory=models.ViT)
    data: Source = Source()
    augment: Augment = Augment()
    optim: Optim = Optim()
    batch_size: int = 256
    epochs: float | None = None
    steps: int | None = None
    seed: int = 0
    patience: int = 0
    evaluate_every: float = 1
    attention_every: int = 0
    parallel: str = 'auto'
    weights: str | None = None
    preprocessing: tyro.conf.Suppress[Preprocessing | None] = None
    classes: tyro.conf.Suppress[tuple[str, ...]] = ()


_MODELS = {m.__name__: m for m in (models.ViT, models.CaiT, models.PatchConvNet, models.ConvNet,
                                   models.VGG16)}  # fmt: skip


def to_json(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain JSON values; the model says its `type`."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if dataclasses.is_dataclass(value):
            skip = ('parent', 'name') if isinstance(value, nn.Module) else ()
            names = [f.name for f in dataclasses.fields(value) if f.name not in skip]
            value = {name: _plain(getattr(value, name)) for name in names}
        out[field.name] = _plain(value)
    return {**out, 'model': {'type': type(experiment.model).__name__, **out['model']}}


def from_json(values: dict[str, Any]) -> Experiment:
    """The inverse of `to_json`.

    Raises:
        ValueError: for a field or a model that does not exist, by name.
    """
    model = dict(values.get('model', {}))
    kind = model.pop('type', None)
    if kind not in _MODELS:
        raise ValueError(f'model type must be one of {", ".join(_MODELS)}: {kind!r}.')
    parts = {'data': Source, 'augment': Augment, 'optim': Optim, 'preprocessing': Preprocessing}
    made: dict[str, Any] = {'model': _make(_MODELS[kind], model)}
    for name, value in values.items():
        if name in parts and value is not None:
            made[name] = _make(parts[name], value)
        elif name != 'model':
            made[name] = value
    return _make(Experiment, made)


def read(run: str | pathlib.Path) -> Experiment:
    """The experiment of a run directory.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    path = pathlib.Path(run) / 'experiment.json'
    try:
        return from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f'a run directory has an experiment.json: {run} has none.') from None
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f'{path} cannot be read: {error}.') from None


def differences(old: Experiment, new: Experiment) -> list[str]:
    """The fields in which two experiments differ, as `model.depth: 6 -> 8`."""
    a, b = _leaves(to_json(old)), _leaves(to_json(new))
    return [
        f'{name}: {a.get(name)} -> {b.get(name)}'
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]


def _leaves(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out |= _leaves(value, f'{prefix}{name}.') if isinstance(value, dict) else {
            prefix + name: value
        }  # fmt: skip
    return out


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _make(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from JSON values: lists become the tuples that its fields ask for."""
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f'{kind.__name__} has no field {", ".join(unknown)}.')
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
