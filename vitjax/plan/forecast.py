"""Forecast of the memory and time that an experiment's training takes on an absent machine."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import jax
import numpy as np

from vitjax.data.source import Data
from vitjax.experiment import Experiment, preprocessing, require_data, resolved
from vitjax.plan import machines, target
from vitjax.plan.flops import model_flops
from vitjax.training import layout
from vitjax.training.resolve import load_data, teacher, total_steps
from vitjax.training.step import require_gradients
from vitjax.training.trainer import Images, Trainer, by_shape


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Forecast of a training run. Memory, operations and collectives are compiled, not estimated.

    Attributes:
        machine: name of the machine.
        devices: number of devices.
        parallel: layout of the step, resolved.
        batch_size: images per step, over all devices.
        dtype: dtype of the arithmetic.
        steps: steps of the whole training.
        needed: bytes that the program takes on one device; infinite if it does not fit and the
            compiler does not say by how much.
        available: bytes of one device that a program can have.
        largest: largest batch that was compiled and fits, over all devices; 0 if none does.
        report: report on one step; None if the compiler refuses a program that does not fit.
        model_flops: operations of one image's forward pass with explicit attention.
        peak_flops: peak FLOP/s of one device; NaN if no table has it.
        change: settings to change if it does not fit, else ''.
    """

    machine: str
    devices: int
    parallel: str
    batch_size: int
    dtype: str
    steps: int
    needed: float
    available: float
    largest: int
    report: target.Report | None
    model_flops: int
    peak_flops: float
    change: str = ''

    @property
    def fits(self) -> bool:
        """True if one device has the memory."""
        return self.report is not None and self.needed <= self.available

    @property
    def step_seconds(self) -> float:
        """Seconds of one step, if communication overlaps with nothing."""
        return self.report.seconds + self.report.communication if self.report else math.nan

    @property
    def utilisation(self) -> float:
        """Fraction of the devices' peak, 0 to 1 (Chowdhery et al. 2022, appendix B).

        Operations are three forward passes of the model, or the program's if these are fewer
        because parameters are frozen. Recomputation does not count.
        """
        if self.report is None:
            return math.nan
        operations = min(self.report.flops, 3 * self.model_flops * self.batch_size)
        return operations / (self.step_seconds * self.devices * self.peak_flops)

    @property
    def hours(self) -> float:
        """Hours of the whole training without reading data, evaluation and checkpoints."""
        return self.steps * self.step_seconds / 3600


def training_images(experiment: Experiment, count: int | None = None) -> Images:
    """An experiment's training images.

    `count` stands for absent data: squares of `augment.size` pixels, which stream if they exceed
    the memory limit.

    Raises:
        ValueError: if the data are missing; it has the command that prepares them.
    """
    source, size = require_data(experiment), experiment.augment.size
    if count is None:
        return by_shape(load_data(source, 'train').images)
    shape = count, size, size, 3
    fits = math.prod(shape) <= source.memory
    return Images(shape, fits, not fits)


def forecast(
    experiment: Experiment, name: str, images: Images, *,
    report: Callable[[str], object] = lambda line: None,
) -> Forecast:  # fmt: skip
    """Compiles an experiment's training step for a machine, and the largest batch that fits.

    Args:
        experiment: experiment to train with one seed.
        name: name of the machine, as `machines.machine` takes it.
        images: training images.
        report: called with a line before each compilation.

    Raises:
        ValueError: if the machine is unknown or lacks the model's dtype, an extra is missing, or
            the devices do not divide the batch.
    """
    machine = machines.machine(name)
    parallel = layout.resolved(experiment.parallel, len(machine.devices))
    if parallel == 'none':
        machine = dataclasses.replace(machine, devices=machine.devices[:1])
    count = images.shape[0]
    steps = total_steps(experiment, count)
    experiment = resolved(experiment, preprocessing(experiment))
    taught, data = teacher(experiment), Data(images, np.zeros(count, np.int32), ())
    dtype, devices = experiment.model.dtype, len(machine.devices)
    peak_flops = machines.rate(machine.chip, dtype)
    require_gradients(experiment.model)

    @functools.cache
    def compiled(batch: int) -> tuple[target.Report | None, float]:
        """Report on a step with this batch, and bytes that a device needs for it."""
        report(f'compiling {batch} images a step for {name}')
        sized = dataclasses.replace(experiment, batch_size=batch, steps=steps, epochs=None)
        way = layout.layout(experiment.parallel, machine.devices, batch_size=batch)
        fn, args = Trainer(sized, data, way, (sized.seed,), teacher=taught).abstract()
        try:
            found = target.compile(fn, *args, machine=machine, dtype=dtype)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            return None, _asked(str(error))
        return found, found.memory.peak

    found, needed = compiled(experiment.batch_size)
    unit = 2 * devices  # mixup and cutmix pair the images of a device
    largest = _largest(
        lambda batch: compiled(batch)[1], experiment.batch_size, machine.memory,
        unit=unit, most=count // unit * unit,
    )  # fmt: skip
    done = Forecast(
        machine=name, devices=devices, parallel=parallel,
        batch_size=experiment.batch_size, dtype=dtype, steps=steps, needed=needed,
        available=machine.memory, largest=largest, report=found,
        model_flops=model_flops(experiment.model, experiment.augment.size),
        peak_flops=peak_flops,
    )  # fmt: skip
    return done if done.fits else dataclasses.replace(done, change=_change(experiment, done))


def _asked(message: str) -> float:
    """Bytes in TPU's message about a program that does not fit: `... (83.99G) exceeds ...`."""
    found = re.search(r'\(([\d.]+)([KMGT])\) exceeds', message)
    return float(found[1]) * 2.0 ** (10 * ' KMGT'.index(found[2])) if found else math.inf


def _largest(
    needed: Callable[[int], float], start: int, available: float, *, unit: int, most: int
) -> int:
    """Largest multiple of `unit` that fits, to a tenth; 0 if none does.

    The search assumes that bytes grow linearly with the batch, which compilers do not promise. So
    only compiled batches count.
    """
    known: dict[int, float] = {}
    batch, low = start, 0
    while batch not in known:
        known[batch] = needed(batch)
        fitting = [b for b in known if known[b] <= available]
        low, high = max(fitting, default=0), min(known.keys() - fitting, default=most + unit)
        if low and (known[low] >= 0.9 * available or high - low <= max(unit, low // 10)):
            break
        measured = sorted(b for b in known if math.isfinite(known[b]))[-2:]
        if len(measured) == 2:
            a, b = measured
            guess = a + (0.97 * available - known[a]) * (b - a) / max(known[b] - known[a], 1)
        else:
            guess = 2 * low or high / 2
        if not low < (guess := min(guess, most)) < high:
            guess = (low + high) / 2
        batch = max(unit, int(guess) // unit * unit)
    return low


def _change(experiment: Experiment, done: Forecast) -> str:
    """Settings to change for a step that does not fit."""
    could = []
    if vars(experiment.model).get('remat') is False:
        could.append('--model.remat')
    if done.devices > 1 and done.parallel != 'fsdp':
        could.append('--parallel fsdp')
    if done.largest:
        parts = -(-done.batch_size // done.largest)
        while done.batch_size % parts or done.batch_size // parts % done.devices:
            parts += 1
        each = done.batch_size // parts
        gathered = parts * experiment.optim.accumulate
        could.append(f'--batch-size {each} --optim.accumulate {gathered}')
    else:
        could.append('more or larger devices, or a smaller model')
    return 'try ' + ', or '.join(could)
