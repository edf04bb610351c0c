"""From an experiment and its data to a plan, and from a plan to the compiled steps of its seeds."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vitjax import runs
from vitjax.base import fields
from vitjax.base.keys import purpose
from vitjax.base.ranges import Steps
from vitjax.base.types import Module, Params, PyTree, TrainState
from vitjax.data import feed, kinds
from vitjax.data.augment import Augment, augment, require_one_crop
from vitjax.data.order import steps_per_epoch
from vitjax.data.preprocess import Preprocessing
from vitjax.data.source import Data, Encoded
from vitjax.data.statistics import is_grey, moments
from vitjax.experiment import (
    Experiment,
    distill,
    from_json,
    preprocessing,
    require_data,
    sized_by_data,
    to_json,
)
from vitjax.experiment.distill import Distill
from vitjax.experiment.optim import Optim, optimizer, trainable
from vitjax.models.base import parameter_shapes
from vitjax.runs import checkpoint
from vitjax.training import layout
from vitjax.training.step import LOSSES, init_state, require_gradients, train_step

Metrics = dict[str, np.ndarray]  # [steps, seeds]
Normal = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of pixels in 0..1

LOG_STEPS = 50  # training steps that one line of metrics averages over

load_data = functools.lru_cache(maxsize=6)(kinds.load)  # the cells of an ablation share images


class Teacher(NamedTuple):
    """A trained model that another learns from.

    Attributes:
        model: of it.
        normal: mean and deviation of its images' pixels.
        params: of it.
    """

    model: Module
    normal: Normal
    params: Params


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment resolved against its data: what will happen, before anything does.

    Attributes:
        experiment: with its preprocessing and the names of its classes.
        data: the training images.
        total: steps in all.
        per_epoch: steps in an epoch.
        every: steps between evaluations.
        params: to start from; None for fresh ones.
        teacher: to learn from; None if the experiment has none.
        origin: identity of data and weights, `provenance.of_run`, for checkpoints to record.
    """

    experiment: Experiment
    data: Data
    total: int
    per_epoch: int
    every: int
    params: Params | None = None
    teacher: Teacher | None = None
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def evaluates(self, step: int) -> bool:
        """Whether a step is followed by an evaluation."""
        return step % self.every == 0 or step == self.total

    def draws(self, step: int) -> bool:
        """Returns True if attention is drawn after a step: every `attention_every` epochs."""
        every = self.experiment.attention_every * self.per_epoch
        return every > 0 and step % every == 0 and self.evaluates(step)

    def logs(self, step: int) -> bool:
        """Whether a step ends a line of training metrics."""
        return step % LOG_STEPS == 0 or self.evaluates(step)

    def until(self, step: int) -> int:
        """The next step at which there is something to log or to evaluate."""
        following = ((step // n + 1) * n for n in (self.every, LOG_STEPS))
        return min(self.total, *following)


def plan(experiment: Experiment, report: Callable[[Any], object] = print) -> Plan:
    """Resolves an experiment: reads its training images, and the weights it starts from.

    Args:
        experiment: one without `preprocessing` and `classes`: they come from the training images,
            or with the weights.
        report: is called with each change made to the head or to weights on the way.

    Raises:
        ValueError: if the experiment does not fit its data, or its weights the model.
    """
    from_json(to_json(experiment))  # what could not be read again is not worth training
    require_gradients(experiment.model)
    data = load_data(require_data(experiment), 'train')
    total, per_epoch = total_steps(experiment, len(data)), _per_epoch(experiment, len(data))
    every = max(1, round(experiment.evaluate_every * per_epoch))
    experiment = sized(experiment, data, report)
    size, model = experiment.augment.size, experiment.model
    outputs = model.num_classes
    if outputs < len(data.classes):
        raise ValueError(
            f'the head must have an output for each class: --model.num-classes {outputs}, '
            f'{require_data(experiment).name} has {len(data.classes)} classes.'
        )
    if experiment.loss == 'binary' and experiment.augment.smoothing:
        rule = "loss 'binary' counts every share of a label: augment.smoothing must be 0"
        raise ValueError(f'{rule}: {experiment.augment.smoothing}.')
    params, given = None, experiment.preprocessing
    if experiment.weights is not None:
        loaded = runs.load(experiment.weights, image_size=size, num_classes=outputs, report=report)
        # Weights go with the normalisation that they were trained with.
        known, params = loaded.experiment.preprocessing or Preprocessing(), loaded.params
        prepared = dataclasses.replace(known, crop=given.crop if given else 1.0, squash=False)
        checkpoint.require_equal(experiment.weights, params, parameter_shapes(model, size))
        _require_settings(loaded, model, experiment.weights)
    elif given is not None:
        prepared = given
    else:
        mean, deviation = moments(data)
        prepared = Preprocessing(size, crop=1.0, mean=mean, deviation=deviation)
    # Grey is what the training images are: of a model that saw no colour, weights for it are as
    # they began.
    prepared = dataclasses.replace(prepared, size=size, grey=is_grey(data))
    experiment = dataclasses.replace(experiment, preprocessing=prepared, classes=data.classes)
    teacher = _teacher(experiment, report)
    made = Plan(experiment, data, total, per_epoch, every, params, teacher)
    _require_drawings(made, report)
    return made


def _require_drawings(plan: Plan, report: Callable[[Any], object]) -> None:
    """Reports a run that ends before attention is first drawn; refuses one that never draws it."""
    asked, epochs = plan.experiment.attention_every, plan.total / plan.per_epoch
    first = asked * plan.per_epoch
    if first > plan.total:
        report(
            f'attention is not drawn: --attention-every is {asked} epochs, the run has {epochs:.4g}'
        )
    elif first and not any(map(plan.draws, range(first, plan.total + 1, first))):
        raise ValueError(
            'attention is drawn at evaluations that end a multiple of --attention-every epochs, '
            f'and there is none in {epochs:.4g} epochs: --attention-every {asked}, '
            f'--evaluate-every {plan.experiment.evaluate_every:g}.'
        )


def sized(
    experiment: Experiment, data: Data, report: Callable[[Any], object] = lambda line: None
) -> Experiment:
    """An experiment whose head has an output for each class of its data, unless it asks otherwise.

    Args:
        experiment: any; `experiment.sized_by_data` says whether its model asks for a number.
        data: a split of its images.
        report: takes a line if the number of outputs changes.
    """
    model: Any = experiment.model
    classes, known = len(data.classes), model.num_classes
    if known == classes or not sized_by_data(model):
        return experiment
    report(f"head: {classes:,} outputs, one for each class ({known:,} is the model's default)")
    return dataclasses.replace(experiment, model=model.clone(num_classes=classes))


def _require_settings(loaded: runs.Loaded, model: Module, path: str) -> None:
    """Refuses weights for a model of the same shapes that computes something else with them."""
    assumed = any(change.what == 'assumed' and ' heads' in change.text for change in loaded.changes)
    theirs, ours = vars(loaded.experiment.model), vars(model)
    for field in ('num_heads', 'norm_epsilon', 'position_grid'):
        known, asked = theirs.get(field), ours.get(field)
        if known != asked and not (assumed and field == 'num_heads'):
            raise ValueError(
                f'a model must compute what its weights are for: {path} has {field}={known}, '
                f'model.{field}={asked}.'
            )


def _teacher(experiment: Experiment, report: Callable[[Any], object]) -> Teacher | None:
    path = experiment.distill.teacher
    if path is None:
        return None
    loaded = runs.load(path, image_size=experiment.augment.size, report=report)
    model, prepared = loaded.experiment.model, loaded.experiment.preprocessing
    ours, theirs = (m.num_classes for m in (experiment.model, model))
    if ours != theirs:
        rule = 'a teacher must have as many classes as its student'
        raise ValueError(f'{rule}: {path} has {theirs}, model.num_classes={ours}.')
    assert prepared is not None
    if prepared.grey and experiment.preprocessing and not experiment.preprocessing.grey:
        raise ValueError(
            f'a teacher of grey images cannot teach on images in colour: {path} has '
            'preprocessing.grey=true.'
        )
    return Teacher(model, (prepared.mean, prepared.deviation), loaded.params)


def total_steps(experiment: Experiment, count: int) -> int:
    """Training steps of an experiment on `count` images.

    Raises:
        ValueError: unless exactly one of `epochs` and `steps` is given, and is positive.
    """
    epochs, steps = experiment.epochs, experiment.steps
    if (epochs is None) == (steps is None):
        raise ValueError(f'give epochs or steps, one of them: {epochs=}, {steps=}.')
    per_epoch = _per_epoch(experiment, count)
    total = steps if steps is not None else round((epochs or 0) * per_epoch)
    if total < 1:
        raise ValueError(f'a run must have at least one step: {epochs=}, {steps=}.')
    fields.check(total, Steps, f'the steps of {epochs} epochs')
    return total


def _per_epoch(experiment: Experiment, count: int) -> int:
    return steps_per_epoch(count, experiment.batch_size)


class Program(NamedTuple):
    """The steps of a plan for some seeds, on devices.

    Attributes:
        init: the states before the first step, one for each seed.
        put: a list of states to the devices.
        get: the inverse.
        run: `(state, chunk) -> (state, metrics [steps, seeds])`; the state given is used up.
        feed: where chunks come from.
    """

    init: Callable[[], list[TrainState]]
    put: Callable[[list[TrainState]], Any]
    get: Callable[[Any], list[TrainState]]
    run: Callable[[Any, feed.Chunk], tuple[Any, Metrics]]
    feed: feed.Feed


def program(plan: Plan, seeds: Sequence[int], devices: Sequence[Any] | None = None) -> Program:
    """Builds what takes the steps of a plan; it is compiled when it first runs.

    Args:
        plan: of the experiment; its own seed is ignored.
        seeds: to train, each as it would alone. Several share the first device.
        devices: which to use; None takes all.

    Raises:
        ValueError: for devices that do not divide the batch, several seeds over several devices,
            and what the model or its augmentation refuses.
    """
    images = plan.data.images
    streams = isinstance(images, Encoded) and images.streams
    experiment, shape, crop = delivered(plan.experiment, images.shape, streams)
    init, spread = _spread(experiment, plan.total, seeds, devices, plan.params, plan.teacher)
    # Devices that are one CPU's share its memory, and each has a copy of what stays.
    here = [d for d in devices or jax.devices() if d.process_index == jax.process_index()]
    copies = len(here) if spread.chunks_apart and here[0].platform == 'cpu' else 1
    room = copies == 1 or copies * math.prod(images.shape) <= require_data(experiment).memory
    resident = room and not isinstance(images, Encoded)
    function, arguments = _lowerable(spread, experiment, shape, resident)
    if jax.process_count() == 1:  # one of several cannot trace what all of them run
        jax.eval_shape(function, *arguments)  # what the model refuses comes before anything runs
    apart = spread.apart if resident else spread.chunks_apart
    order = feed.Order(
        tuple(seeds), len(plan.data), experiment.batch_size,
        jax.process_index() if apart else 0, jax.process_count() if apart else 1,
        experiment.repeats,
    )  # fmt: skip

    def run(state: PyTree, chunk: feed.Chunk) -> tuple[Any, Metrics]:
        state, metrics = spread.run(state, chunk.data, chunk.rows, chunk.steps)
        return state, {name: np.asarray(v)[: chunk.steps] for name, v in metrics.items()}

    source = feed.feed(plan.data, order, spread.put_data, plan.until, crop, room=room)
    return Program(init, spread.put, spread.get, run, source)


def delivered(
    experiment: Experiment, shape: tuple[int, ...], streams: bool
) -> tuple[Experiment, tuple[int, ...], feed.Crop | None]:
    """What is left for the devices to do of an experiment whose training images may stream.

    Args:
        experiment: with its augmentation.
        shape: of the images as they are decoded, [N, H, W, 3].
        streams: whether they do.

    Returns:
        The experiment, without the random resized crop where a stream's workers make it; the shape
        of the images that come to the devices; and that crop.

    Raises:
        ValueError: for `augment.area` beside another crop.
    """
    change = experiment.augment
    if not (streams and change.area):
        return experiment, shape, None
    require_one_crop(change)
    left = dataclasses.replace(experiment, augment=dataclasses.replace(change, area=0.0))
    shape = shape[0], change.size, change.size, 3
    return left, shape, feed.Crop(change.size, change.area)


def lowerable(
    experiment: Experiment, total: int, shape: tuple[int, ...], devices: Sequence[Any], *,
    resident: bool = True,
) -> tuple[Any, tuple[Any, ...]]:  # fmt: skip
    """What `program` would compile for one seed, for devices that need not be here.

    Args:
        experiment: with its preprocessing.
        total: steps in all.
        shape: of the training images, [N, H, W, 3].
        devices: as a target machine has them.
        resident: whether all images stay on the devices.

    Returns:
        The jitted function and the shapes of its arguments, as `sharding.Spread.program` has them.
    """
    teacher = _teacher(experiment, lambda _: None)
    _, spread = _spread(experiment, total, (experiment.seed,), devices, teacher=teacher)
    return _lowerable(spread, experiment, shape, resident)


def one_step(
    experiment: Experiment, shape: tuple[int, ...], stand_in: Callable[[Module], Any]
) -> tuple[Any, tuple[Any, ...]]:
    """One training step of one seed on one device, to be traced; computes nothing.

    Args:
        experiment: need not have its preprocessing.
        shape: shape of the training images as they come to the devices, [N, H, W, 3].
        stand_in: maps the model, and the teacher's, to what is traced in their place.

    Returns:
        The step, and the shapes of its arguments: state, batch, and what it is given.
    """
    teacher = _teacher(experiment, lambda _: None)
    teacher = teacher and teacher._replace(model=stand_in(teacher.model))
    experiment = dataclasses.replace(
        experiment, preprocessing=preprocessing(experiment), model=stand_in(experiment.model)
    )
    step, given = training_step(experiment, 1, teacher)
    init, _ = _spread(experiment, 1, (experiment.seed,), jax.devices()[:1])
    (state,) = jax.eval_shape(init)
    given['key'] = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    whole = (experiment.batch_size,)
    batch = {name: jax.ShapeDtypeStruct(whole, np.int32) for name in ('label', 'index')}
    batch['image'] = jax.ShapeDtypeStruct((*whole, *shape[1:]), np.uint8)
    return step, (state, batch, given)


def _lowerable(
    spread: layout.Spread, experiment: Experiment, shape: tuple[int, ...], resident: bool
) -> tuple[Any, tuple[Any, ...]]:
    lead, steps = feed.chunk_shape(shape, experiment.batch_size, resident=resident)
    data = (
        jax.ShapeDtypeStruct((*lead, *shape[1:]), np.uint8),
        jax.ShapeDtypeStruct(lead, np.int32),
    )
    return spread.program(data, steps)


def _spread(
    experiment: Experiment, total: int, seeds: Sequence[int], devices: Sequence[Any] | None,
    params: Params | None = None, teacher: Teacher | None = None,
) -> tuple[Callable[[], list[TrainState]], layout.Spread]:  # fmt: skip
    """The states before the first step, and how to run the steps."""
    size, optim = experiment.augment.size, experiment.optim
    keys = [jax.random.key(seed) for seed in seeds]
    tx = optimizer(optim, total)

    def init() -> list[TrainState]:
        return [
            init_state(
                purpose(key, 'init'), model=experiment.model, tx=tx, params=params,
                image_shape=(size, size, 3), ema=optim.ema > 0,
            )
            for key in keys
        ]  # fmt: skip

    step, numbers = training_step(experiment, total, teacher)
    given = [{'key': np.asarray(jax.random.key_data(purpose(key, 'train'))), **numbers}
             for key in keys]  # fmt: skip
    shapes = jax.eval_shape(init)
    return init, layout.spread(
        experiment.parallel, step, given, shapes, batch_size=experiment.batch_size, devices=devices
    )


def training_step(
    experiment: Experiment, total: int, teacher: Teacher | None = None
) -> tuple[layout.Step, dict[str, Any]]:
    """The one training step, a `sharding.Step`, and what it is given beside its key.

    Numbers of a configuration (rates, decay, strengths, length) that are not 0 are arguments of the
    step: experiments that differ in them alone get the very same function, compiled once.

    Args:
        experiment: with its preprocessing.
        total: steps in all.
        teacher: that the experiment learns from.
    """
    assert experiment.preprocessing is not None
    normal = experiment.preprocessing.mean, experiment.preprocessing.deviation
    change, optim = experiment.augment, experiment.optim
    varied = {'optim': _numbers(optim), 'augment': _numbers(change)}
    step = _step(
        experiment.model,
        dataclasses.replace(change, **dict.fromkeys(varied['augment'], 1.0)),
        dataclasses.replace(optim, **dict.fromkeys(varied['optim'], 1.0)),
        normal,
        experiment.loss,
        dataclasses.replace(experiment.distill, teacher=None),
        None if teacher is None else (teacher.model, teacher.normal),
    )
    given = {**varied, 'steps': total}
    if teacher is not None:
        given['teacher'] = teacher.params
    return step, jax.tree.map(np.asarray, given)


def _numbers(settings: Any) -> dict[str, float]:
    """The numbers of a configuration that a compiled program takes as arguments: those not 0."""
    return {k: v for k, v in vars(settings).items() if isinstance(v, float) and v}


@functools.lru_cache(maxsize=16)
def _step(
    model: Module, change: Augment, optim: Optim, normal: Normal, loss: str, distilled: Distill,
    teacher: tuple[Module, Normal] | None,
) -> layout.Step:  # fmt: skip
    def taught(params: Params, images: jax.Array, logits: jax.Array) -> jax.Array:
        assert teacher is not None
        model, theirs = teacher
        (ours_mean, ours_deviation), (mean, deviation) = map(np.asarray, (normal, theirs))
        images = (images * ours_deviation + ours_mean - mean) / deviation
        with jax.named_scope('teacher'):
            said = model.apply({'params': params}, images.astype(np.float32), train=False)
        return distill.loss(distilled, logits, jax.lax.stop_gradient(said))

    def step(state: TrainState, batch: PyTree, given: dict[str, Any], **spreading: Any):
        settings = dataclasses.replace(optim, **given['optim'])
        strengths = dataclasses.replace(change, **given['augment'])
        mask = None if optim.train == '.*' else trainable(state.params, optim.train)
        return train_step(
            state,
            batch,
            jax.random.wrap_key_data(given['key']),
            model=model,
            tx=optimizer(settings, given['steps']),
            augment=functools.partial(augment, strengths, normal, model.num_classes),
            loss=LOSSES[loss],
            teacher=functools.partial(taught, given['teacher']) if teacher else None,
            share=distilled.share,
            ema=settings.ema,
            accumulate=optim.accumulate,
            trainable=mask,
            **spreading,
        )

    return step
