"""Two representations side by side."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vitjax.activations.record import Activations, Array, digests
from vitjax.analysis import similarity

SAMPLES = ('image', 'token')


def require_same_examples(a: Activations, b: Activations) -> None:
    """Refuses to compare representations of different images, or in a different order.

    Where images are not known (a `.npy` from elsewhere) only their number is compared.

    Raises:
        ValueError: saying which.
    """
    if a.examples != b.examples:
        raise ValueError(f'both sides must have the same images: {a.examples} and {b.examples}.')
    if a.hashes is None or b.hashes is None:
        return
    one, other = (digests(np.concatenate([*_by_batch(s.hashes, s.examples)])) for s in (a, b))
    if one['order'] == other['order']:
        return
    if one['images'] == other['images']:
        raise ValueError(
            'both sides must have the same images in the same order: the order differs.'
        )
    raise ValueError('both sides must have the same images: these are of different ones.')


def _by_batch(read: Any, examples: int, size: int = 1024) -> Iterator[Any]:
    for start in range(0, examples, size):
        yield read(np.arange(start, min(start + size, examples)))


def as_samples(values: list[Array], samples: str) -> list[Array]:
    """Stacks [L, n, ...] as [L, n, f], tokens of an image side by side, or as [L, n T, f].

    Args:
        values: what `Activations.values` returns.
        samples: `image`, an image's tokens are one flat vector; `token`, each is a sample.

    Raises:
        ValueError: for `token` where a stack has no axis of tokens.
    """
    if samples not in SAMPLES:
        raise ValueError(f'samples must be one of {", ".join(SAMPLES)}: {samples!r}.')
    if samples == 'image':
        return [value.reshape(*value.shape[:2], -1) for value in values]
    if any(value.ndim != 4 for value in values):
        raise ValueError("samples='token' needs tokens: capture patches or all.")
    return [value.reshape(value.shape[0], -1, value.shape[3]) for value in values]


def whole(activations: Activations, samples: str = 'image') -> list[Array]:
    """All examples at once, as float32 stacks [L, n, f] in memory."""
    batches = _by_batch(activations.values, activations.examples)
    columns = zip(*(as_samples(values, samples) for values in batches), strict=True)
    return [np.concatenate(column, axis=1, dtype=np.float32) for column in columns]


def cka(
    a: Activations,
    b: Activations | None = None,
    *,
    batch_size: int = 64,
    samples: str = 'image',
    kernel: str = 'linear',
    bandwidth: float = 1.0,
    report: Callable[[int, int], object] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minibatch CKA of every layer of a with every layer of b, and its 95% interval.

    Memory is one batch of both, whatever the number of examples, and what `bootstrap` needs of
    each batch (8 bytes a pair). A last batch that would have fewer than 4 samples is joined to the
    one before.

    Args:
        a: one side.
        b: the other, of the same examples; None is a.
        batch_size: examples in a batch, whose Gram matrices are the estimate's.
        samples: as in `as_samples`.
        kernel: as in `vitjax.analysis.similarity.hsic`.
        bandwidth: as there.
        report: takes how many examples are done, of how many, after every batch.

    Returns:
        CKA, and the low and high end of its interval over batches, each [layers of a, layers of
        b]; the ends are NaN when there is one batch.

    Raises:
        ValueError: for fewer than 4 samples; for a layer that is constant or not finite, by name.
    """
    total, parts = a.examples, []
    starts = list(range(0, total, batch_size))
    if len(starts) > 1 and total - starts[-1] < 4:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], total], strict=True):
        rows = np.arange(start, stop)
        x = as_samples(a.values(rows), samples)
        y = None if b is None else as_samples(b.values(rows), samples)
        part = similarity.hsic(x, y, kernel=kernel, bandwidth=bandwidth)
        parts.append(part.on_host())
        report(stop, total)
    matrix = functools.reduce(lambda p, q: p + q, parts).cka(a.names, (b or a).names)
    if len(parts) == 1:
        return matrix, np.full_like(matrix, np.nan), np.full_like(matrix, np.nan)
    return matrix, *similarity.bootstrap(parts)
