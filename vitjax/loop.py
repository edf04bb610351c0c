"""One run: takes steps, logs, evaluates and saves; killed anywhere, it goes on from there."""

import contextlib
import dataclasses
import fcntl
import functools
import json
import operator
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress

from vitjax import checkpoint, pretrained, sharding
from vitjax import experiment as experiments
from vitjax.capture import capture, paths
from vitjax.data import augment, loader, sources
from vitjax.data.images import Preprocessing
from vitjax.data.sources import Data
from vitjax.evaluate import normalisation, on_host, predict, scores
from vitjax.experiment import Experiment
from vitjax.figures import training as figures
from vitjax.optim import Optim, optimizer, trainable
from vitjax.train import TrainState, init_state, train_step

LOG_STEPS = 50  # training steps that one line of metrics averages over
CHUNK_SECONDS = 1.0  # of steps at a dispatch, about: as long as Ctrl-C may wait
CHUNK_STEPS = 256  # of steps at a dispatch, at most
CHUNK_BYTES = 2**27  # of images decoded for one dispatch, when not all of them fit


_load = functools.lru_cache(maxsize=6)(sources.load)  # the cells of an ablation share images


@dataclasses.dataclass
class Stop(Exception):
    """A run that was asked to stop, after its checkpoint was written."""

    signal: int
    step: int

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal


def train(
    experiment: Experiment, out: str | pathlib.Path, *, quiet: bool = False
) -> dict[str, Any]:
    """Trains, or goes on training, one experiment in a run directory: `train_seeds` with one seed.

    Args:
        experiment: what to run; one without `preprocessing` and `classes` gets them from its data.
        out: the run directory. One that holds this experiment is gone on with from its last
            checkpoint, with the same bits as if it had never stopped.
        quiet: print nothing.

    Returns:
        The last line of metrics: `step`, `epoch`, and the test split's `accuracy`, `top5`, `loss`.

    Raises:
        ValueError: if the experiment does not fit its data, its devices or what is in `out`, and
            for a loss that is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    return train_seeds(experiment, {experiment.seed: out}, quiet=quiet)[experiment.seed]


def train_seeds(
    experiment: Experiment,
    outs: Mapping[int, str | pathlib.Path],
    *,
    quiet: bool = False,
    bar: bool | None = None,
    devices: Sequence[Any] | None = None,
    caught: list[int] | None = None,
) -> dict[int, dict[str, Any]]:
    """Trains several seeds of an experiment, together where that is possible.

    Seeds train together on one device (`sharding.spread` says how), each with its own weights,
    order of examples and noise, so that each run is the one that it would be alone. They train one
    after the other with `patience`, which stops them at different times, and where a run spreads
    over several devices.

    Args:
        experiment: what to run; its own seed does not count.
        outs: the run directory of each seed. Finished runs are left alone, others gone on with.
        quiet: print nothing.
        bar: show a progress bar; None shows one unless `quiet`.
        devices: which to train on; None takes all.
        caught: where the numbers of signals arrive that ask to stop, for a caller that handles
            them; without it SIGTERM and Ctrl-C are handled here.

    Returns:
        Of each seed the last line of metrics: `step`, `epoch`, and the test split's `accuracy`,
        `top5`, `loss`.

    Raises:
        ValueError: if the experiment does not fit its data, its devices or what is in `outs`, and
            for a loss that is not finite.
        Stop: after SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    quiet = quiet or jax.process_index() > 0
    console = rich.console.Console(quiet=quiet, highlight=False, soft_wrap=True)
    show = console if bar is None else rich.console.Console(quiet=not bar)
    devices = jax.devices() if devices is None else devices
    runs = {seed: pathlib.Path(out) for seed, out in outs.items()}
    for seed, out in runs.items():
        require_same(dataclasses.replace(experiment, seed=seed), out)
    records = {seed: _finish(out, console, devices) for seed, out in runs.items() if finished(out)}
    pending = {seed: out for seed, out in runs.items() if seed not in records}
    if not pending:
        return records
    data, held = (_load(experiment.data, split) for split in ('train', 'validation'))
    total = total_steps(experiment, len(data))
    experiment, params = _resolve(experiment, data, console)
    for group in _groups(experiment, pending, len(devices)):
        outs = {seed: pending[seed] for seed in group}
        run = _Run(experiment, outs, data, held, total, params, console, devices)
        with contextlib.ExitStack() as locks:
            for seed, out in outs.items():
                out.mkdir(parents=True, exist_ok=True)
                locks.enter_context(_alone(out))
                if jax.process_index() == 0:
                    known = dataclasses.replace(experiment, seed=seed)
                    checkpoint.write_experiment(out, known)
            with contextlib.ExitStack() as saving:
                managers = {
                    seed: saving.enter_context(_manager(out, latest=min(2, len(outs))))
                    for seed, out in outs.items()
                }
                run.train(managers, caught, show)
            del run  # its memory, before the next one's
            records |= {seed: _finish(out, console, devices) for seed, out in outs.items()}
    return {seed: records[seed] for seed in runs}


