"""Comparisons of representations: every metric of `vitjax.analysis.similarity`, and probes."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from vitjax.activations import arrays
from vitjax.activations.record import Activations, by_batch, require_same_examples, select
from vitjax.activations.store import is_capture, read
from vitjax.activations.stream import of_path
from vitjax.analysis import effects, probe, similarity
from vitjax.base.console import Progress, silent
from vitjax.base.labels import labels
from vitjax.base.types import Array
from vitjax.pretrained import Stated

SAMPLES = ('image', 'token')
Stacks: TypeAlias = list[Array]  # stacks [L, n, f] of one side
Pair: TypeAlias = tuple[Stacks, Stacks]  # the same object for a side with itself
T = TypeVar('T')


class Matrix(NamedTuple):
    """Similarity of every layer of x with every layer of y, or of runs layer by layer.

    Attributes:
        metric: the metric.
        values: [layers of x, layers of y]; of runs [layers, runs, runs].
        low: low end of a 95% interval over batches, the same shape; None for metrics without one,
            NaN for a single batch.
        high: high end of that interval.
        x: names of x's layers; of runs their labels.
        y: names of y's layers; of runs their labels.
        policy: tokens that were compared, and number of examples.
        batch_size: examples in a batch of the interval.
        batches: number of batches.
        layers: names of the layers at which runs were compared; empty for two sides.
    """

    metric: similarity.Metric
    values: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    x: list[str]
    y: list[str]
    policy: str
    batch_size: int
    batches: int
    layers: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The policy, the kind of interval and its largest half-width."""
        if self.low is None or self.high is None:
            return self.policy
        if self.batches < 2:
            return f'{self.policy}\nno interval: one batch of {self.batch_size}'
        width = np.abs(self.high - self.low).max() / 2
        kind = 'jackknife' if self.batches < effects.FEW else 'bootstrap'
        over = f'over batches of {self.batch_size} ({kind}, {self.batches} batches)'
        return f'{self.policy}\n95% interval {over}: ±{width:.3f} at most'

    def at(self, index: int) -> 'Matrix':
        """The matrix of one layer."""
        low, high = (None if ends is None else ends[index] for ends in (self.low, self.high))
        policy = f'{self.layers[index]}; {self.policy}' if self.layers else self.policy
        return self._replace(
            values=self.values[index], low=low, high=high, policy=policy, layers=()
        )

    def mean(self) -> 'Matrix':
        """The mean [runs, runs] over the layers, without an interval."""
        policy = f'mean over {len(self.layers)} layers; {self.policy}'
        mean = self.values.mean(0)
        return self._replace(values=mean, low=None, high=None, policy=policy, layers=())


class Probes(NamedTuple):
    """Accuracy of probes at every layer, each [layers], with its 95% interval.

    Attributes:
        accuracy: accuracies by the probe's name.
        interval: low and high ends by the probe's name.
        layers: names of the layers.
        policy: tokens that were read, and numbers of images.
    """

    accuracy: dict[str, np.ndarray]
    interval: dict[str, tuple[np.ndarray, np.ndarray]]
    layers: list[str]
    policy: str


def is_stored(path: str) -> bool:
    """Returns True for a capture or a file of arrays, False for a model."""
    return arrays.is_file(path) or is_capture(path)


def open_side(
    path: str, *, keep: str | None = None, tokens: str | None = None,
    layers: tuple[int, int] | None = None, checked: bool = True, stated: Stated | None = None,
    **how: Any,
) -> Activations:  # fmt: skip
    """Opens a file of arrays, a capture, a run directory or published weights.

    Args:
        path: the path of one of them.
        keep: regular expression over captured paths; None takes all of a capture, and the blocks of
            runs and weights.
        tokens: as in `stream`; a capture has its own.
        layers: as in `stream`; not for a capture.
        checked: as in `read`; for a capture.
        stated: facts about weights, as in `of_path`.
        **how: further arguments of `of_path`; for runs and weights.

    Raises:
        ValueError: as the functions that open them do; for other tokens than a capture has; for
            layers if the path is not a model.
    """
    if not is_stored(path):
        return of_path(path, keep=keep, tokens=tokens, layers=layers, stated=stated, **how)
    if layers is not None:
        raise ValueError(f'layers are chosen of a run or weights: {path} has its own.')
    if given := ', '.join(stated.given() if stated else ()):
        raise ValueError(f'{given} can be stated for weights alone: {path} holds activations.')
    if arrays.is_file(path):
        return arrays.from_file(path)
    found = read(path, checked=checked)
    if tokens not in (None, found.about['tokens']):
        raise ValueError(f'{path} has the tokens {found.about["tokens"]}, not {tokens}.')
    return select(found, keep) if keep else found


