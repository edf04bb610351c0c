"""Rotary position embeddings on a grid of patches (Su et al. 2021, arXiv:2104.09864).

A pair of channels of a query or key is turned by an angle: a patch's column and row times the
pair's two frequencies. The score of two patches then depends on their distance alone.
"""

from typing import Literal, NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

Rope = Literal['dinov3', 'eva02', 'axial', 'mixed']


class _Kind(NamedTuple):
    """Coordinates, frequencies and layout of one published form.

    Attributes:
        base: ratio of the highest to the lowest frequency.
        unit: highest frequency, in radians per unit of the coordinates.
        halves: pairs are channels i and i + size/2; otherwise 2i and 2i + 1.
        rows_first: the first half of the pairs turns with rows; otherwise with columns.
    """

    base: float
    unit: float = 1.0
    halves: bool = False
    rows_first: bool = False


KINDS: dict[str, _Kind] = {
    # Siméoni et al. 2025, arXiv:2508.10104
    'dinov3': _Kind(100.0, unit=2 * np.pi, halves=True, rows_first=True),
    'eva02': _Kind(10_000.0, rows_first=True),  # Fang et al. 2023, arXiv:2303.11331
    'axial': _Kind(100.0),  # Heo et al. 2024, arXiv:2403.13298, eq. 8-9
    'mixed': _Kind(10.0),  # ... eq. 10: learned frequencies, which begin with these
}


def coordinates(kind: str, grid: tuple[int, int]) -> np.ndarray:
    """Column and row of each patch of a grid, [N, 2].

    `dinov3`: of centers, from -1 to 1 across the image. `eva02`: in units of the 16x16 patches that
    it was trained on, whatever the grid. Others: in patches.
    """
    axes = [np.arange(n, dtype=np.float64) for n in grid]
    if kind == 'dinov3':
        axes = [(2 * axis + 1) / len(axis) - 1 for axis in axes]
    elif kind == 'eva02':
        axes = [axis * 16 / len(axis) for axis in axes]
    rows, columns = np.meshgrid(*axes, indexing='ij')
    return np.stack([columns, rows], axis=-1).reshape(-1, 2)


def frequencies(kind: str, size: int) -> np.ndarray:
    """Radians per column and per row for each pair of channels of a head: [2, size / 2].

    Half of the pairs turns with rows alone, half with columns alone.

    Raises:
        ValueError: if `size` is no multiple of 4.
    """
    if size % 4:
        raise ValueError(f'rope={kind!r} needs heads of a multiple of 4 channels: {size} channels.')
    rule = KINDS[kind]
    falling = rule.unit * rule.base ** -(np.arange(size // 4) / (size // 4))
    first, second = np.kron(np.eye(2), falling)
    return np.stack([second, first] if rule.rows_first else [first, second])


def mixed_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Initial frequencies of `mixed`, [2, heads, size / 2]: axial, turned at random by head."""
    heads, pairs = shape[1:]
    columns, rows = frequencies('mixed', 2 * pairs)
    angle = jax.random.uniform(key, (heads, 1), maxval=2 * np.pi)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return jnp.stack([columns * cosine - rows * sine, columns * sine + rows * cosine])


def rotate(x: jax.Array, angles: jax.Array, *, prefix: int, halves: bool) -> jax.Array:
    """Turns pairs of channels of queries or keys [B, N, heads, size]; in float32 at least.

    Args:
        x: queries or keys; the first `prefix` tokens, which stand for no patch, stay as they are.
        angles: radians for each patch, [N - prefix, 1 or heads, size / 2].
        prefix: number of tokens before the patches.
        halves: pairs are channels i and i + size/2; otherwise 2i and 2i + 1.
    """
    pairs = '(p d)' if halves else '(d p)'
    first, second = einops.rearrange(x[:, prefix:], f'b n h {pairs} -> p b n h d', p=2)
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    turned = jnp.stack([first * cosine - second * sine, second * cosine + first * sine])
    turned = einops.rearrange(turned, f'p b n h d -> b n h {pairs}').astype(x.dtype)
    return jnp.concatenate([x[:, :prefix], turned], axis=1)