def training_images(experiment: Experiment) -> int:
    """How many images an experiment trains on."""
    return len(_load(experiment.data, 'train'))


def step_seconds(experiment: Experiment, seeds: int = 1, repeats: int = 3) -> float:
    """Seconds that a training step of all seeds takes on this machine, compilation apart."""
    console = rich.console.Console(quiet=True)
    data = _load(experiment.data, 'train')
    experiment, params = _resolve(experiment, data, console)
    outs = dict.fromkeys(range(experiment.seed, experiment.seed + seeds), pathlib.Path())
    total = total_steps(experiment, len(data))
    run = _Run(experiment, outs, data, data, total, params, console, jax.devices()[:1])
    with ThreadPoolExecutor(1) as ahead:
        _, images, rows = next(run._chunks(ahead))
    state, _ = run.spread.run(run.state, images, rows, 0)  # compiles
    seconds, steps = [], 1
    for _ in range(repeats + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(run.spread.run(state, images, rows, steps))
        seconds.append((time.perf_counter() - start) / steps)
        steps = max(1, min(len(rows), int(CHUNK_SECONDS / seconds[0])))  # as a run dispatches them
    return float(np.median(seconds[1:]))


def finished(run: str | pathlib.Path) -> bool:
    """Whether a run directory holds a run that took its last step and was tested."""
    return any(record['split'] == 'test' for record in read_metrics(run))


def _groups(
    experiment: Experiment, outs: dict[int, pathlib.Path], devices: int
) -> Iterator[list[int]]:
    """Which seeds train together: those that have a checkpoint of the same step, or none."""
    alone = experiment.patience > 0 or experiment.parallel in ('pmap', 'fsdp')
    alone |= experiment.parallel == 'auto' and devices > 1
    left = {seed: checkpoint.steps(out) or [0] for seed, out in outs.items()}
    while left:
        # Of seeds that were killed between two saves, some are one checkpoint ahead.
        common = min(max(steps) for steps in left.values())
        group = [seed for seed, steps in left.items() if common in steps]
        group = group[:1] if alone else group
        yield group
        left = {seed: steps for seed, steps in left.items() if seed not in group}


def total_steps(experiment: Experiment, count: int) -> int:
    """Training steps of an experiment on `count` images.

    Raises:
        ValueError: unless exactly one of `epochs` and `steps` is given, and is positive.
    """
    epochs, steps = experiment.epochs, experiment.steps
    if (epochs is None) == (steps is None):
        raise ValueError(f'give epochs or steps, one of them: {epochs=}, {steps=}.')
    per_epoch = loader.steps_per_epoch(count, experiment.batch_size)
    total = steps if steps is not None else round((epochs or 0) * per_epoch)
    if total < 1:
        raise ValueError(f'a run must have at least one step: {epochs=}, {steps=}.')
    return total


def read_metrics(run: str | pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = pathlib.Path(run) / 'metrics.jsonl'
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def require_same(experiment: Experiment, out: pathlib.Path) -> None:
    """An error if `out` holds something else than this experiment."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    known = experiments.read(out)
    # What a run fills in from its data is not the user's to differ in.
    asked = dataclasses.replace(
        experiment, preprocessing=known.preprocessing, classes=known.classes
    )
    different = experiments.differences(known, asked)
    if different:
        lines = '\n'.join(f'  {line}' for line in different)
        raise ValueError(
            f'{out} holds another configuration (there -> asked); choose another --out:\n{lines}'
        )


def _resolve(
    experiment: Experiment, data: Data, console: rich.console.Console
) -> tuple[Experiment, Any]:
    """The experiment with its preprocessing and classes; parameters, where it starts from some."""
    classes, size = data.classes, experiment.augment.size
    known = experiment.model.num_classes  # pyright: ignore[reportAttributeAccessIssue]
    if known < len(classes):
        raise ValueError(
            f'the head must have an output for each class: model.num_classes={known}, '
            f'{experiment.data.name} has {len(classes)} classes.'
        )
    if experiment.weights is None:
        mean, deviation = statistics(data)
        prepared = Preprocessing(size=size, crop=1.0, mean=mean, deviation=deviation)
        return dataclasses.replace(experiment, preprocessing=prepared, classes=classes), None
    loaded, params = pretrained.load(
        experiment.weights,
        image_size=size,
        num_classes=known,
        report=lambda change: console.print(str(change)),  # rich would print its fields
    )
    # Weights go with the normalisation that they were trained with.
    prepared = dataclasses.replace(loaded.preprocessing or Preprocessing(), size=size, crop=1.0)
    experiment = dataclasses.replace(experiment, preprocessing=prepared, classes=classes)
    checkpoint.require_equal(
        f'{experiment.weights}', params, checkpoint.parameter_shapes(experiment)
    )
    return experiment, params


def statistics(data: Data) -> tuple[Any, Any]:
    """Mean and deviation per channel of pixels in 0..1, over at most 50,000 spread images."""
    chosen = np.linspace(0, len(data) - 1, min(len(data), 50_000)).astype(int)
    first = second = np.zeros(3)
    for part in np.array_split(chosen, -(-len(chosen) // 1000)):
        pixels = data.images[part].reshape(-1, 3).astype(np.float32) / 255
        first = first + pixels.sum(0, dtype=np.float64)
        second = second + (pixels**2).sum(0, dtype=np.float64)
    count = len(chosen) * data.images.shape[1] * data.images.shape[2]
    mean = first / count
    deviation = np.sqrt(np.maximum(second / count - mean**2, 1e-12))
    return tuple(round(float(m), 6) for m in mean), tuple(round(float(d), 6) for d in deviation)


@contextlib.contextmanager
def _manager(out: pathlib.Path, *, latest: int) -> Iterator[Any]:
    """The run's checkpoint manager; a full disk is an error in one line.

    Seeds that train together keep the checkpoint before the latest too: a kill between two saves
    leaves them a common one.
    """
    try:
        with checkpoint.manager(out, latest=latest) as manager:
            yield manager
    except Exception as error:
        if 'No space left on device' in str(error):
            raise ValueError(f'the disk of {out} is full; the last checkpoint is kept.') from None
        raise


@contextlib.contextmanager
def _alone(out: pathlib.Path) -> Iterator[None]:
    """Keeps a second run out of the directory; the lock goes with the process, however it ends."""
    directory = os.open(out, os.O_RDONLY)
    try:
        if jax.process_index() == 0:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f'another process is training in {out}.') from None
    finally:
        os.close(directory)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGTERM and Ctrl-C instead of dying of them; a second one kills."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    numbers = (signal.SIGTERM, signal.SIGINT)
    try:
        before = {n: signal.signal(n, note) for n in numbers}
    except ValueError:  # not the main thread, which alone gets signals
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _varied(settings: Any) -> dict[str, float]:
    """The numbers of a configuration that a compiled program takes as arguments: those not 0."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return {name: value for name, value in values.items() if isinstance(value, float) and value}


@functools.lru_cache(maxsize=16)
def _step(
    model: Any, change: augment.Augment, optim: Optim, normal: tuple[Any, Any]
) -> Callable[..., tuple[TrainState, Any]]:
    """The training step of every run that differs in numbers alone, which it takes as `given`."""

    def step(state: TrainState, batch: Any, given: dict[str, Any], axis: str | None = None):
        settings = dataclasses.replace(optim, **given['optim'])
        vary = functools.partial(
            augment.augment, dataclasses.replace(change, **given['augment']), normal,
            model.num_classes,
        )  # fmt: skip
        mask = None if optim.train == '.*' else trainable(state.params, optim.train)
        return train_step(
            state,
            batch,
            jax.random.wrap_key_data(given['key']),
            model=model,
            tx=optimizer(settings, given['steps']),
            augment=vary,
            ema=settings.ema,
            trainable=mask,
            axis=axis,
        )

    return step


class _Run:
    """What one run, or several seeds of it, hold in memory while they train."""

    def __init__(
        self,
        experiment: Experiment,
        outs: dict[int, pathlib.Path],
        data: Data,
        validation: Data,
        total: int,
        params: Any,
        console: rich.console.Console,
        devices: Sequence[Any],
    ):
        self.experiment, self.outs, self.console = experiment, outs, console
        self.data, self.validation, self.total = data, validation, total
        self.devices = devices
        self.per_epoch = loader.steps_per_epoch(len(data), experiment.batch_size)
        self.every = max(1, round(experiment.evaluate_every * self.per_epoch))
        model, change, optim = experiment.model, experiment.augment, experiment.optim
        tx = optimizer(optim, total)
        keys = [jax.random.key(seed) for seed in outs]
        self.state = _stack(
            init_state(
                augment.purpose(key, 'init'), model=model, tx=tx, params=params,
                image_shape=(change.size, change.size, 3), ema=optim.ema > 0,
            )
            for key in keys
        )  # fmt: skip
        trained = [jax.random.key_data(augment.purpose(key, 'train')) for key in keys]
        varied = {'optim': _varied(optim), 'augment': _varied(change), 'steps': total}
        given = _stack(
            jax.tree.map(np.asarray, {'key': key, **varied}) for key in map(np.asarray, trained)
        )
        step = _step(
            model,
            dataclasses.replace(change, **dict.fromkeys(varied['augment'], 1.0)),
            dataclasses.replace(optim, **dict.fromkeys(varied['optim'], 1.0)),
            normalisation(experiment.preprocessing),
        )
        self.spread = sharding.spread(
            'seeds' if len(outs) > 1 else experiment.parallel,
            step,
            given,
            self.state,
            batch_size=experiment.batch_size,
            devices=devices,
        )
        self.state = self.spread.put(self.state)
        self.step = 0
        self.seconds = 0.0  # spent in steps, compilation apart
        self.compiled = False
        self.recent = (0, 0.0)  # steps and seconds since the last lines of metrics
        self.records: dict[int, list[dict[str, Any]]] = {}  # the lines of each metrics.jsonl
        self.trained: list[dict[str, np.ndarray]] = []  # one for each dispatch since the last lines

    def _whole(self) -> dict[int, TrainState]:
        """The state of each seed."""
        state = self.spread.get(self.state)
        if len(self.outs) == 1:
            return dict.fromkeys(self.outs, state)
        of = enumerate(self.outs)
        return {seed: jax.tree.map(operator.itemgetter(i), state) for i, seed in of}

    def train(
        self, managers: dict[int, Any], caught: list[int] | None, show: rich.console.Console
    ) -> None:
        """Takes all steps that are left."""
        self._restore(managers)
        if self._finished():
            return
        columns = (
            *rich.progress.Progress.get_default_columns()[:-1],
            rich.progress.TextColumn('{task.completed}/{task.total}'),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn('{task.fields[now]}'),
        )
        progress = rich.progress.Progress(
            *columns, console=show, transient=True, disable=not show.is_terminal
        )
        handled = signals() if caught is None else contextlib.nullcontext(caught)
        with progress, handled as caught, ThreadPoolExecutor(1) as ahead:
            task = progress.add_task('training', total=self.total, completed=self.step, now='')
            for steps, images, rows in self._chunks(ahead):
                if not self.compiled:
                    progress.update(task, now='compiling')
                    self.state, _ = self.spread.run(self.state, images, rows, 0)  # takes no step
                    self.compiled = True
                start = time.perf_counter()
                self.state, metrics = self.spread.run(self.state, images, rows, steps)
                metrics = {k: np.asarray(v)[:steps] for k, v in metrics.items()}
                took = time.perf_counter() - start
                self._note({k: v.reshape(steps, -1) for k, v in metrics.items()}, took)
                rate = self._images(steps) / took
                loss, accuracy = metrics['loss'].mean(), metrics['accuracy'].mean()
                now = f'loss {loss:.3f}  accuracy {accuracy:.1%}  {rate:,.0f} images/s'
                progress.update(task, completed=self.step, now=now)
                self._pace(steps, took)
                if self.step % self.every == 0 or self.step == self.total:
                    self._evaluate(managers)
                    if self._finished():
                        break
                if caught:
                    self._save(managers, {})
                    for manager in managers.values():
                        manager.wait_until_finished()
                    raise Stop(caught[0], self.step)

    def _images(self, steps: int) -> int:
        return steps * self.experiment.batch_size * len(self.outs)

    def _chunks(self, ahead: ThreadPoolExecutor) -> Iterator[tuple[int, Any, np.ndarray]]:
        """(steps, data on the devices, rows): steps up to the next evaluation, a second at most."""
        batch, processes = self.experiment.batch_size, jax.process_count()
        apart = self.spread.processes_slice
        resident = not isinstance(self.data.images, sources.Encoded)
        self.most = CHUNK_STEPS
        if not resident:
            size = batch * len(self.outs) * int(np.prod(self.data.images.shape[1:]))
            self.most = max(1, min(CHUNK_STEPS, CHUNK_BYTES // size))
        most = self.most
        self.chunk = 1
        on_device = None
        if resident:
            on_device = self.spread.put_data(self.data.images, self.data.labels)

        def choose(step: int) -> tuple[int, np.ndarray]:
            until = min(self.total, (step // self.every + 1) * self.every)
            until = min(until, (step // LOG_STEPS + 1) * LOG_STEPS)
            steps = min(self.chunk, until - step)
            of_seeds = [
                loader.batches(
                    seed, step, steps, count=len(self.data), batch_size=batch,
                    process=jax.process_index() if apart else 0,
                    processes=processes if apart else 1,
                )
                for seed in self.outs
            ]  # fmt: skip
            rows = np.pad(np.stack(of_seeds, 1), ((0, most - steps), (0, 0), (0, 0)))
            return steps, rows if len(of_seeds) > 1 else rows[:, 0]

        def decode(step: int) -> tuple[int, Any, np.ndarray]:
            steps, rows = choose(step)
            chosen = rows[:steps].ravel()
            images = np.zeros((rows.size, *self.data.images.shape[1:]), np.uint8)
            images[: len(chosen)] = self.data.images[chosen]
            labels = np.zeros(rows.size, np.int32)
            labels[: len(chosen)] = self.data.labels[chosen]
            own = np.arange(rows.size, dtype=np.int32).reshape(rows.shape)
            return steps, (images, labels), own

        coming: Future | None = None
        while self.step < self.total:
            if resident:
                steps, rows = choose(self.step)
                yield steps, on_device, rows
            else:
                steps, arrays, rows = coming.result() if coming else decode(self.step)
                after = self.step + steps
                coming = ahead.submit(decode, after) if after < self.total else None
                yield steps, self.spread.put_data(*arrays), rows

    def _pace(self, steps: int, took: float) -> None:
        """Adapts how many steps a dispatch takes to how long one lasts."""
        self.chunk = max(1, min(self.most, 2 * self.chunk, int(CHUNK_SECONDS / (took / steps))))

    def _note(self, metrics: dict[str, np.ndarray], took: float) -> None:
        """Takes down the metrics [steps, seeds] of one dispatch."""
        steps = len(metrics['loss'])
        for name in ('loss', 'grad_norm'):
            wrong = np.argwhere(~np.isfinite(metrics[name]))
            if len(wrong):
                step, replica = wrong[0]
                value = float(metrics[name][step, replica])
                self._diverged(name, value, self.step + int(step) + 1, list(self.outs)[replica])
        self.trained.append(metrics)
        self.step += steps
        self.seconds += took
        self.recent = (self.recent[0] + steps, self.recent[1] + took)
        if self.step % LOG_STEPS == 0 or self.step % self.every == 0 or self.step == self.total:
            joined = {k: np.concatenate([t[k] for t in self.trained]) for k in metrics}
            done, took = self.recent
            for i, seed in enumerate(self.outs):
                means = {k: float(v[:, i].mean(dtype=np.float64)) for k, v in joined.items()}
                self._log(seed, 'train', means, images_per_second=self._images(done) / took)
            self.trained, self.recent = [], (0, 0.0)

    def _log(self, seed: int, split: str, values: dict[str, float], **more: float) -> None:
        epoch = self.step / self.per_epoch
        record = _append(self.outs[seed], self.step, epoch, split, self.seconds, values, more)
        self.records[seed].append(record)

    def _diverged(self, what: str, value: float, step: int, seed: int) -> None:
        raise ValueError(
            f'{what} must stay finite: it is {value} at step {step}; the last good checkpoint is '
            f'kept in {self.outs[seed]}. Try a lower optim.peak.'
        )

    def _evaluate(self, managers: dict[int, Any]) -> None:
        model, prepared = self.experiment.model, self.experiment.preprocessing
        batch, found = self.experiment.batch_size, {}
        for seed, whole in self._whole().items():
            params = on_host(whole.params if whole.ema is None else whole.ema)
            logits = predict(model, params, self.validation, prepared, batch, self.devices)
            values = found[seed] = scores(logits, self.validation.labels)
            if not np.isfinite(values['loss']):
                self._diverged('validation loss', values['loss'], self.step, seed)
            self._log(seed, 'validation', values)
            self._draw_attention(seed, params)
        self._save(managers, found)
        last = [next(r for r in rs[::-1] if r['split'] == 'train') for rs in self.records.values()]
        mean = {k: np.mean([r[k] for r in last]) for k in ('loss', 'accuracy')}
        held = {k: np.mean([v[k] for v in found.values()]) for k in ('loss', 'accuracy')}
        self.console.print(
            f'epoch {self.step / self.per_epoch:.4g}  step {self.step}/{self.total}  '
            f'loss {mean["loss"]:.4f}  accuracy {mean["accuracy"]:.2%}  |  validation  '
            f'loss {held["loss"]:.4f}  accuracy {held["accuracy"]:.2%}  '
            f'{last[0]["images_per_second"]:,.0f} images/s'
        )

    def _draw_attention(self, seed: int, params: Any) -> None:
        every, epoch = self.experiment.attention_every, round(self.step / self.per_epoch)
        if every and epoch % every == 0 and self.step % self.per_epoch == 0:
            figure = attention_figure(self.experiment, params, self.validation)
            if figure is not None:
                _save_figure(figure, self.outs[seed], f'attention_epoch_{epoch:03d}.png')

    def _save(self, managers: dict[int, Any], metrics: dict[int, dict[str, float]]) -> None:
        epoch, index = loader.position(self.step, len(self.data), self.experiment.batch_size)
        position = {'epoch': epoch, 'index': index, 'seconds': self.seconds}
        several = len(managers) > 1 or threading.current_thread() is not threading.main_thread()
        for seed, whole in self._whole().items():
            if self.step not in managers[seed].all_steps():
                trees, values = _trees(whole), metrics.get(seed)
                checkpoint.save(managers[seed], self.step, trees, position, values, wait=several)

    def _restore(self, managers: dict[int, Any]) -> None:
        step = min(manager.latest_step() or 0 for manager in managers.values())
        for seed, out in self.outs.items():
            self.records[seed] = [r for r in read_metrics(out) if r['step'] <= step]
        if step:
            states = []
            for seed, whole in self._whole().items():
                abstract = jax.tree.map(
                    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
                    _trees(whole),
                )
                found = checkpoint.restore(managers[seed], step, abstract)
                self.seconds = found.pop('position')['seconds']
                states.append(TrainState(step=jnp.asarray(step, jnp.int32), **found))
            self.state = self.spread.put(_stack(states))
            self.step = step
            named = ', '.join(map(str, self.outs.values()))
            self.console.print(f'going on from step {step} of {self.total} in {named}')
        if jax.process_index() == 0:  # lines after the checkpoint will be written again
            for seed, out in self.outs.items():
                draft = out / 'metrics.tmp'
                draft.write_text(''.join(json.dumps(r) + '\n' for r in self.records[seed]))
                draft.replace(out / 'metrics.jsonl')

    def _finished(self) -> bool:
        """All steps taken, or no better validation accuracy for `patience` epochs."""
        if self.step >= self.total:
            return True
        if not self.experiment.patience:
            return False
        (records,) = self.records.values()  # with patience, seeds train alone
        history = [r for r in records if r['split'] == 'validation']
        best = max(history, key=lambda r: r['accuracy'], default=None)
        return best is not None and history[-1]['epoch'] - best['epoch'] >= self.experiment.patience


def _stack(trees: Iterable[Any]) -> Any:
    """Trees of the seeds as one tree with an axis of seeds; a single seed's as it is."""
    trees = list(trees)
    return jax.tree.map(lambda *x: jnp.stack(x), *trees) if len(trees) > 1 else trees[0]


def _trees(state: TrainState) -> dict[str, Any]:
    trees = {'params': state.params, 'opt_state': state.opt_state}
    return trees if state.ema is None else {**trees, 'ema': state.ema}


def _append(
    out: pathlib.Path,
    step: int,
    epoch: float,
    split: str,
    seconds: float,
    values: dict[str, float],
    more: dict[str, float],
) -> dict[str, Any]:
    """Adds one line to `metrics.jsonl`, and to TensorBoard's events if tensorboardX is there."""
    record = {'step': step, 'epoch': epoch, 'split': split, **values, 'seconds': seconds, **more}
    if jax.process_index() == 0:
        with (out / 'metrics.jsonl').open('a') as file:
            file.write(json.dumps(record) + '\n')
        writer = _events(out)
        if writer:
            for name, value in {**values, **more}.items():
                writer.add_scalar(f'{name}/{split}', value, step)
            writer.flush()
    return record


@functools.lru_cache(maxsize=1)
def _events(out: pathlib.Path) -> Any:
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(out))


def attention_figure(experiment: Experiment, params: Any, data: Data, count: int = 8) -> Any:
    """Images of `data` with the class token's attention over them; None for models without one."""
    model, prepared = experiment.model, experiment.preprocessing
    assert prepared is not None
    size, classes = prepared.size, experiment.classes
    images = data.images[np.arange(min(count, len(data)))]
    inputs = augment.resize(jnp.asarray(images), size, normalisation(prepared))
    known = paths(model, params, inputs)
    path = next((p for p in ('class_blocks', 'blocks') if f'{p}/attention/weights' in known), None)
    if path is None or (path == 'blocks' and getattr(model, 'pool', None) != 'class'):
        return None
    path = f'{path}/attention/weights'
    logits, found = capture(model, params, inputs, keep=path)
    grid = size // model.patch_size  # pyright: ignore[reportAttributeAccessIssue]
    # The last block's class token, mean over heads; of several class tokens, the likeliest's.
    rows = np.asarray(found[path][-1]).mean(1)
    likeliest = np.asarray(logits.argmax(-1))
    several = rows.shape[1] > 1 and path.startswith('class')
    rows = rows[np.arange(len(rows)), likeliest if several else 0][:, -grid * grid :]
    normal = normalisation(prepared)
    shown = np.asarray(inputs) * normal[1] + normal[0]
    titles = [classes[i] if i < len(classes) else str(i) for i in likeliest]
    maps = rows.reshape(-1, grid, grid)
    return figures.attention_pictures(shown.clip(0, 1), maps, titles)


def _save_figure(figure: Any, out: pathlib.Path, name: str) -> None:
    if jax.process_index() == 0:
        (out / 'figures').mkdir(exist_ok=True)
        figure.savefig(out / 'figures' / name, dpi=120)


def _finish(
    out: pathlib.Path, console: rich.console.Console, devices: Sequence[Any]
) -> dict[str, Any]:
    """Tests the best parameters and draws the curves; a run that was already finished says so."""
    records = read_metrics(out)
    tested = [r for r in records if r['split'] == 'test']
    if tested:
        console.print(f'{out} is finished: nothing was left to do.')
        record = tested[-1]
    else:
        experiment, params = checkpoint.load(out, 'best')
        data = _load(experiment.data, 'test')
        batch, prepared = experiment.batch_size, experiment.preprocessing
        logits = predict(experiment.model, params, data, prepared, batch, devices)
        values = scores(logits, data.labels)
        last = [r for r in records if r['split'] == 'validation'][-1]
        record = _append(
            out, last['step'], last['epoch'], 'test', last['seconds'], values, {}
        )  # fmt: skip
        _save_figure(figures.learning_curves(records), out, 'learning_curves.png')
    console.print(
        f'test accuracy {record["accuracy"]:.2%}, loss {record["loss"]:.4f}, after '
        f'{record["seconds"]:.1f} s of training; the run lies in {out}'
    )
    return record
