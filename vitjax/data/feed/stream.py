"""Images beyond memory, read, cropped and decoded by grain's worker processes, or by threads.

An example depends on the run's seed, the step and its place in the global batch alone. So a stream
is the same to the bit for any number of workers and hosts, and from any step on. Workers are
spawned and start no device: grain imports jax, but they never call it.
"""

import multiprocessing
import os
import signal
import threading
import weakref
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vitjax.base.processes import cores
from vitjax.data.augment.crop import Crop, require_stream
from vitjax.data.order import Order
from vitjax.data.source import Encoded

PART = 32  # images that a worker process hands over at a time
SHORT = 16  # images that a thread makes at a time: at the end of a chunk it waits for the others
WORKERS = 64  # at most; a core of its own each
FEW = 4  # cores that threads keep busy: on two they decode 1.2 times what two processes hand over
PURPOSE = zlib.crc32(b'crop')


class Workers:
    """Reader of the images of one step after another.

    Args:
        images: images to read; `items` and `decode` must be picklable.
        order: rows of each step.
        crop: random crop of each file; None decodes as `images` do.
        count: worker processes; 0 uses threads of this one. None takes a process for each core, or
            threads if there are few.

    Attributes:
        shape: [N, H, W, 3] of all images as they are read.
        images_a_step: images that this process reads for a step.

    Raises:
        ValueError: without the extra `stream`.
    """

    def __init__(
        self, images: Encoded, order: Order, crop: Crop | None = None, *, count: int | None = None
    ):
        side = (crop.size, crop.size, 3) if crop else images.shape[1:]
        self.shape: tuple[int, ...] = (len(images), *side)
        self._count = (0 if cores() <= FEW else min(cores(), WORKERS)) if count is None else count
        require_stream('cv2', *(['grain'] if self._count else []))  # not by the first read
        self._parts = _Parts(images, order, crop, PART if self._count else SHORT)
        self.images_a_step = self._parts.images_a_step
        self._iterators: list[Any] = []  # of the worker processes, one at most
        self._next = -1  # its next step
        weakref.finalize(self, _end, self._iterators)

    def read(self, step: int, steps: int, out: np.ndarray) -> None:
        """Fills `out` [steps x seeds x batch / processes, H, W, 3] uint8, in the steps' order."""
        if not self._count:
            self._read_by_threads(step, steps, out)
            return
        if step != self._next:
            self.close()
            self._iterators.append(self._start(step))
        self._next = -1  # after an error in a part, the next read starts anew
        place = 0
        for _ in range(steps * self._parts.a_step):
            part = next(self._iterators[0])
            out[place : place + len(part)] = part
            place += len(part)
        self._next = step + steps

    def close(self) -> None:
        """Ends the worker processes."""
        _end(self._iterators)

    def _read_by_threads(self, step: int, steps: int, out: np.ndarray) -> None:
        """Reads straight into `out`; images from grain are copied twice."""

        def fill(number: int) -> None:
            at, part = divmod(number, self._parts.a_step)
            images = self._parts.images(step + at, part)
            for place, image in enumerate(images, at * self.images_a_step + part * SHORT):
                out[place] = image

        with ThreadPoolExecutor(cores()) as threads:
            list(threads.map(fill, range(steps * self._parts.a_step)))  # raises their errors

    def _start(self, step: int) -> Any:
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain reads absl's flags, which raise until parsed
            flags.FLAGS.mark_as_parsed()
        numbers = grain.MapDataset.range(step * self._parts.a_step, 2**62)
        # Two threads for each process: one reads as the other decodes.
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        parts = numbers.map(self._parts).to_iter_dataset(options)
        several = grain.MultiprocessingOptions(self._count, per_worker_buffer_size=2)
        return iter(parts.mp_prefetch(several, worker_init_fn=_begin))


def _end(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


class _Parts:
    """The stream cut into numbered parts of up to `size` images; pickled to the workers."""

    def __init__(self, images: Encoded, order: Order, crop: Crop | None, size: int):
        self._images, self._order, self._crop, self._size = images, order, crop, size
        self._batch = order.batch_size // order.processes
        self.images_a_step = self._batch * len(order.seeds)
        self.a_step = -(-self.images_a_step // size)

    def __call__(self, number: int) -> np.ndarray:
        return np.stack(list(self.images(*divmod(int(number), self.a_step))))

    def images(self, step: int, part: int) -> Iterator[np.ndarray]:
        """Yields the images of one part of a step, each uint8 [H, W, 3]."""
        order = self._order
        rows = order.rows(step, 1)[0]
        for i in range(self.images_a_step)[part * self._size : (part + 1) * self._size]:
            seed, place = divmod(i, self._batch)
            row = rows[seed, place]
            if self._crop is None:
                yield self._images.read(row)
                continue
            place += order.process * self._batch
            random = np.random.default_rng((order.seeds[seed], PURPOSE, step, place))
            yield self._crop(self._images.items[row], random)


def _begin(index: int, count: int) -> None:
    """Sets up a worker process: one thread of OpenCV, and an exit when its parent exits."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run handles it, and ends its workers
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
