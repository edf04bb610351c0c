"""activations: some layers of the first image, patch by patch or channel by channel."""

import jax.numpy as jnp
import numpy as np

from vitjax.analysis import tokens
from vitjax.figures import tokens as figures
from vitjax.figures.panels import some
from vitjax.views.seen import MAPS, Drawing, Drawings, Seen, View


def draw(seen: Seen) -> Drawings:
    """Feature maps of four layers, or the patch tokens of three.

    Args:
        seen: with the trunk's tokens, or feature maps.
    """
    if maps := seen.feature_maps():
        paths = [list(maps)[i] for i in some(len(maps), 4)]
        grey = {path: np.asarray(tokens.channels(maps[path][0])) for path in paths}
        yield Drawing('activations', figures.channels(grey), grey)
        return
    blocks = seen.patches()[:, 0]
    layers = some(len(blocks), 3)
    blocks = blocks[jnp.array(layers)]
    # What all patches have in common would hide where they differ.
    spread = jnp.maximum(blocks.std(1, keepdims=True), tokens.TINY)
    standard = (blocks - blocks.mean(1, keepdims=True)) / spread
    tiles = np.asarray(tokens.tiles(standard, grid=seen.grid))
    titles = [f'layer {i + 1}, each channel standardised over patches' for i in layers]
    figure = figures.activations(seen.pictures[0], tiles, grid=seen.grid, titles=titles)
    yield Drawing('activations', figure, {'tiles': tiles})


VIEW = View('tokens', draw, f'blocks|{MAPS}')
