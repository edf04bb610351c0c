"""Progress of a run: its position, and the lines that it prints."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vitjax.evaluate import unnamed_outputs
from vitjax.experiment.optim import trainable
from vitjax.models.base import parameter_shapes
from vitjax.runs.records import Record
from vitjax.training.resolve import load_data
from vitjax.training.trainer import Trainer

Metrics = dict[str, np.ndarray]  # [steps, seeds]


class Position(NamedTuple):
    """Position of a run, for all seeds that train together.

    Attributes:
        step: steps taken.
        seconds: seconds of training.
        since: metrics [steps, seeds] of each dispatch since the last line of metrics.
        took: seconds since that line.
    """

    step: int = 0
    seconds: float = 0.0
    since: tuple[Metrics, ...] = ()
    took: float = 0.0

    def after(self, metrics: Metrics, took: float) -> 'Position':
        """The position after one more dispatch."""
        steps = len(metrics['loss'])
        since = (*self.since, metrics)
        return Position(self.step + steps, self.seconds + took, since, self.took + took)

    def means(self, seed: int) -> dict[str, float]:
        """Metrics of one seed, averaged over the steps since the last line."""
        return {k: float(v[:, seed].mean(dtype=np.float64)) for k, v in self._joined().items()}

    def rate(self) -> float:
        """Steps a second since the last line, over all seeds together."""
        return self._joined()['loss'].size / self.took

    def to_json(self, trainer: Trainer, seed: int) -> dict[str, Any]:
        """JSON values that a checkpoint of one seed records."""
        epoch, index = divmod(self.step, trainer.per_epoch)
        out: dict[str, Any] = {'epoch': epoch, 'index': index, 'seconds': self.seconds}
        # The next line averages over steps from before this checkpoint, unless they have theirs.
        if self.since and not trainer.logs(self.step):
            since = {k: v[:, seed].tolist() for k, v in self._joined().items()}
            out |= {'since': since, 'took': self.took}
        return out

    def _joined(self) -> Metrics:
        return {name: np.concatenate([m[name] for m in self.since]) for name in self.since[0]}


def from_json(step: int, positions: list[dict[str, Any]]) -> Position:
    """The inverse of `Position.to_json`, from the checkpoints of all seeds."""
    since = [position.get('since', {}) for position in positions]
    joined = {name: np.stack([np.float32(s[name]) for s in since], 1) for name in since[0]}
    first = positions[0]
    return Position(step, first['seconds'], (joined,) * bool(joined), first.get('took', 0.0))


def start(trainer: Trainer) -> str:
    """Lines about the data, the model and the devices of a run that is about to train."""
    experiment, model = trainer.experiment, trainer.experiment.model
    source, prepared, devices = experiment.data, experiment.preprocessing, trainer.layout.devices
    held, tested = (load_data(source, split, prepared) for split in ('validation', 'test'))
    data, (high, wide) = trainer.data, trainer.images.shape[1:3]
    shapes = parameter_shapes(model, experiment.augment.size)
    sizes = jax.tree.map(lambda leaf: leaf.size, shapes)
    mask, train = trainable(shapes, experiment.optim.train), ''
    if experiment.optim.train != '.*':
        train = f', {sum(jax.tree.leaves(jax.tree.map(int.__mul__, sizes, mask))):,} of them train'
    side = experiment.augment.size
    more = unnamed_outputs(model, data.classes)
    return (
        f'{source.name}: {len(data):,} training, {len(held):,} validation and {len(tested):,} '
        f'test images of {high}x{wide} pixels, {len(data.classes)} classes\n'
        f'{type(model).__name__}: {sum(jax.tree.leaves(sizes)):,} parameters{train}, input '
        f'{side}x{side} pixels; {trainer.total:,} steps of {experiment.batch_size} images '
        f'({trainer.epochs:.4g} epochs) on {len(devices)} x {devices[0].device_kind}'
        f'{more and chr(10) + more}'
    )


def now(trainer: Trainer, metrics: Metrics, took: float) -> str:
    """The last dispatch in a few words, for the progress bar."""
    images = metrics['loss'].size * trainer.experiment.batch_size
    loss, accuracy = metrics['loss'].mean(), metrics['accuracy'].mean()
    return f'loss {loss:.3f}  accuracy {accuracy:.1%}  {images / took:,.0f} images/s'


def line(trainer: Trainer, at: Position, records: dict[int, list[Record]]) -> str:
    """One evaluation in a line, averaged over the seeds."""

    def mean(split: str, name: str) -> float:
        last = [next(r for r in lines[::-1] if r['split'] == split) for lines in records.values()]
        return float(np.mean([r[name] for r in last]))

    return (
        f'epoch {at.step / trainer.per_epoch:.4g}  step {at.step}/{trainer.total}  '
        f'training  loss {mean("train", "loss"):.4f}  '
        f'accuracy {mean("train", "accuracy"):.2%}  |  '
        f'validation  loss {mean("validation", "loss"):.4f}  '
        f'accuracy {mean("validation", "accuracy"):.2%}  '
        f'{mean("train", "images_per_second"):,.0f} images/s'
    )


def stopped_early(trainer: Trainer, records: Sequence[Record]) -> str | None:
    """Reason why a run ends before its last step; None if it goes on.

    It ends after `patience` epochs without a better validation accuracy.
    """
    patience = trainer.experiment.patience
    history = [r for r in records if r['split'] == 'validation']
    best = max(history, key=lambda r: r['accuracy'], default=None)
    if not patience or best is None or history[-1]['epoch'] - best['epoch'] < patience:
        return None
    return (
        f'stopped early after epoch {history[-1]["epoch"]:.4g} of {trainer.epochs:.4g}'
        f': no validation accuracy above {best["accuracy"]:.2%}, of epoch {best["epoch"]:.4g}, in '
        f'{patience} epochs (patience)'
    )


def result(record: Record, classes: int, out: pathlib.Path) -> str:
    """Result of a run in a line; with top-5 if there are more than 5 classes."""
    top5 = f', top-5 {record["top5"]:.2%}' if classes > 5 else ''
    return (
        f'test accuracy {record["accuracy"]:.2%}{top5}, loss {record["loss"]:.4f}, after '
        f'{record["seconds"]:.1f} s of training; the run is in {out}'
    )
