"""positions: how alike position embeddings are."""

import dataclasses

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.layers.embed import sincos_positions
from vitjax.views.seen import Drawing, Drawings, NotApplicable, Seen, View


def draw(seen: Seen) -> Drawings:
    """The cosine of each place's position embedding with every other's.

    Args:
        seen: any pass; only parameters are read.
    """
    embed = seen.params.get('embed', {})
    fields = {field.name for field in dataclasses.fields(seen.model)}
    if 'position' in embed:
        table = embed['position']['table']
        prefix = len(table) - seen.grid[0] * seen.grid[1]
        changed = any(change.what == 'positions' for change in seen.loaded.changes)
        kind = 'learned, interpolated' if changed else 'learned'
    elif 'position' in fields and seen.model.position == 'sincos':
        table, prefix, kind = sincos_positions(seen.grid, seen.model.width), 0, 'sine-cosine'
    else:
        raise NotApplicable(f'{seen.kind} has no position embeddings')
    similar = np.asarray(tokens.position_similarity(table, prefix=prefix))
    rows, columns = seen.grid
    title = f'position embeddings ({kind}), {rows}x{columns} patches'
    figure = figures.positions(similar, grid=seen.grid, title=title)
    yield Drawing('positions', figure, {'similarity': similar})


VIEW = View('tokens', draw)
