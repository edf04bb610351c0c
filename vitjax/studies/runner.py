"""Runner of all studies: batches within memory, effects of edits, tables with intervals, files."""

import csv
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax.analysis import effects, probe
from vitjax.base import files
from vitjax.base.types import Array, Arrays, Format, Params
from vitjax.figures.figure import Figure
from vitjax.inside import capture
from vitjax.models.base import Model
from vitjax.runs import Loaded
from vitjax.studies.samples import Samples

Row = Mapping[str, Any]
Report = Callable[[int], object]  # called with the number of images done
FRACTIONS = ('accuracy', 'agreement', 'moved')  # measures that are 0 or 1 for an image


@dataclasses.dataclass(frozen=True)
class Study:
    """Results of a study.

    Attributes:
        name: stem of its files.
        arrays: arrays by name; the last axis of effects is images.
        rows: rows of the table; NaN, as of a missing interval, is written as an empty cell.
        figure: the figure.
        policy: the edit and the measure, in words.
        interval: name of the table's intervals, or the reason for having none.
        said: lines to print.
        measure: name of the table's first measure, for figures.
    """

    name: str
    arrays: Mapping[str, Array]
    rows: Sequence[Row]
    figure: Figure
    policy: str
    interval: str
    said: tuple[str, ...] = ()
    measure: str = ''

    def write(
        self, out: str | pathlib.Path, samples: Samples, *, formats: Sequence[Format] = ('png',),
        **about: Any,
    ) -> str:  # fmt: skip
        """Writes `NAME.npz`, `NAME.csv` and the figure into a directory; returns their names."""
        out = pathlib.Path(out)
        out.mkdir(parents=True, exist_ok=True)
        facts = {'policy': self.policy, 'images': len(samples), 'source': samples.source}
        facts |= {'interval': self.interval, **about}
        arrays: dict[str, Any] = {name: np.asarray(x) for name, x in self.arrays.items()}
        with files.writing(out / f'{self.name}.npz') as file:
            np.savez_compressed(file, about=json.dumps(facts), names=list(samples.names), **arrays)
        with files.writing(out / f'{self.name}.csv', 'w', newline='') as file:
            columns = dict.fromkeys(key for row in self.rows for key in row)
            writer = csv.DictWriter(file, [*columns, 'images', 'policy'])
            writer.writeheader()
            for row in self.rows:
                cells = {name: _cell(value) for name, value in row.items()}
                writer.writerow({**cells, 'images': len(samples), 'policy': self.policy})
        return ', '.join(
            [f'{self.name}.npz', f'{self.name}.csv', *self.figure.save(out / self.name, formats)]
        )


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return '' if math.isnan(value) else f'{value:.6g}'


@dataclasses.dataclass(frozen=True)
class Runner:
    """One model, the images on which edits are measured, and the limits of a pass.

    Attributes:
        loaded: the model.
        samples: the images.
        memory: gigabytes that a pass may take.
        seed: seed of the bootstrap, and of what a study draws at random.
        report: called with the number of images done.
    """

    loaded: Loaded
    samples: Samples
    memory: float = 3.0
    seed: int = 0
    report: Report = lambda done: None

    @property
    def model(self) -> Model:
        """The module."""
        return self.loaded.experiment.model

    @property
    def params(self) -> Params:
        """Its parameters."""
        return self.loaded.params

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the captured paths for one image."""
        return capture.paths(self.model, self.samples.inputs[:1])

    def batches(self, held: float = 0.0) -> Iterator[tuple[slice, Samples]]:
        """Rows and images of one batch after another, as large as `memory` allows.

        Args:
            held: bytes that a pass keeps of each image besides `image_bytes`.

        Raises:
            ValueError: if one image takes more.
        """
        each = image_bytes(self.model, self.samples.inputs, held)
        if each > self.memory * 1e9:
            rule = f'a pass of one image takes about {each / 1e9:.2g} GB'
            raise ValueError(f'{rule}, --memory allows {self.memory:g}: use a smaller --size.')
        # On CPU few images at a time are as fast as many: they stay in cache.
        count = len(self.samples)
        size = int(min(16, self.memory * 1e9 // each, count))
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            yield rows, self.samples.take(rows)

    def collect(
        self, measure: Callable[[slice, Samples], Mapping[str, Array]], held: float = 0.0
    ) -> dict[str, np.ndarray]:
        """Arrays of `measure(rows, batch)` [..., B] by name, over all images; reports progress."""
        parts: dict[str, list[np.ndarray]] = {}
        for rows, batch in self.batches(held):
            for name, array in measure(rows, batch).items():
                parts.setdefault(name, []).append(np.asarray(array))
            self.report(rows.stop)
        return {name: np.concatenate(values, -1) for name, values in parts.items()}

    def effects(
        self, edited: tuple[Array, Arrays], clean: tuple[Array, Arrays], labels: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Effects of edits on prediction, loss and the head's input: arrays [..., B].

        Args:
            edited: logits [..., B, K] with the edits, and what was captured, with `norm`.
            clean: the same without edits, logits [B, K].
            labels: classes [B]; None leaves `loss` out.
        """
        logits, before = edited[0], clean[0]
        out = {'answer': effects.answer_drop(logits, before, classes=self.model.num_classes > 0)}
        if labels is not None:
            out['loss'] = effects.loss_rise(logits, before, labels)
        out['token'] = turn(edited[1]['norm'], clean[1]['norm'])
        return {name: np.asarray(value) for name, value in out.items()}

    def label(self, measure: str) -> str:
        """Quantity and unit of a measure, for figures."""
        if measure == 'answer' and not self.model.num_classes:
            return 'fraction of the features lost'
        return LABELS[measure]

    def gradients(self, images: np.ndarray, keep: str) -> tuple[Arrays, Arrays]:
        """Captured arrays, and gradients there of the target that estimates `answer`."""
        model = frugal(self.model)
        return capture.gradients(model, self.params, images, goal(model), keep=keep)[1:]

    def table(self, arrays: Mapping[str, np.ndarray], keys: Sequence[Row]) -> list[Row]:
        """Rows of `summary`: `keys`, in the C order of the measures' axes, with their values."""
        return tabulate(summary(arrays, self.seed), keys)

    def title(self, interval: str) -> str:
        """Number and source of the images, and the interval that is shaded."""
        shaded = 'shaded: ' if len(self.samples) > 1 else ''
        return f'{self.samples.described()}; {shaded}{interval}'


