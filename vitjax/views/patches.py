"""patches: the image as the model receives it."""

import jax.numpy as jnp
import numpy as np

from vitjax.figures import tokens as figures
from vitjax.layers.embed import patchify, unpatchify
from vitjax.views.forward import Results
from vitjax.views.view import Drawing, Drawn, NotApplicable, View


def draw(results: Results) -> Drawn:
    """The patches of an image, and the image rebuilt from them.

    Args:
        results: any results; only pixels are read.
            Options: `image`.
    """
    size = results.trunk.patch_size
    if size is None or 'patch' not in results.params['embed']:
        raise NotApplicable(f'{results.kind} has no patch embedding at embed/patch')
    one = results.image()
    seen, name = jnp.asarray(results.pixels[one : one + 1] / 255), results.names[one]
    cut = patchify(seen, size)
    rebuilt = np.asarray(unpatchify(cut, results.grid))
    pieces = np.asarray(cut[0]).reshape(-1, size, size, 3)
    figure = figures.patches(
        np.asarray(seen[0]), pieces, rebuilt[0], columns=results.grid[1], name=name
    )
    arrays = {'patches': pieces, 'rebuilt': rebuilt, 'names': np.array([name])}
    yield Drawing('patches', figure, arrays)


VIEW = View('tokens', draw)
