"""Which example comes when: a pure function of the seed and the step, split over processes."""

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
        ValueError: if there are not as many.
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
        raise ValueError(
            f'batch_size must be at least 1 and at most the training images: {batch_size=}, '
            f'{count} images.'
        )
    return count // batch_size


@functools.lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order [count] in which an epoch shows its examples."""
    return np.random.default_rng((seed, epoch)).permutation(count).astype(np.int32)


def position(step: int, count: int, batch_size: int) -> tuple[int, int]:
    """The epoch and the batch within it that come at a step."""
    return divmod(step, steps_per_epoch(count, batch_size))


def batches(
    seed: int, start: int, steps: int, *, count: int, batch_size: int, repeats: int = 1,
    process: int = 0, processes: int = 1,
) -> np.ndarray:  # fmt: skip
    """Which examples each of `steps` steps from `start` on shows: [steps, batch / processes] int32.

    With `repeats` each example comes as many times in a row of the epoch's order, which has room
    for one in `repeats` of them then (repeated augmentation: Hoffer et al. 2020, arXiv:1901.09335).
    A batch has the first copies of its examples first: neighbours, which mixup pairs, differ.

    Process p takes the p-th contiguous slice of every batch, so the batches are the same on any
    number of processes.

    >>> batches(0, start=0, steps=2, count=6, batch_size=3).tolist()
    [[3, 2, 5], [4, 0, 1]]
    >>> batches(0, start=0, steps=1, count=6, batch_size=6, repeats=3).tolist()
    [[3, 2, 3, 2, 3, 2]]

    Raises:
        ValueError: if the batch is larger than the data or not a multiple of `processes`.
    """
    if batch_size % processes:
        raise ValueError(f'batch_size must be a multiple of {processes=}: {batch_size=}.')
    rows = []
    for step in range(start, start + steps):
        epoch, index = position(step, count, batch_size)
        places = np.arange(index * batch_size, (index + 1) * batch_size)
        places = np.concatenate([places[i::repeats] for i in range(repeats)])
        rows.append(order(seed, epoch, count)[places // repeats])
    each = batch_size // processes
    return np.stack(rows)[:, process * each : (process + 1) * each]


@dataclasses.dataclass(frozen=True)
class Order:
    """Which examples come when, as `batches` has it, for one or several seeds.

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
