"""What the model is given."""

from collections.abc import Iterator

import numpy as np

from vitjax.figures import tokens as token_figures
from vitjax.layers.embed import patchify, unpatchify
from vitjax.views.seen import NoMeaning, Result, Seen


def patches(seen: Seen) -> Iterator[Result]:
    """What the model is given: the patches of an image, and the image rebuilt from them."""
    if seen.kind not in ('ViT', 'CaiT'):
        raise NoMeaning(f'{seen.kind} reads pixels through convolutions, not patches')
    size = seen.model.patch_size
    cut = patchify(seen.pictures[:1], size)
    rebuilt = np.asarray(unpatchify(cut, seen.grid))
    pieces = np.asarray(cut[0]).reshape(-1, size, size, 3)
    figure = token_figures.patches(seen.pictures[0], pieces, rebuilt[0], columns=seen.grid[1])
    yield 'patches', figure, {'patches': pieces, 'rebuilt': rebuilt}
