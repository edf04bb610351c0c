"""Operations on a GPU. Convolutions and products are the vendor's."""

import functools

import jax

from vitjax.ops import attention
from vitjax.ops.gradients import layer_norm, recomputed

__all__ = ['attend', 'layer_norm', 'recomputed']


def choose(q: jax.Array, keys: int, *, talking: bool, dropout: bool) -> str:
    """The implementation that `auto` is, by length, width and dropout.

    cuDNN's kernel if it takes the heads. Otherwise `chunked` from 1,024 keys on, to bound memory.
    Below, talking heads without dropout run as `multi_query`: the gradient of CaiT-XXS24 in
    bfloat16 on 64 images of 224 pixels needs 2.0 GB of temporaries on an H100, by the compiler's
    estimate. `explicit` needs 4.3, and `chunked`, with 2.0, moves 1.4 times the bytes.
    """
    if not talking and not dropout and attention.has_kernel(q.shape[-1], q.dtype):
        return 'fused'
    if keys >= 1024:
        return 'chunked'
    return 'multi_query' if talking and not dropout else 'explicit'


attend = functools.partial(attention.attend, choose=choose, block=attention.rows)
