"""Training images on the devices, some steps at a time: resident, or read ahead.

A feed returns a chunk of steps from a given one on. The caller chooses the chunk's length, up to
the step at which it evaluates, saves or stops.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from vitjax.data.feed import stream
from vitjax.data.feed.stream import Crop
from vitjax.data.order import Order
from vitjax.data.source import Data, Encoded

STEPS = 256  # of a chunk, at most
BYTES = 2**27  # of images decoded for one chunk, when not all of them fit

Put = Callable[[np.ndarray, np.ndarray], Any]  # moves images and labels to the devices


class Chunk(NamedTuple):
    """Examples of some steps.

    Attributes:
        steps: number of steps.
        data: images and labels on the devices: the whole set, [N, H, W, 3] and [N], or one batch
            per step, [K, seeds, batch, H, W, 3] and [K, seeds, batch].
        rows: [K, seeds, batch] rows of each step's examples; those after the first `steps` are
            unused. K is the same for every chunk: one compiled program takes them all.
    """

    steps: int
    data: Any
    rows: np.ndarray


class Feed(Protocol):
    """Source of chunks."""

    most: int  # steps of the longest chunk

    def take(self, step: int, steps: int) -> Chunk:
        """The chunk of `steps` steps from `step` on; one that was read ahead may be shorter."""
        ...


class Resident:
    """Feed of images that all stay on the devices; a chunk is rows alone."""

    most = STEPS

    def __init__(self, data: Data, order: Order, put: Put):
        self._order, self._data = order, put(data.images, data.labels)

    def take(self, step: int, steps: int) -> Chunk:
        """See `Feed`."""
        return Chunk(steps, self._data, self._order.rows(step, steps, self.most))


class Ahead:
    """Feed that reads the next chunks while the devices take the steps of this one.

    Args:
        read: fills an array [steps x seeds x batch, H, W, 3] with the images of `steps` steps from
            `step` on; called by one thread, in the order of steps after the first.
        shape: [N, H, W, 3] of all images as they are read.
        labels: [N] of all images.
        order: rows of each step.
        put: moves images and labels of steps to the devices.
        until: as in `feed`.
        ahead: chunks to read, and move to the devices, before they are asked for.
    """

    def __init__(
        self, read: Callable[[int, int, np.ndarray], object], shape: tuple[int, ...],
        labels: np.ndarray, order: Order, put: Put, until: Callable[[int], int], ahead: int = 1,
    ):  # fmt: skip
        self._read, self._labels, self._order = read, labels, order
        self._put, self._until, self._ahead = put, until, ahead
        self._shape = shape[1:]
        self.most = _steps_ahead(shape, order.batch_size * len(order.seeds))
        self._pool = ThreadPoolExecutor(1)
        self._coming: deque[tuple[int, int, Future[Chunk]]] = deque()  # with step and steps

    def take(self, step: int, steps: int) -> Chunk:
        """See `Feed`."""
        if not self._coming or self._coming[0][0] != step:
            self._coming.clear()
            self._submit(step, steps)
        last, taken, ready = self._coming.popleft()
        if self._coming:
            last, taken, _ = self._coming[-1]
        after = last + taken
        while len(self._coming) < self._ahead and (left := self._until(after) - after) > 0:
            self._submit(after, min(steps, left))
            after += min(steps, left)
        return ready.result()

    def _submit(self, step: int, steps: int) -> None:
        self._coming.append((step, steps, self._pool.submit(self._chunk, step, steps)))

    def _chunk(self, step: int, steps: int) -> Chunk:
        rows = self._order.rows(step, steps, self.most)
        # As long as the longest chunk, so that one compiled program takes them all.
        images = np.zeros((*rows.shape, *self._shape), np.uint8)
        self._read(step, steps, images[:steps].reshape(-1, *self._shape))
        return Chunk(steps, self._put(images, self._labels[rows]), rows)


def feed(
    data: Data, order: Order, put: Put, until: Callable[[int], int], crop: Crop | None = None,
    *, room: bool = True,
) -> Feed:  # fmt: skip
    """The feed of a data set: resident if its decoded images fit in memory.

    Images stream if not even the encoded ones fit.

    Args:
        data: the images and labels.
        order: rows of each step.
        put: moves a chunk's images and labels to the devices.
        until: maps a step to the last step at which a chunk that begins there may end.
        crop: random crop of images that stream; None decodes as the data do.
        room: True if decoded images fit in the memory of every device.
    """
    images = data.images
    if not isinstance(images, Encoded) and room:
        return Resident(data, order, put)
    if isinstance(images, Encoded) and images.streams:
        workers = stream.Workers(images, order, crop)
        return Ahead(workers.read, workers.shape, data.labels, order, put, until, ahead=2)

    def read(step: int, steps: int, out: np.ndarray) -> None:
        out[:] = images[order.rows(step, steps).ravel()]

    return Ahead(read, images.shape, data.labels, order, put, until)


def chunk_shape(
    shape: tuple[int, ...], batch_size: int, *, resident: bool
) -> tuple[tuple[int, ...], int]:
    """Shape of a chunk's labels on the devices, and the K of its rows, for one seed.

    Args:
        shape: [N, H, W, 3] of the images.
        batch_size: images a step.
        resident: True if all of them stay on the devices.
    """
    if resident:
        return shape[:1], STEPS
    steps = _steps_ahead(shape, batch_size)
    return (steps, 1, batch_size), steps


def _steps_ahead(shape: tuple[int, ...], batch: int) -> int:
    return max(1, min(STEPS, BYTES // (batch * math.prod(shape[1:]))))


def chunks(source: Feed, step: int, until: Callable[[int], int], pace: 'Pace') -> Iterator[Chunk]:
    """Yields all chunks from a step on, until `until` returns no later step."""
    while (left := until(step) - step) > 0:
        chunk = source.take(step, min(pace.steps, source.most, left))
        yield chunk
        step += chunk.steps


class Pace:
    """Number of steps of the next chunk, for it to last about so long; Ctrl-C may wait as long."""

    def __init__(self, seconds: float = 1.0):
        self.seconds, self.steps = seconds, 1

    def note(self, steps: int, took: float) -> None:
        """Adapts to a chunk of `steps` that took `took` seconds: doubles at most."""
        self.steps = max(1, min(2 * self.steps, int(self.seconds * steps / took)))
