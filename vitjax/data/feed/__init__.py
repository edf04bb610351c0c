"""Rows of a data set to arrays on the devices, some steps at a time: resident, or read ahead.

A feed is asked for the steps from one on, and answers with a chunk of them. How many steps a chunk
has is the caller's to choose, up to where it has something else to do.
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

Put = Callable[[np.ndarray, np.ndarray], Any]  # images and labels to the devices


class Chunk(NamedTuple):
    """Some steps' examples.

    Attributes:
        steps: how many.
        data: images and labels, on the devices: all there are, [N, H, W, 3] and [N], or those of
            each step, [K, seeds, batch, H, W, 3] and [K, seeds, batch].
        rows: [K, seeds, batch], of which the first `steps` say which examples a step takes. K is
            the same for every chunk: one compiled program takes them all.
    """

    steps: int
    data: Any
    rows: np.ndarray


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
    """Images are read for the chunks to come while the devices take the steps of this one.

    Args:
        read: is called with a step, how many there are from there on, and an array for their
            images, [steps x seeds x batch, H, W, 3]. Steps are read in their order, but for the
            first, by one thread.
        shape: of all the images, [N, H, W, 3], as they are read.
        labels: of all.
        order: which come when.
        put: images and labels of steps to the devices.
        until: as `feed` takes it.
        ahead: how many chunks are read, and on the devices, before they are asked for.
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
        self._coming: deque[tuple[int, int, Future[Chunk]]] = deque()  # step, steps, what is read

    def take(self, step: int, steps: int) -> Chunk:
        """See `Feed`."""
        if not self._coming or self._coming[0][0] != step:
            self._coming.clear()
            self._submit(step, steps)
        _, taken, ready = self._coming.popleft()
        after = step + taken
        for first, of_chunk, _ in self._coming:
            after = first + of_chunk
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
    """The way to feed a data set: resident where its decoded images fit in memory.

    Where not even the encoded ones do, they stream.

    Args:
        data: the images and labels.
        order: which come when.
        put: a chunk's data, images and labels, to the devices.
        until: step to the step at which a chunk that begins there has to end, at most.
        crop: what workers make of images that stream; None is what the data decode to.
        room: whether memory has room for decoded images on every device.
    """
    images = data.images
    if not isinstance(images, Encoded) and room:
        return Resident(data, order, put)
    if isinstance(images, Encoded) and images.streams:
        workers = stream.Workers(images, order, crop)
        return Ahead(workers.read, workers.shape, data.labels, order, put, until, ahead=2)

    def read(step: int, steps: int, out: np.ndarray) -> None:
        out[:] = images[order.rows(step, steps, steps).ravel()]

    return Ahead(read, images.shape, data.labels, order, put, until)


def chunk_shape(
    shape: tuple[int, ...], batch_size: int, *, resident: bool
) -> tuple[tuple[int, ...], int]:
    """The shape of a chunk's labels on the devices, and the K of its rows, for one seed.

    Args:
        shape: of the images, [N, H, W, 3].
        batch_size: images a step.
        resident: whether all of them stay on the devices.
    """
    if resident:
        return shape[:1], STEPS
    steps = _steps_ahead(shape, batch_size)
    return (steps, 1, batch_size), steps


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