LABELS = {
    'answer': "drop of the predicted class's logit", 'loss': 'rise of the loss (nats)',
    'token': "1 - cosine of the head's input",
}  # fmt: skip


def image_bytes(model: Model, images: Any, held: float = 0.0) -> float:
    """Upper bound of the bytes of a pass for each image, gradients of a `frugal` model included.

    Three times what a layer's paths capture, and the `held` bytes of what is kept of all layers.
    Compiled programs take 0.3 to 2.3 times (ViT-S at 224 and 518 pixels, CaiT-XXS24,
    PatchConvNet-S60).
    """
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    known = capture.paths(model, one)
    return held + 3 * sum(4.0 * np.prod(s[1:]) for p, s in known.items() if p.startswith('blocks'))


def frugal(model: Model) -> Model:
    """The model with a backward pass in the memory of one layer, if it has layers.

    Without it ViT-S keeps 1.5 GB of each image of 518 pixels for its gradient; with it, 0.2.
    """
    return model.clone(remat=True) if 'remat' in vars(model) else model


def turn(features: Array, clean: Array) -> jax.Array:
    """1 - cosine of the head's inputs [..., B, ...] to those without edits [B, ...]: [..., B]."""
    lead = np.ndim(features) - np.ndim(clean) + 1
    flat = np.asarray(features).reshape(*np.shape(features)[:lead], -1)
    return effects.token_turn(flat, np.asarray(clean).reshape(len(clean), -1))


def goal(model: Model) -> Callable[[jax.Array], jax.Array]:
    """The target whose gradient estimates `answer`."""
    return _likeliest if model.num_classes else _features


def _likeliest(logits: jax.Array) -> jax.Array:
    return logits.max(-1).sum()


def _features(features: jax.Array) -> jax.Array:
    # The fraction lost along the clean features is, to first order, minus this one's change.
    length = jax.lax.stop_gradient((features**2).sum(-1, keepdims=True))
    return ((features * jax.lax.stop_gradient(features)) / length).sum()


def summary(values: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Means of measures [..., B] over images, and their intervals as `NAME_low` and `NAME_high`.

    `interval_of` names the intervals.
    """
    out = {}
    for name, value in values.items():
        mean, low, high = effects.bootstrap(value, seed=seed)
        count = np.shape(value)[-1]
        if name in FRACTIONS and count > 1:  # equal values still have an interval
            low, high = probe.wilson(mean, count)
        out |= {name: mean, f'{name}_low': low, f'{name}_high': high}
    return out


def tabulate(values: Mapping[str, np.ndarray], keys: Sequence[Row]) -> list[Row]:
    """Rows of a table: `keys`, in the C order of the arrays' axes, with the arrays' values."""
    flat = {name: np.ravel(value) for name, value in values.items()}
    return [
        {**key, **{name: float(value[i]) for name, value in flat.items()}}
        for i, key in enumerate(keys)
    ]


def interval_of(measures: Sequence[str], count: int) -> str:
    """Name of the intervals that `summary` returns for these measures of `count` images."""
    fractions = [name for name in measures if name in FRACTIONS]
    if count < 2 or not fractions:
        return effects.over_images(count)
    wilson = "Wilson's over images, 95%"
    if len(fractions) == len(measures):
        return wilson
    return f'{effects.over_images(count)}; of {", ".join(fractions)} {wilson}'
