"""Views of a model on images: one pass through it, and figures with their arrays.

To add a view, write a file that defines `VIEW`, and add its name to `_FILES`.
"""

import dataclasses
import difflib
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vitjax.base.console import Progress, silent
from vitjax.runs import Loaded
from vitjax.views.forward import Images, Results, forward_pass, kept_paths
from vitjax.views.view import Drawing, Drawings, NotApplicable, Options, Page, View

__all__ = [
    'GROUPS', 'VIEWS', 'Drawing', 'Drawings', 'NotApplicable', 'Options', 'Page', 'Results', 'View',
    'choose', 'draw', 'forward_pass', 'gigabytes', 'stream',
]  # fmt: skip

# Each is a file of this package; views are listed and drawn in this order.
_FILES = (
    'overview', 'heads', 'class_attention', 'rollout', 'distance', 'relevance', 'positions',
    'evolution', 'lens', 'rank', 'norms', 'pca', 'patches', 'activations', 'grad_cam', 'filters',
    'maximize', 'field', 'importance', 'explorer',
)  # fmt: skip
VIEWS: dict[str, View] = {
    name.replace('_', '-'): importlib.import_module(f'vitjax.views.{name}').VIEW for name in _FILES
}
GROUPS = tuple(dict.fromkeys(view.group for view in VIEWS.values()))


def draw(
    loaded: Loaded, images: Images, *names: str, report: Callable[[str], object] = print,
    progress: Progress = silent, **options: Any,
) -> Drawings:  # fmt: skip
    """Runs a model on images once, and draws views of the results.

    >>> import jax, numpy as np
    >>> from vitjax import views
    >>> from vitjax.data.preprocess import Preprocessing
    >>> from vitjax.experiment import Experiment
    >>> from vitjax.models import ViT
    >>> from vitjax.runs import Loaded
    >>> model = ViT(patch_size=4, width=8, depth=2, num_heads=2, num_classes=3)
    >>> params = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))['params']
    >>> loaded = Loaded(Experiment(model=model, preprocessing=Preprocessing(size=8)), params)
    >>> photo = np.zeros((30, 20, 3), np.uint8)
    >>> views.draw(loaded, {'dark': photo}, 'heads', layer=1)
    Drawing heads: names [1], maps [1, 2, 2, 2]
    Drawing heads_by_layer: names [1], maps [2, 2, 2, 2]
    Drawing heads_over_depth: names [1], maps [2, 1, 2, 2]

    Args:
        loaded: a model, as `vitjax.runs.load` opens it.
        images: files, or uint8 arrays [H, W, 3] of any size; or a dict of them by name, such as
            `{'test 17': data.images[17]}`.
        *names: views, groups of them (`attention`, `tokens`, `gradients`, `page`) or `all`.
        report: called with the reason for each view that does not apply to the model.
        progress: called before each view with the number of views done, of all, and its name.
        **options: fields of `Options`.

    Raises:
        ValueError: for an unknown view, option, path or class, an image that cannot be read, and
            if no view applies to the model.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    if unknown := [name for name in options if name not in known]:
        raise ValueError(f'no view has the option {unknown[0]!r}; there are {", ".join(known)}.')
    return Drawings(stream(loaded, images, choose(names), Options(**options), report, progress))


def stream(
    loaded: Loaded, images: Images, names: Sequence[str], options: Options,
    report: Callable[[str], object], progress: Progress,
) -> Iterator[Drawing]:  # fmt: skip
    """Yields the drawings of `draw` one after another, for chosen views."""
    keep, gradients = _reads(names)
    results = forward_pass(loaded, images, keep=keep, gradients=gradients, options=options)
    reasons, drawn = [], False
    for done, name in enumerate(names):
        progress(done, len(names), now=name)
        try:
            for drawing in VIEWS[name].draw(results):
                drawn = True
                yield drawing._replace(arrays={'names': np.array(results.names), **drawing.arrays})
        except NotApplicable as reason:
            reasons.append(f'{name}: skipped: {reason}')
    if not drawn:
        raise ValueError('\n'.join(reasons))
    for reason in reasons:
        report(reason)


def choose(names: Sequence[str]) -> list[str]:
    """Views of the given names, groups or `all`, in the registry's order.

    Raises:
        ValueError: for an unknown name, with close ones.
    """
    known = ('all', *GROUPS, *VIEWS)
    if not names:
        raise ValueError(f'nothing to draw: name views or groups: {", ".join(known)}.')
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f'close: {", ".join(close)}' if close else f'there are {", ".join(known)}'
            raise ValueError(f'no view is named {name!r}; {hint}.')
    return [name for name, view in VIEWS.items() if {name, view.group, 'all'} & set(names)]


def gigabytes(loaded: Loaded, count: int, *names: str, at: str | None = None) -> float:
    """Gigabytes of the arrays that views read for `count` images, gradients included."""
    keep, gradients = _reads(choose(names))
    shapes = kept_paths(loaded, count, keep=keep, at=at).values()
    return sum(map(math.prod, shapes)) * 4e-9 * (1 + gradients)


def _reads(names: Sequence[str]) -> tuple[list[str], bool]:
    """Patterns of paths that views read, and True if one of them reads gradients."""
    return [VIEWS[n].keep for n in names], any(VIEWS[n].gradients for n in names)