def as_samples(values: list[Array], samples: str) -> list[Array]:
    """Stacks [L, n, ...] as [L, n, f] with each image's tokens concatenated, or as [L, n T, f].

    Args:
        values: stacks, as `Activations.values` returns them.
        samples: `image` makes an image's tokens one vector, `token` makes each token a sample.

    Raises:
        ValueError: for `token` if a stack has no axis of tokens.
    """
    if samples not in SAMPLES:
        raise ValueError(f'samples must be one of {", ".join(SAMPLES)}: {samples!r}.')
    if samples == 'image':
        return [value.reshape(*value.shape[:2], -1) for value in values]
    if any(value.ndim != 4 for value in values):
        raise ValueError("samples='token' needs tokens: capture patches or all.")
    return [value.reshape(value.shape[0], -1, value.shape[3]) for value in values]


def whole(activations: Activations, samples: str = 'image', report: Progress = silent) -> Stacks:
    """All examples as float32 stacks [L, n, f] in memory."""
    parts, done = [], 0
    for values in by_batch(activations.values, activations.examples):
        parts.append(as_samples(values, samples))
        report(done := done + values[0].shape[1], activations.examples)
    return _joined(parts)


def _joined(parts: Sequence[Stacks]) -> Stacks:
    columns = zip(*parts, strict=True)
    return [np.concatenate(column, axis=1, dtype=np.float32) for column in columns]


