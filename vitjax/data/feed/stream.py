"""Images beyond memory, read, cut out and decoded by grain's worker processes, or by threads.

What a worker makes of an example depends on the run's seed, the step and the example's place in the
global batch alone, so a stream is the same to the bit for any number of workers and hosts, and from
any step on. Workers are spawned and start no device: grain imports jax, which they never call.
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

from vitjax.data.augment.crop import ADVICE, Crop, require_opencv
from vitjax.data.order import Order
from vitjax.data.source import Encoded

PART = 32  # images that a worker process hands over at a time
SHORT = 16  # that a thread makes at a time: at the end of a chunk it waits for the others
WORKERS = 64  # at most; a core of its own each
FEW = 4  # cores that threads keep busy: on two they decode 1.2 times what two processes hand over
PURPOSE = zlib.crc32(b'crop')


class Workers:
    """The images of one step after another, from worker processes.

    Args:
        images: to read, whose items and decoding can be pickled.
        order: which come when.
        crop: what is made of each file; None is what `images` decode to.
        count: worker processes; 0 is threads of this one, None a process for each core, or threads
            where there are few.

    `shape` [N, H, W, 3] is that of all images as they are read, `images_a_step` how many there are
    of a step.

    Raises:
        ValueError: without the extra `stream`.
    """

    def __init__(
        self, images: Encoded, order: Order, crop: Crop | None = None, *, count: int | None = None
    ):
        side = (crop.size, crop.size, 3) if crop else images.shape[1:]
        self.shape: tuple[int, ...] = (len(images), *side)
        cores = _cores()
        self._count = (0 if cores <= FEW else min(cores, WORKERS)) if count is None else count
        require_opencv()
        if self._count:
            try:
                import grain  # noqa: F401 (refused here, not by the first read)
            except ImportError as error:
                raise ValueError(f'{ADVICE}: {error}.') from None
        self._parts = _Parts(images, order, crop, PART if self._count else SHORT)
        self.images_a_step = self._parts.images_a_step
        self._iterator: list[Any] = []  # the one there is
        self._next = -1  # the step that it comes to
        weakref.finalize(self, _end, self._iterator)

    def read(self, step: int, steps: int, out: np.ndarray) -> None:
        """Fills `out` [steps x seeds x batch / processes, H, W, 3] uint8, in the steps' order."""
        if not self._count:
            self._read_by_threads(step, steps, out)
            return
        if step != self._next:
            self.close()
            self._iterator.append(self._start(step))
        self._next = -1  # until all have come: what fails is not gone on with
        place = 0
        for _ in range(steps * self._parts.a_step):
            part = next(self._iterator[0])
            out[place : place + len(part)] = part
            place += len(part)
        self._next = step + steps

    def close(self) -> None:
        """Ends the worker processes."""
        _end(self._iterator)

    def _read_by_threads(self, step: int, steps: int, out: np.ndarray) -> None:
        """Straight into `out`, where what grain hands over has been copied twice."""

        def fill(number: int) -> None:
            at, part = divmod(number, self._parts.a_step)
            images = self._parts.images(step + at, part)
            for place, image in enumerate(images, at * self.images_a_step + part * SHORT):
                out[place] = image

        with ThreadPoolExecutor(_cores()) as threads:
            list(threads.map(fill, range(steps * self._parts.a_step)))  # which raises what they do

    def _start(self, step: int) -> Any:
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain asks for its flags, which has absl's parser raise
            flags.FLAGS.mark_as_parsed()
        first = step * self._parts.a_step
        numbers = grain.MapDataset.range(first, 2**62)
        # Of each process two threads: one reads as the other decodes.
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        parts = numbers.map(self._parts).to_iter_dataset(options)
        several = grain.MultiprocessingOptions(self._count, per_worker_buffer_size=2)
        return iter(parts.mp_prefetch(several, worker_init_fn=_begin))


def _end(iterators: list[Any]) -> None:
    while iterators:
        iterators.pop().close()


class _Parts:
    """Number to the part of the stream's images that has it: what goes to the workers."""

    def __init__(self, images: Encoded, order: Order, crop: Crop | None, size: int):
        self._images, self._order, self._crop, self._size = images, order, crop, size
        self._batch = order.batch_size // order.processes
        self.images_a_step = self._batch * len(order.seeds)
        self.a_step = -(-self.images_a_step // size)

    def __call__(self, number: int) -> np.ndarray:
        return np.stack(list(self.images(*divmod(int(number), self.a_step))))

    def images(self, step: int, part: int) -> Iterator[np.ndarray]:
        """Up to `size` images, each uint8 [H, W, 3]."""
        rows = self._order.rows(step, 1, 1)[0]
        for i in range(self.images_a_step)[part * self._size : (part + 1) * self._size]:
            yield self._image(step, *divmod(i, self._batch), rows)

    def _image(self, step: int, seed: int, place: int, rows: np.ndarray) -> np.ndarray:
        row = rows[seed, place]
        if self._crop is None:
            return self._images.read(row)
        place += self._order.process * self._batch
        random = np.random.default_rng((self._order.seeds[seed], PURPOSE, step, place))
        return self._crop(self._images.items[row], random)


def _begin(index: int, count: int) -> None:
    """Makes of a new process a worker: one thread of OpenCV, and an end with its parent's."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run is asked, and ends its workers
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
