"""Order of examples: a pure function of the seed and the step, split over processes."""

import dataclasses
import functools

import numpy as np


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` rows of `count`, increasing and evenly spread, with the first and the last.

    Every command takes its examples by this rule, so that two commands take the same.

    >>> evenly(10, 4).tolist(), evenly(3, 4).tolist(), evenly(10, 1).tolist()
    ([0, 3, 6, 9], [0, 1, 2], [0])
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def exactly(count: int, wanted: int) -> np.ndarray:
    """The rows of `evenly`, as many as a user asks for.

    Raises:
        ValueError: if there are fewer.
    """
    if not 1 <= wanted <= count:
        raise ValueError(f'examples must be from 1 to {count:,}, the images there are: {wanted:,}.')
    return evenly(count, wanted)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Full batches in an epoch; the examples left over are skipped until the next shuffle.

    Raises:
        ValueError: if the batch is larger than the data.
    """
    if not 0 < batch_size <= count:
        rule = 'batch_size must be at least 1 and at most the training images'
        raise ValueError(f'{rule}: {batch_size=}, {count} images.')
    return count // batch_size


@functools.lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order [count] in which an epoch shows its examples."""
    return np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Order:
    """Examples of each step, for one or several seeds.

    With `repeats` each example comes that often in a row of the epoch's order, so that an epoch
    shows one in `repeats` of them (repeated augmentation: Hoffer et al. 2020, arXiv:1901.09335).
    A batch has the first copies of its examples first: neighbours, which mixup pairs, differ.

    Process p takes the p-th contiguous slice of every batch, so the batches are the same on any
    number of processes.

    >>> Order(seeds=(0,), count=6, batch_size=3).rows(0, steps=2).tolist()
    [[[3, 2, 5]], [[4, 0, 1]]]
    >>> Order(seeds=(0,), count=6, batch_size=6, repeats=3).rows(0, steps=1).tolist()
    [[[3, 2, 3, 2, 3, 2]]]

    Attributes:
        seeds: seeds, each with its own order.
        count: number of examples.
        batch_size: examples a step, over all processes.
        process: index of this process's slice.
        processes: number of slices.
        repeats: copies of each example in a batch.
    """

    seeds: tuple[int, ...]
    count: int
    batch_size: int
    process: int = 0
    processes: int = 1
    repeats: int = 1

    def rows(self, step: int, steps: int, length: int | None = None) -> np.ndarray:
        """Rows [length, seeds, batch / processes] int32 of `steps` steps from `step` on.

        Args:
            step: the first step.
            steps: number of steps.
            length: steps to return, zeros after the last; None returns `steps`.

        Raises:
            ValueError: if the batch is larger than the data or not a multiple of `processes`.
        """
        size, processes = self.batch_size, self.processes
        if size % processes:
            raise ValueError(f'batch_size must be a multiple of {processes=}: batch_size={size}.')
        full, each = steps_per_epoch(self.count, size), size // processes
        own = slice(self.process * each, (self.process + 1) * each)
        copies = np.concatenate([np.arange(size)[i :: self.repeats] for i in range(self.repeats)])
        out = np.zeros((length or steps, len(self.seeds), each), np.int32)
        for i in range(steps):
            epoch, batch = divmod(step + i, full)
            places = (batch * size + copies[own]) // self.repeats
            for j, seed in enumerate(self.seeds):
                out[i, j] = order(seed, epoch, self.count)[places]
        return out