def cka(
    a: Activations, b: Activations | None = None, *, batch_size: int = 64,
    samples: str = 'image', report: Progress = silent,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Minibatch CKA of every layer of a with every layer of b, and its 95% interval.

    Args:
        a: one side.
        b: the other side, of the same examples; None is a.
        batch_size: as in `matrices`.
        samples: as in `matrices`.
        report: as in `matrices`.

    Returns:
        CKA, and the low and high end of its interval over batches, each [layers of a, layers of
        b]; the ends are NaN if there is one batch.

    Raises:
        ValueError: as `matrices` does.
    """
    sides = [a] if b is None else [a, b]
    (found,) = matrices(
        ['cka'], *sides, samples=samples, batch_size=batch_size, report=report
    )  # fmt: skip
    assert found.low is not None and found.high is not None
    return found.values, found.low, found.high


def matrices(
    metrics: Sequence[str], *sides: Activations, samples: str = 'image', bandwidth: float = 1.0,
    k: int = 10, batch_size: int = 64, report: Progress = silent,
) -> list[Matrix]:  # fmt: skip
    """Each metric of one side with itself, of two sides, or of three or more between them.

    Of two sides every layer is compared with every layer. Of three or more, each with each at
    layers of the same relative depth: of sides with 4 and 8 layers, layers 1 to 4 of the one and 2,
    4, 6 and 8 of the other. The last layers are always compared.

    Each side is read once, batch by batch. Metrics with a kernel (CKA) need the memory of a batch,
    plus 8 bytes per pair of layers and batch for their intervals; others hold all examples. A last
    batch of fewer than 4 examples is joined to the one before.

    Args:
        metrics: names, as `vitjax.analysis.similarity.find` takes them.
        *sides: representations of the same examples.
        samples: as in `as_samples`.
        bandwidth: width of the Gaussian kernel, relative to the median distance.
        k: number of nearest neighbours.
        batch_size: examples in a batch and its Gram matrices.
        report: called with the examples done and their total, after every batch.

    Raises:
        ValueError: for sides of different examples; for fewer than 4 samples of CKA; for a layer
            that is constant or not finite, by name; as the metrics do.
    """
    chosen = [similarity.find(name) for name in dict.fromkeys(metrics)]
    for side in sides[1:]:
        require_same_examples(sides[0], side)
    x, y, total = sides[0].names, sides[-1].names, sides[0].examples
    layers: tuple[str, ...] = ()
    named = [(x, y)]
    if len(sides) > 2:
        x = y = labels([side.source for side in sides])
        matched = _matched([side.names for side in sides])
        layers = tuple(' / '.join(dict.fromkeys(names)) for names in matched)
        named = [(own := [f'{layer} of {run}' for run in x], own) for layer in layers]
    batches = _batches(total, batch_size)
    sums: dict[str, list[list[similarity.Hsic]]] = {m.name: [] for m in chosen if m.kernel}
    held: list[list[Pair]] = []
    for rows in batches:
        pairs = _pairs([as_samples(side.values(rows), samples) for side in sides])
        for metric in chosen:
            if metric.kernel:
                how: Any = {'kernel': metric.kernel, 'bandwidth': bandwidth}
                sums[metric.name].append([similarity.hsic(*pair, **how) for pair in pairs])
        if len(sums) < len(chosen):
            held.append(pairs)
        report(int(rows[-1]) + 1, total)
    pairs = [_joined_pair(*zip(*parts, strict=True)) for parts in zip(*held, strict=True)]
    shared = _policy(sides, samples), min(batch_size, total), len(batches), layers
    out = []
    for metric in chosen:
        if metric.kernel:
            columns = zip(*sums[metric.name], strict=True)
            found = [_interval(own, *names) for own, names in zip(columns, named, strict=True)]
        else:
            settings = {'k': k} if 'k' in metric.settings else {}
            found = [(metric.measure(*pair, **settings), None, None) for pair in pairs]
        values, low, high = map(_stacked, zip(*found, strict=True))
        matrix = Matrix(metric, values, low, high, x, y, *shared)
        out.append(matrix if layers else matrix.at(0))
    return out


def _batches(total: int, batch_size: int) -> list[np.ndarray]:
    """Rows of each batch."""
    starts = list(range(0, total, batch_size))
    if len(starts) > 1 and total - starts[-1] < 4:
        starts.pop()
    return np.split(np.arange(total), starts[1:])


def _matched(sides: Sequence[Sequence[T]]) -> list[tuple[T, ...]]:
    """Layers of each side at the same relative depth; the last ones always match.

    >>> _matched(['ab', 'cdef'])
    [('a', 'd'), ('b', 'f')]
    """
    fewest = min(map(len, sides))
    chosen = ([side[len(side) * (i + 1) // fewest - 1] for i in range(fewest)] for side in sides)
    return list(zip(*chosen, strict=True))


def _pairs(sides: Sequence[Stacks]) -> list[Pair]:
    """Sides to compare: up to two as they are, more of them layer by layer."""
    if len(sides) <= 2:
        return [(sides[0], sides[-1])]
    layers = [[layer[None] for stack in side for layer in stack] for side in sides]
    return [(own := [*each], own) for each in _matched(layers)]


def _joined_pair(xs: Sequence[Stacks], ys: Sequence[Stacks]) -> Pair:
    x = _joined(xs)
    return x, x if ys[0] is xs[0] else _joined(ys)


def _stacked(found: tuple[Any, ...]) -> Any:
    return None if found[0] is None else np.stack(found)


def _interval(
    parts: Sequence[similarity.Hsic], x: list[str], y: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CKA and the ends of its 95% interval, from HSIC of each batch."""
    values = functools.reduce(operator.add, parts).cka(x, y)
    none = np.full((2, *values.shape), np.nan)
    low, high = similarity.bootstrap(parts) if len(parts) > 1 else none
    return values, low, high


def _policy(sides: Sequence[Activations], samples: str) -> str:
    """Tokens that were compared and number of examples, as every result states them."""
    tokens = list(dict.fromkeys(side.about['tokens'] for side in sides))
    said = [f'tokens: {" / ".join(tokens)}']
    if samples == 'token':
        said.append('each a sample')
    elif any(len(stack.shape) > 2 for side in sides for stack in side.stacks):
        said.append('flattened')
    unit = 'examples' if 'as given' in tokens else 'images'
    return '; '.join([*said, f'{sides[0].examples:,} {unit}'])


def probes(
    fitted: Activations, tested: Activations, *, samples: str = 'image', k: int = 20,
    report: Progress = silent,
) -> Probes:  # fmt: skip
    """Accuracy of k-NN, ridge and a linear probe at every layer (`vitjax.analysis.probe`).

    Args:
        fitted: activations to fit the probes on.
        tested: activations to test them on: the same layers of the same model.
        samples: `image`; no other value, since a label belongs to an image.
        k: neighbours of k-NN, at most the number of examples.
        report: called with the examples of a side that are read and their total.

    Raises:
        ValueError: for sides without classes, or of different models, layers or classes.
    """
    for found in (fitted, tested):
        if found.labels is None or found.labels.min() < 0:
            raise ValueError(f'a probe needs classes: {found.label} has none.')
    if samples != 'image':
        raise ValueError('a probe has one label for an image: samples must be image.')
    if fitted.names != tested.names or fitted.about.get('classes') != tested.about.get('classes'):
        raise ValueError('a probe must be tested on the layers and classes that it was fitted on.')
    if fitted.about.get('weights') != tested.about.get('weights'):
        raise ValueError('a probe must be tested on the model that it was fitted on: another.')
    k = min(k, fitted.examples)
    knn = functools.partial(probe.knn, k=k)
    measures = {f'k-NN (k = {k})': knn, 'ridge': probe.ridge, 'linear': probe.linear}
    pairs = list(zip(*(whole(side, report=report) for side in (fitted, tested)), strict=True))
    accuracy = {
        name: np.concatenate([measure(a, fitted.labels, b, tested.labels) for a, b in pairs])
        for name, measure in measures.items()
    }
    interval = {name: probe.wilson(values, tested.examples) for name, values in accuracy.items()}
    counts = f'{fitted.examples:,} images to fit, {tested.examples:,} to test'
    policy = f'tokens: {fitted.about["tokens"]}; {counts}'
    return Probes(accuracy, interval, fitted.names, policy)
