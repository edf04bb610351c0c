"""Named random streams from one seed, derived on demand and never stored.

A run folds, in this order, starting from `jax.random.key(seed)`:

    purpose init                                  initial parameters
    purpose train                                 the run's key, the same at every step
      step                                        the number of the training step
        purpose augment
          index                                   of an example in the global batch
            purpose flip, shift, turn, zoom, crop, area, contrast, brightness, policy, jitter
            purpose erase, cutout
            purpose which, share, box             of a pair, from the index of its first example
        purpose dropout
          device                                  under `pmap` alone, so that devices draw apart

A fresh head on pretrained weights starts from `jax.random.key(seed)` too, and folds in each
parameter's path as a purpose.

Draws on the host take NumPy's generator. An epoch's order of examples is seeded with (seed, epoch);
a streamed example's crop with (seed, CRC-32 of 'crop', step, its index in the global batch); the
cut of held-out splits with 0, the same for every run.
"""

import zlib

import jax


def purpose(key: jax.Array, name: str) -> jax.Array:
    """The key for one purpose, folded in by a checksum that is the same in every process.

    >>> key = jax.random.key(0)
    >>> jax.random.key_data(purpose(key, 'init')).tolist()
    [3020537540, 2946840664]
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
