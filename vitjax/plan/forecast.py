"""What training an experiment takes on a machine that is not here, before anybody pays for it."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import jax
import numpy as np

from vitjax.data.source import Data
from vitjax.experiment import Experiment, preprocessing, require_data, resolved
from vitjax.plan import target
from vitjax.plan.flops import model_flops
from vitjax.training import layout
from vitjax.training.resolve import load_data, teacher, total_steps
from vitjax.training.step import require_gradients
from vitjax.training.trainer import Images, Trainer, by_shape


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Estimates, but for what is compiled: memory, operations, collectives.

    Attributes:
        machine: its name.
        devices: how many.
        parallel: how the step is spread, resolved.
        batch_size: images a step, over all devices.
        dtype: of the arithmetic.
        steps: of the whole training.
        needed: bytes of one device that the program takes; infinite where it does not fit and the
            compiler does not say by how much.
        available: bytes of one device that a program can have.
        largest: the largest batch that was compiled and fits, over all devices; 0 where none does.
        report: of one step; None where the compiler refuses a program that does not fit.
        model_flops: of one image's forward pass, attention explicit.
        peak_flops: of one device, a second; NaN where no table has it.
        change: what to change where it does not fit; '' where it does.
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
        """Whether one device has the memory."""
        return self.report is not None and self.needed <= self.available

    @property
    def step_seconds(self) -> float:
        """Of one step, with communication that overlaps with nothing."""
        return self.report.seconds + self.report.communication if self.report else math.nan

    @property
    def utilisation(self) -> float:
        """Share of the devices' peak, 0 to 1 (Chowdhery et al. 2022, appendix B).

        Operations are those of the model, forward and twice that for the gradient, or the
        program's where they are fewer because parameters are frozen; recomputation does not count.
        """
        if self.report is None:
            return math.nan
        operations = min(self.report.flops, 3 * self.model_flops * self.batch_size)
        return operations / (self.step_seconds * self.devices * self.peak_flops)

    @property
    def hours(self) -> float:
        """Of the whole training, without reading data, evaluation and checkpoints."""
        return self.steps * self.step_seconds / 3600


def training_images(experiment: Experiment, count: int | None = None) -> Images:
    """An experiment's training images; with `count`, of data that are not here.

    Those are taken to be squares of `augment.size` pixels, that stream where memory has no room for
    them.

    Raises:
        ValueError: for data that are not there, with the command that prepares them.
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
        experiment: of which one seed is trained.
        name: of the machine, as `target.machine` takes it.
        images: to train on.
        report: is called with a line before each compilation.

    Raises:
        ValueError: for an unknown machine, one without the model's dtype, an extra that is not
            installed, a batch that the devices do not divide.
    """
    machine = target.machine(name)
    parallel = layout.resolved(experiment.parallel, len(machine.devices))
    if parallel == 'none':
        machine = dataclasses.replace(machine, devices=machine.devices[:1])
    count = images.shape[0]
    steps = total_steps(experiment, count)
    experiment = resolved(experiment, preprocessing(experiment))
    taught, data = teacher(experiment), Data(images, np.zeros(count, np.int32), ())
    dtype, devices = experiment.model.dtype, len(machine.devices)
    peak_flops = target.rate(machine.chip, dtype)
    require_gradients(experiment.model)

    @functools.cache
    def compiled(batch: int) -> tuple[target.Report | None, float]:
        """The report of a step of so many images, and bytes that a device needs for it."""
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
    """Bytes in TPU's message that a program does not fit: `... (83.99G) exceeds ...`."""
    found = re.search(r'\(([\d.]+)([KMGT])\) exceeds', message)
    return float(found[1]) * 2.0 ** (10 * ' KMGT'.index(found[2])) if found else math.inf


def _largest(
    needed: Callable[[int], float], start: int, available: float, *, unit: int, most: int
) -> int:
    """The largest multiple of `unit` that fits, to a tenth; 0 if none does.

    Bytes are taken to grow by as much with each image, which compilers do not promise: only what
    was compiled counts.
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
    """What to change for a step that does not fit."""
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
