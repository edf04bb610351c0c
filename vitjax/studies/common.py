"""What studies share: the images they are made on, their batches, and what they leave behind."""

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
from vitjax.base.labels import labels as labels_of
from vitjax.base.types import Array, Arrays, Format, Module
from vitjax.data import kinds, preprocess
from vitjax.data.order import evenly, exactly
from vitjax.experiment import preprocessing
from vitjax.inside import capture
from vitjax.runs import Loaded

Report = Callable[[int], object]  # called with the number of images done
SHARES = ('accuracy', 'agreement', 'moved')  # measures that are 0 or 1 for an image


@dataclasses.dataclass(frozen=True)
class Samples:
    """Images as a model takes them.

    Attributes:
        names: of files, or where in the split they are.
        inputs: normalised [B, H, W, 3].
        labels: classes [B]; None where there are none, or others than the model's.
        source: where they are from.
    """

    names: tuple[str, ...]
    inputs: np.ndarray
    labels: np.ndarray | None
    source: str

    def take(self, rows: Any) -> 'Samples':
        """Some of them."""
        labels = None if self.labels is None else self.labels[rows]
        names = tuple(np.array(self.names)[rows])
        return dataclasses.replace(self, names=names, inputs=self.inputs[rows], labels=labels)


@dataclasses.dataclass(frozen=True)
class Study:
    """Results of a study.

    Attributes:
        name: stem of its files.
        arrays: by name; the last axis of effects is images.
        rows: rows of the table; NaN, as where there is no interval, is an empty cell.
        figure: a matplotlib figure.
        policy: the edit and the measure, in words.
        interval: name of the table's intervals, or why there is none.
        said: lines to print.
        measure: name of the table's first measure, for figures.
    """

    name: str
    arrays: Mapping[str, Array]
    rows: Sequence[Mapping[str, Any]]
    figure: Any
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
        facts = {'policy': self.policy, 'images': len(samples.inputs), 'source': samples.source}
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
                writer.writerow({**cells, 'images': len(samples.inputs), 'policy': self.policy})
        return ', '.join(
            [f'{self.name}.npz', f'{self.name}.csv', *self.figure.save(out / self.name, formats)]
        )


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return '' if math.isnan(value) else f'{value:.6g}'


def samples(
    loaded: Loaded, files: Sequence[str | pathlib.Path] = (), *, data: str | None = None,
    split: str = 'test', examples: int | None = None, most: int | None = None,
) -> Samples:  # fmt: skip
    """Images of files, or of a split of a data set, as the model takes them.

    Args:
        loaded: the model.
        files: photographs; without them it is the split.
        data: as in `sources.Source.name`; None is the run's own.
        split: of the data.
        examples: number of images, evenly spread over the split; None takes at most `most`.
        most: likewise; None takes all.

    Raises:
        ValueError: for files that cannot be read, a model without data of its own, and more
            examples than the split has.
    """
    prepared = preprocessing(loaded.experiment)
    if files:
        names = tuple(labels_of(files))
        return Samples(names, preprocess.load([*files], prepared), None, 'files')
    source = loaded.experiment.data
    if data is not None:
        source = dataclasses.replace(source or kinds.Source(), name=data)
    if source is None:
        raise ValueError('say which images: --images FILE ... or --data; the model has no data.')
    found = kinds.load(source, split, prepared)
    count = len(found)
    rows = exactly(count, examples) if examples is not None else evenly(count, most or count)
    pixels = np.asarray(found.images[rows])
    run = jax.jit(lambda x: preprocess.finish(x, prepared, found.prepared))
    labels = np.asarray(found.labels)[rows]
    model: Any = loaded.experiment.model
    known = len(found.classes) == model.num_classes > 0
    names = tuple(f'{split}[{row}]' for row in rows)
    name = f'{source.name}, {split} split'
    return Samples(names, np.asarray(run(pixels)), labels if known else None, name)


