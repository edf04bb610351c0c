"""The dense layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from vitjax.layers.backward import affine, product


def dot_general(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, *args: Any, **kwargs: Any
) -> jax.Array:
    """`product`, called as linen's dense layer calls lax's; lax's where another is asked for."""
    rows_times_matrix = ((x.ndim - 1,), (0,)), ((), ())
    asked = [value for value in (*args, *kwargs.values()) if value is not None]
    if dimension_numbers != rows_times_matrix or kernel.ndim != 2 or asked:
        return jax.lax.dot_general(x, kernel, dimension_numbers, *args, **kwargs)
    return product(x, kernel)


class _Dense(nn.Dense):
    """Linen's, and in thirds."""

    dot_general: Any = dot_general

    @nn.compact
    def thirds(self, x: jax.Array) -> list[jax.Array]:
        """The three equal parts of the output's channels, each a product of its own."""
        kernel: Any = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        bias = self.param('bias', self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        kernels = jnp.split(kernel, 3, axis=1)
        if bias is None:
            return [x @ kernel for kernel in kernels]
        return [affine(x, *pair) for pair in zip(kernels, jnp.split(bias, 3), strict=True)]


# The backward pass casts the kernel to the compute type again instead of keeping a copy. Where
# parameters are split over devices it also gathers each layer's again: kept, the copies would be
# the whole model on every device. A step of ViT-H/14 in bfloat16 with `fsdp`, compiled for eight
# absent H100s, 4 images each: 1.57 GB of temporaries a GPU, and 2.74 with the copies.
Dense: Any = nn.remat(_Dense, prevent_cse=False, methods=['__call__', 'thirds'])
