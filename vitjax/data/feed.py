"""Rows of a data set to arrays on the devices, some steps at a time: resident, or decoded ahead.

A feed is asked for the steps from one on, and answers with a chunk of them. How many steps a chunk
has is the caller's to choose, up to where it has something else to do.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from vitjax.data.kind import Data, Encoded
from vitjax.data.order import batches

STEPS = 256  # of a chunk, at most
BYTES = 2**27  # of images decoded for one chunk, when not all of them fit

Put = Callable[[np.ndarray, np.ndarray], Any]  # images and labels to the devices


class Chunk(NamedTuple):
    """Some steps' examples.

    Attributes:
        steps: how many.
        data: images and labels, on the devices.
        rows: [K, seeds, batch], of which the first `steps` say which of `data` a step takes. K is
            the same for every chunk: one compiled program takes them all.
    """

    steps: int
    data: Any
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class Order:
    """Which examples come when, as `order` has it, for one or several seeds.

    Attributes:
        seeds: each with its own order.
        count: examples there are.
        batch_size: examples a step, over all processes.
        process: which slice of every batch is this process's.
        processes: how many slices there are.
        repeats: how often an example comes, one time after the other.
    """

    seeds: tuple[int, ...]
    count: int
    batch_size: int
    process: int = 0
    processes: int = 1
    repeats: int = 1

    def rows(self, step: int, steps: int, length: int) -> np.ndarray:
        """[length, seeds, batch / processes]: rows of `steps` steps from `step` on, then zeros."""
        of_seeds = [
            batches(
                seed, step, steps, count=self.count, batch_size=self.batch_size,
                repeats=self.repeats, process=self.process, processes=self.processes,
            )
            for seed in self.seeds
        ]  # fmt: skip
        return np.pad(np.stack(of_seeds, 1), ((0, length - steps), (0, 0), (0, 0)))


class Feed(Protocol):
    """A way of feeding steps."""

    most: int  # steps a chunk may have

    def take(self, step: int, steps: int) -> Chunk:
        """The steps from `step` on: `steps` of them, or as many as were made ready before."""
        ...


class Resident:
    """All images stay on the devices; a chunk is rows alone."""

    most = STEPS

    def __init__(self, data: Data, order: Order, put: Put):
        self._order, self._data = order, put(data.images, data.labels)

    def take(self, step: int, steps: int) -> Chunk:
        """See `Feed`."""
        return Chunk(steps, self._data, self._order.rows(step, steps, self.most))


class Ahead:
    """Images are decoded for each chunk, the next one's while the devices take this one's steps."""

    def __init__(self, data: Data, order: Order, put: Put, until: Callable[[int], int]):
        self._data, self._order, self._put, self._until = data, order, put, until
        self.most = _steps_ahead(data.images.shape, order.batch_size * len(order.seeds))
        self._pool = ThreadPoolExecutor(1)
        self._coming: tuple[int, Future[Any]] | None = None  # its first step, and what is decoded

    def take(self, step: int, steps: int) -> Chunk:
        """See `Feed`."""
        ready, self._coming = self._coming, None
        if ready is None or ready[0] != step:
            arrays = self._decode(step, steps)
        else:
            arrays = ready[1].result()
        taken, images, labels, rows = arrays
        after = step + taken
        coming = min(steps, self._until(after) - after)
        if coming > 0:
            self._coming = after, self._pool.submit(self._decode, after, coming)
        return Chunk(taken, self._put(images, labels), rows)

    def _decode(self, step: int, steps: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        rows = self._order.rows(step, steps, self.most)
        chosen = rows[:steps].ravel()
        # As long as the longest chunk, so that one compiled program takes them all.
        images = np.zeros((rows.size, *self._data.images.shape[1:]), np.uint8)
        images[: len(chosen)] = self._data.images[chosen]
        labels = np.zeros(rows.size, np.int32)
        labels[: len(chosen)] = self._data.labels[chosen]
        return steps, images, labels, np.arange(rows.size, dtype=np.int32).reshape(rows.shape)


def feed(data: Data, order: Order, put: Put, until: Callable[[int], int]) -> Feed:
    """The way to feed a data set: resident where its decoded images fit in memory.

    Args:
        data: the images and labels.
        order: which come when.
        put: images [N, H, W, 3] and labels [N] to the devices.
        until: step to the step at which a chunk that begins there has to end, at most.
    """
    if isinstance(data.images, Encoded):
        return Ahead(data, order, put, until)
    return Resident(data, order, put)


def chunk_shape(shape: tuple[int, ...], batch_size: int, *, resident: bool) -> tuple[int, int]:
    """How many images a chunk has on the devices, and the K of its rows, for one seed.

    Args:
        shape: of the images, [N, H, W, 3].
        batch_size: images a step.
        resident: whether all of them stay on the devices.
    """
    if resident:
        return shape[0], STEPS
    steps = _steps_ahead(shape, batch_size)
    return steps * batch_size, steps


def _steps_ahead(shape: tuple[int, ...], batch: int) -> int:
    return max(1, min(STEPS, BYTES // (batch * math.prod(shape[1:]))))


def chunks(source: Feed, step: int, until: Callable[[int], int], pace: 'Pace') -> Iterator[Chunk]:
    """All chunks from a step on, until `until` gives no more steps."""
    while (left := until(step) - step) > 0:
        chunk = source.take(step, min(pace.steps, source.most, left))
        yield chunk
        step += chunk.steps


class Pace:
    """How many steps a chunk should have, for it to last about so many seconds."""

    def __init__(self, seconds: float):
        self.seconds, self.steps = seconds, 1

    def note(self, steps: int, took: float) -> None:
        """Adapts to a chunk of `steps` that took `took` seconds: doubles at most."""
        self.steps = max(1, min(2 * self.steps, int(self.seconds * steps / took)))
