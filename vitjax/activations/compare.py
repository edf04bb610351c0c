"""Comparisons of two representations: every metric of `vitjax.analysis.similarity`, and probes."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitjax.activations.record import Activations, Report, by_batch, from_array, select, silent
from vitjax.activations.store import is_capture, read
from vitjax.activations.stream import of_path
from vitjax.analysis import effects, probe, similarity
from vitjax.base.types import Array
from vitjax.pretrained import Stated

SAMPLES = ('image', 'token')


class Matrix(NamedTuple):
    """Similarity of every layer of x with every layer of y.

    Attributes:
        metric: the metric.
        values: [layers of x, layers of y].
        low: low end of a 95% interval over batches, the same shape; None for metrics without one,
            NaN for a single batch.
        high: high end of that interval.
        x: names of x's layers.
        y: names of y's layers.
        policy: tokens that were compared, and number of examples.
        batch_size: examples in a batch of the interval.
        batches: number of batches.
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


def open_side(
    path: str, *, keep: str | None = None, tokens: str | None = None,
    layers: tuple[int, int] | None = None, checked: bool = True, stated: Stated | None = None,
    **how: Any,
) -> Activations:  # fmt: skip
    """Opens a `.npy`, a capture, a run directory or published weights.

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
    if path.endswith('.npy') or is_capture(path):
        if layers is not None:
            raise ValueError(f'layers are chosen of a run or weights: {path} has its own.')
        if given := ', '.join(stated.given() if stated else ()):
            raise ValueError(f'{given} can be stated for weights alone: {path} holds activations.')
    if path.endswith('.npy'):
        return from_array(path)
    if not is_capture(path):
        return of_path(path, keep=keep, tokens=tokens, layers=layers, stated=stated, **how)
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


def whole(activations: Activations, samples: str = 'image', report: Report = silent) -> list[Array]:
    """All examples as float32 stacks [L, n, f] in memory."""
    parts, done = [], 0
    for values in by_batch(activations.values, activations.examples):
        parts.append(as_samples(values, samples))
        report(done := done + values[0].shape[1], activations.examples)
    columns = zip(*parts, strict=True)
    return [np.concatenate(column, axis=1, dtype=np.float32) for column in columns]


def cka(
    a: Activations, b: Activations | None = None, *, batch_size: int = 64,
    samples: str = 'image', kernel: str = 'linear', bandwidth: float = 1.0,
    report: Report = silent,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Minibatch CKA of every layer of a with every layer of b, and its 95% interval.

    Memory is one batch of both, whatever the number of examples, plus 8 bytes per pair of layers
    and batch for `bootstrap`. A last batch of fewer than 4 samples is joined to the one before.

    Args:
        a: one side.
        b: the other side, of the same examples; None is a.
        batch_size: examples in a batch and its Gram matrices.
        samples: as in `as_samples`.
        kernel: as in `vitjax.analysis.similarity.hsic`.
        bandwidth: as in `vitjax.analysis.similarity.hsic`.
        report: called with the examples done and their total, after every batch.

    Returns:
        CKA, and the low and high end of its interval over batches, each [layers of a, layers of
        b]; the ends are NaN if there is one batch.

    Raises:
        ValueError: for fewer than 4 samples; for a layer that is constant or not finite, by name.
    """
    total, parts = a.examples, []
    starts = _starts(total, batch_size)
    for start, stop in zip(starts, [*starts[1:], total], strict=True):
        rows = np.arange(start, stop)
        x = as_samples(a.values(rows), samples)
        y = None if b is None else as_samples(b.values(rows), samples)
        parts.append(similarity.hsic(x, y, kernel=kernel, bandwidth=bandwidth).on_host())
        report(stop, total)
    matrix = functools.reduce(lambda p, q: p + q, parts).cka(a.names, (b or a).names)
    none = np.full((2, *matrix.shape), np.nan)
    low, high = similarity.bootstrap(parts) if len(parts) > 1 else none
    return matrix, low, high


def _starts(total: int, batch_size: int) -> list[int]:
    """First example of each batch."""
    starts = list(range(0, total, batch_size))
    return starts[:-1] if len(starts) > 1 and total - starts[-1] < 4 else starts


def matrices(
    metrics: Sequence[str], x: Activations, y: Activations | None = None, *,
    samples: str = 'image', bandwidth: float = 1.0, k: int = 10, batch_size: int = 64,
    report: Report = silent,
) -> Iterator[Matrix]:  # fmt: skip
    """Each metric of every layer of x with every layer of y, one after the other.

    Metrics with a kernel (CKA) stream over batches. The others read all examples into memory, once.

    Args:
        metrics: names, as `vitjax.analysis.similarity.find` takes them.
        x: one side.
        y: the other side, of the same examples; None is x.
        samples: as in `as_samples`.
        bandwidth: width of the Gaussian kernel, relative to the median distance.
        k: number of nearest neighbours.
        batch_size: examples in a batch of CKA.
        report: as in `cka`.

    Raises:
        ValueError: as the metrics do.
    """
    chosen, other = list(map(similarity.find, metrics)), y or x

    @functools.cache
    def sides() -> tuple[list[Array], list[Array]]:
        left = whole(x, samples, report)
        return left, left if y is None else whole(y, samples, report)

    batches, size = len(_starts(x.examples, batch_size)), min(batch_size, x.examples)
    for metric in chosen:
        if metric.kernel:
            found = cka(
                x, y, batch_size=batch_size, samples=samples, kernel=metric.kernel,
                bandwidth=bandwidth, report=report,
            )  # fmt: skip
        else:
            settings = {'k': k} if 'k' in metric.settings else {}
            found = metric.measure(*sides(), **settings), None, None
        policy = _policy(x, other, samples)
        yield Matrix(metric, *found, x.names, other.names, policy, size, batches)


def _policy(x: Activations, y: Activations, samples: str) -> str:
    """Tokens that were compared and number of examples, as every result states them."""
    tokens = list(dict.fromkeys(found.about['tokens'] for found in (x, y)))
    out = f'tokens: {" / ".join(tokens)}; '
    if samples == 'token':
        out += 'each a sample; '
    elif set(tokens) & {'patches', 'all'}:
        out += 'flattened; '
    return out + f'{x.examples:,} {"examples" if "as given" in tokens else "images"}'


def probes(
    fitted: Activations, tested: Activations, *, samples: str = 'image', k: int = 20,
    report: Report = silent,
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
    if fitted.names != tested.names or fitted.about['classes'] != tested.about['classes']:
        raise ValueError('a probe must be tested on the layers and classes that it was fitted on.')
    if fitted.about['weights'] != tested.about['weights']:
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
