"""positions: similarity of position embeddings."""

import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.layers.embed import sincos_positions
from vitjax.models import ViT
from vitjax.views.forward import Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """Cosine of each place's position embedding with every other's.

    Args:
        results: any results; only parameters are read.
    """
    model, embed = results.model, results.params.get('embed', {})
    if 'position' in embed:
        table = embed['position']['table']
        prefix = len(table) - results.grid[0] * results.grid[1]
        changed = any(change.what == 'positions' for change in results.loaded.changes)
        kind = 'learned, interpolated' if changed else 'learned'
    elif isinstance(model, ViT) and model.position == 'sincos':
        table, prefix, kind = sincos_positions(results.grid, model.width), 0, 'sine-cosine'
    else:
        raise NotApplicable(f'{results.kind} has no position embeddings')
    similar = np.asarray(tokens.position_similarity(table, prefix=prefix))
    rows, columns = results.grid
    title = f'position embeddings ({kind}), {rows}x{columns} patches'
    figure = figures.positions(similar, grid=results.grid, title=title)
    yield Drawing('positions', figure, {'similarity': similar})


VIEW = View('tokens', draw)
