"""patches: what the model is given."""

import numpy as np

from vitjax.figures import tokens as figures
from vitjax.layers.embed import patchify, unpatchify
from vitjax.views.seen import Drawing, Drawings, NotApplicable, Seen, View


def draw(seen: Seen, *, image: int = 1) -> Drawings:
    """The patches of an image, and the image rebuilt from them.

    Args:
        seen: any pass; only pixels are read.
        image: from 1 on.
    """
    size = seen.trunk.patch_size
    if size is None or 'patch' not in seen.params['embed']:
        raise NotApplicable(f'{seen.kind} has no patch embedding at embed/patch')
    one = seen.image(image)
    cut = patchify(seen.pictures[one : one + 1], size)  # type: ignore[arg-type]
    rebuilt = np.asarray(unpatchify(cut, seen.grid))
    pieces = np.asarray(cut[0]).reshape(-1, size, size, 3)
    figure = figures.patches(
        seen.pictures[one], pieces, rebuilt[0], columns=seen.grid[1], name=seen.names[one]
    )
    yield Drawing('patches', figure, {'patches': pieces, 'rebuilt': rebuilt})


VIEW = View('tokens', draw)