def batches(
    model: Module, given: Samples, memory: float, report: Report, *, held: float = 0.0
) -> Iterator[slice]:
    """Rows of as many images at a time as keep a pass within `memory` gigabytes.

    A pass holds `image_bytes` of each image, and the parameters besides.

    Raises:
        ValueError: if one image takes more.
    """
    each = image_bytes(model, given.inputs, held)
    if each > memory * 1e9:
        rule = f'a pass of one image takes about {each / 1e9:.2g} GB, --memory allows {memory:g}'
        raise ValueError(f'{rule}: use a smaller --size.')
    # On CPU few images at a time are as fast as many: they stay in cache.
    size = int(min(16, memory * 1e9 // each, len(given.inputs)))
    for start in range(0, len(given.inputs), size):
        yield slice(start, start + size)
        report(min(start + size, len(given.inputs)))


def image_bytes(model: Module, images: Any, held: float = 0.0) -> float:
    """A bound on what a pass holds of each image, gradients of a `frugal` model included.

    Three times what a layer's paths capture (0.3 to 2.3 as compiled, of ViT-S at 224 and 518
    pixels, CaiT-XXS24 and PatchConvNet-S60), and the `held` bytes of what is kept of all layers.
    """
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    known = capture.paths(model, one)
    return held + 3 * sum(4.0 * np.prod(s[1:]) for p, s in known.items() if p.startswith('blocks'))


def frugal(model: Module) -> Module:
    """The model with a backward pass in the memory of one layer, where it has layers.

    Without it ViT-S keeps 1.5 GB of each image of 518 pixels for its gradient; with it, 0.2.
    """
    return model.clone(remat=True) if 'remat' in vars(model) else model


def measured(
    logits: Array, found: Arrays, clean: tuple[Array, Arrays], labels: np.ndarray | None,
    classes: bool,
) -> dict[str, np.ndarray]:  # fmt: skip
    """What edits did to the answer, the loss and what the head reads: arrays [..., B].

    Args:
        logits: [..., B, K] with the edits.
        found: with `norm` [..., B, D].
        clean: the same without edits.
        labels: [B] or None.
        classes: whether logits are of classes, and not features.
    """
    lead = np.ndim(logits) - np.ndim(clean[0])

    def flat(x: Array, axes: int) -> np.ndarray:
        return np.asarray(x).reshape(*np.shape(x)[:axes], -1)

    features, before = flat(found['norm'], lead + 1), flat(clean[1]['norm'], 1)
    out = {'answer': effects.answer_drop(logits, clean[0], classes=classes)}
    if labels is not None:
        out['loss'] = effects.loss_rise(logits, clean[0], labels)
    out['token'] = effects.token_turn(features, before)
    return {name: np.asarray(value) for name, value in out.items()}


LABELS = {
    'answer': "drop of the answer's logit", 'loss': 'rise of the loss, nats',
    'token': '1 - cosine of what the head reads',
}  # fmt: skip


def label(measure: str, classes: bool) -> str:
    """What a measure is, for figures."""
    return LABELS[measure] if classes or measure != 'answer' else 'share of the features lost'


def goal(model: Module) -> Callable[[jax.Array], jax.Array]:
    """The target whose gradient estimates `answer`."""
    return _likeliest if model.num_classes else _features


def _likeliest(logits: jax.Array) -> jax.Array:
    return logits.max(-1).sum()


def _features(features: jax.Array) -> jax.Array:
    # 1 - share along the clean features, to first order, is minus this one's change.
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
        if name in SHARES and count > 1:  # equal values still have an interval
            low, high = probe.wilson(mean, count)
        out |= {name: mean, f'{name}_low': low, f'{name}_high': high}
    return out


def interval_of(measures: Sequence[str], count: int) -> str:
    """Name of the intervals that `summary` returns for these measures of `count` images."""
    shares = [name for name in measures if name in SHARES]
    if count < 2 or not shares:
        return effects.over_images(count)
    wilson = "Wilson's over images, 95%"
    if len(shares) == len(measures):
        return wilson
    return f'{effects.over_images(count)}; of {", ".join(shares)} {wilson}'


def said_of(given: Samples, interval: str) -> str:
    """Number and source of images, and which interval is shaded, for a figure's title."""
    count = len(given.inputs)
    images = f'{count} image{"s" * (count > 1)} ({given.source})'
    return f'{images}; shaded: {interval}' if count > 1 else f'{images}; {interval}'
