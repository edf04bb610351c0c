"""Views of a model on images: one pass through it, and figures with their arrays.

To add a view, write a file that defines `VIEW`, and add its name to `_FILES`.
"""

import difflib
import importlib
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitjax.runs import Loaded
from vitjax.views.forward import Results, forward_pass, kept_paths
from vitjax.views.view import Drawing, Drawings, NotApplicable, View

__all__ = [
    'GROUPS', 'VIEWS', 'Drawing', 'NotApplicable', 'Results', 'View', 'choose', 'draw',
    'forward_pass', 'gigabytes',
]  # fmt: skip

# Each is a file of this package; views are listed and drawn in this order.
_FILES = (
    'heads', 'class_attention', 'rollout', 'distance', 'relevance', 'positions', 'evolution',
    'lens', 'rank', 'norms', 'patches', 'activations', 'grad_cam', 'filters', 'maximize', 'field',
    'importance', 'explorer',
)  # fmt: skip
VIEWS: dict[str, View] = {
    name.replace('_', '-'): importlib.import_module(f'vitjax.views.{name}').VIEW for name in _FILES
}
GROUPS = tuple(dict.fromkeys(view.group for view in VIEWS.values()))


def draw(
    loaded: Loaded, images: Sequence[str | pathlib.Path | np.ndarray], *names: str,
    target: str | int | None = None, at: str | None = None, report: Callable[[str], object] = print,
    begin: Callable[[int, str], object] = lambda done, name: None, **options: Any,
) -> Drawings:  # fmt: skip
    """Runs a model on images once, and draws views of the results one after another.

    The pass runs when this is called; each view is drawn as the iterator reaches it.

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
    >>> for drawing in views.draw(loaded, [photo], 'heads', layer=1):
    ...     print(drawing.name, drawing.arrays['maps'].shape)
    heads (1, 2, 2, 2)
    heads_by_layer (2, 2, 2, 2)
    heads_over_depth (2, 1, 2, 2)

    Args:
        loaded: a model, as `vitjax.runs.load` opens it.
        images: files, or uint8 arrays [H, W, 3] of any size.
        *names: views, groups of them (`attention`, `tokens`, `gradients`, `page`) or `all`.
        target: class whose logit is differentiated, by name or number; by default each image's
            most likely.
        at: captured path for grad-cam, maximize and activations, such as `blocks/mlp/hidden` or
            `conv_3`.
        report: called with the reason for each view that does not apply to the model.
        begin: called before each view with the number of views done, and its name.
        **options: options of the views, named as their keyword arguments. Each view takes its own
            and ignores the others.

    Raises:
        ValueError: for an unknown view, option, path or class, an image that cannot be read, and
            if no view applies to the model.
    """
    chosen = choose(names)
    known = sorted({'at', 'target', *(name for view in VIEWS.values() for name in view.options)})
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f'no view has the option {unknown[0]!r}; there are {", ".join(known)}.')
    keep, gradients = _reads(chosen)
    results = forward_pass(loaded, images, keep=keep, at=at, gradients=gradients, target=target)
    return _drawings(results, chosen, {**options, 'at': at}, report, begin)


def _drawings(
    results: Results, names: list[str], options: dict[str, Any], report: Callable[[str], object],
    begin: Callable[[int, str], object],
) -> Drawings:  # fmt: skip
    reasons, drawn = [], False
    for done, name in enumerate(names):
        view = VIEWS[name]
        begin(done, name)
        own = {key: value for key, value in options.items() if key in view.options}
        try:
            for drawing in view.draw(results, **own):
                drawn = True
                yield drawing
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


def _reads(names: list[str]) -> tuple[list[str], bool]:
    """Patterns of paths that views read, and True if one of them reads gradients."""
    return [VIEWS[n].keep for n in names], any(VIEWS[n].gradients for n in names)
