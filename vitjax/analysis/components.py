"""Principal components of tokens."""

import jax
import jax.numpy as jnp

from vitjax.analysis.tokens import TINY


def components(tokens: jax.Array, count: int = 3) -> tuple[jax.Array, jax.Array]:
    """Tokens in the basis of their first principal components, and the variance of each.

    DINOv2 (Oquab et al. 2023, arXiv:2304.07193, figure 1) shows the first three of the patches of
    several images as colors: parts that mean the same get the same color in every image. There
    the background is removed first; here it is not.

    A component's sign is that which makes its largest projection positive.

    Args:
        tokens: [B, N, D]; the components are those of all B * N tokens together.
        count: number of components.

    Returns:
        projections [B, N, count], and the fractions of all variance [count], falling. Those that
        the tokens do not have are zero.
    """
    rows = tokens.reshape(-1, tokens.shape[-1])
    rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    left, values, _ = jnp.linalg.svd(rows - rows.mean(0), full_matrices=False)
    largest = jnp.take_along_axis(left, jnp.abs(left).argmax(0)[None], 0)
    projected = (left * values * jnp.sign(largest))[:, :count]
    fractions = (values**2 / jnp.maximum((values**2).sum(), TINY))[:count]
    missing = count - projected.shape[1]
    projected = jnp.pad(projected, ((0, 0), (0, missing)))
    return projected.reshape(*tokens.shape[:2], count), jnp.pad(fractions, (0, missing))
