"""How alike position embeddings are."""

from collections.abc import Iterator

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as token_figures
from vitjax.layers.embed import sincos_positions
from vitjax.views.seen import NoMeaning, Result, Seen


def positions(seen: Seen) -> Iterator[Result]:
    """How alike position embeddings are."""
    embed = seen.params.get('embed', {})
    if 'position' in embed:
        table = embed['position']['table']
        prefix = len(table) - seen.grid[0] * seen.grid[1]
        kind = 'learned, interpolated' if seen.resized else 'learned'
    elif getattr(seen.model, 'position', None) == 'sincos':
        table, prefix, kind = sincos_positions(seen.grid, seen.model.width), 0, 'sine-cosine'
    else:
        raise NoMeaning(f'{seen.kind} has no position embeddings')
    similar = np.asarray(tokens.position_similarity(table, prefix=prefix))
    rows, columns = seen.grid
    title = f'position embeddings ({kind}), {rows}x{columns} patches'
    yield 'positions', token_figures.positions(similar, grid=seen.grid, title=title), {
        'similarity': similar
    }  # fmt: skip
