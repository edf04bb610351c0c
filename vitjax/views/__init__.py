"""The views that scripts/visualize.py draws: arrays of one pass through a model, to figures."""

import difflib
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import capture
from vitjax.data import images
from vitjax.experiment import Experiment
from vitjax.views.activations import activations
from vitjax.views.class_attention import class_attention
from vitjax.views.distance import distance
from vitjax.views.evolution import evolution, lens
from vitjax.views.field import field
from vitjax.views.filters import filters
from vitjax.views.grad_cam import grad_cam
from vitjax.views.heads import heads
from vitjax.views.importance import importance
from vitjax.views.maximize import maximize
from vitjax.views.norms import norms
from vitjax.views.patches import patches
from vitjax.views.positions import positions
from vitjax.views.rank import rank
from vitjax.views.rollout import relevance, rollout
from vitjax.views.seen import (
    CLASS_WEIGHTS,
    HIDDEN,
    MAPS,
    MIXED,
    WEIGHTS,
    NoMeaning,
    Options,
    Result,
    Seen,
)


class View(NamedTuple):
    """A view: its group, its function, which paths it reads, whether it reads gradients."""

    group: str
    draw: Callable[[Seen], Iterator[Result]]
    keep: str = ''
    gradients: bool = False


VIEWS = {
    'heads': View('attention', heads, f'{WEIGHTS}|{MIXED}'),
    'class-attention': View('attention', class_attention, CLASS_WEIGHTS),
    'rollout': View('attention', rollout, f'{WEIGHTS}|{CLASS_WEIGHTS}'),
    'distance': View('attention', distance, WEIGHTS),
    'relevance': View('attention', relevance, f'{WEIGHTS}|{CLASS_WEIGHTS}', True),
    'positions': View('tokens', positions),
    'evolution': View('tokens', evolution, 'blocks'),
    'lens': View('tokens', lens, 'blocks'),
    'rank': View('tokens', rank, f'blocks|{MAPS}'),
    'norms': View('tokens', norms, 'blocks'),
    'patches': View('tokens', patches),
    'activations': View('tokens', activations, f'blocks|{MAPS}'),
    'grad-cam': View('gradients', grad_cam, f'blocks|{MAPS}', True),
    'filters': View('gradients', filters, MAPS),
    'maximize': View('gradients', maximize, f'blocks|{HIDDEN}|{MAPS}'),
    'field': View('gradients', field, f'blocks|{MAPS}'),
    'importance': View('gradients', importance, f'blocks|{WEIGHTS}|{MIXED}', True),
}
GROUPS = ('attention', 'tokens', 'gradients')


def choose(what: tuple[str, ...]) -> list[str]:
    """Names of views, of groups or `all`, as views in the table's order.

    Raises:
        ValueError: for a name that is none of them, with what there is.
    """
    known = ('all', *GROUPS, *VIEWS)
    if not what:
        raise ValueError(f'say what to draw: {", ".join(known)}.')
    for name in what:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f'close: {", ".join(close)}' if close else f'there are {", ".join(known)}'
            raise ValueError(f'no view is named {name!r}; {hint}.')
    return [n for n, view in VIEWS.items() if {n, view.group, 'all'} & set(what)]


def gigabytes(
    experiment: Experiment, params: Any, count: int, names: list[str], at: str | None
) -> float:
    """What the arrays that views read take, for `count` images, gradients included."""
    shapes = _paths(experiment, params, count)
    elements = sum(math.prod(shapes[path]) for path in _kept(list(shapes), names, at))
    return elements * 4e-9 * (1 + _backward(names))


def look(
    experiment: Experiment, params: Any, photographs: tuple[str, ...], names: list[str],
    options: Options, resized: bool = False,
) -> Seen:  # fmt: skip
    """One pass through the model for all views, and one back if any of them reads gradients.

    Raises:
        ValueError: for a photograph that cannot be read, and for a path, class or patch that the
            model does not have.
    """
    prepared: Any = experiment.preprocessing  # pretrained.load fills it in
    pixels = images.squares(photographs, prepared)
    normalised: Any = images.normalise(pixels, prepared)
    known = list(_paths(experiment, params, len(pixels)))
    keep = '|'.join(map(re.escape, _kept(known, names, options.at)))
    target = _class_index(experiment, options.target)
    model: Any = experiment.model
    grads: dict[str, Any] = {}
    if _backward(names):
        goal = _goal(model.num_classes, target)
        logits, found, grads = capture.gradients(model, params, normalised, goal, keep=keep)
    else:
        logits, found = capture.capture(model, params, normalised, keep=keep)
    found, grads = jax.tree.map(lambda x: x.astype(jnp.float32), (found, grads))
    logits = np.asarray(logits)
    chosen = None
    if model.num_classes > 1:
        chosen = logits.argmax(1) if target is None else np.full(len(logits), target)
    return Seen(
        experiment, params, tuple(pathlib.Path(p).stem for p in photographs), pixels, normalised,
        logits, found, grads, chosen, options, resized,
    )  # fmt: skip


def _paths(experiment: Experiment, params: Any, count: int) -> dict[str, tuple[int, ...]]:
    prepared: Any = experiment.preprocessing
    blank: Any = np.broadcast_to(np.float32(0), (count, prepared.size, prepared.size, 3))
    return capture.paths(experiment.model, params, blank)


def _backward(names: list[str]) -> bool:
    return any(VIEWS[name].gradients for name in names)


def _kept(known: list[str], names: list[str], at: str | None) -> list[str]:
    """The paths that views read; any one if they read none, for the sake of the logits."""
    if at is not None and at not in known:
        close = difflib.get_close_matches(at, known, n=4) or known
        raise ValueError(
            f'--at must be a captured path: {at!r} is none; close: {", ".join(close)}.'
        )
    pattern = re.compile('|'.join(VIEWS[name].keep for name in names if VIEWS[name].keep) or '-')
    return [path for path in known if path == at or pattern.fullmatch(path)] or known[-1:]


def _class_index(experiment: Experiment, target: str | None) -> int | None:
    """The number of a class, by number or name."""
    count = experiment.model.num_classes  # type: ignore[attr-defined]
    if target is None:
        return None
    if count < 2:
        raise ValueError(f'--target {target}: the model has no classes to choose from.')
    if target.isdecimal() and int(target) < count:
        return int(target)
    names = [name.lower() for name in experiment.classes]
    found = [i for i, n in enumerate(names) if target.lower() in (n, *re.split(r',\s*', n))]
    if not found:
        close = difflib.get_close_matches(target.lower(), names, n=3)
        hint = f'; close: {"; ".join(close)}' if close else ''
        raise ValueError(f'--target must be a class or 0 to {count - 1}: {target!r}{hint}.')
    return found[0]


def _goal(num_classes: int, target: int | None) -> Callable[[jax.Array], jax.Array]:
    """What gradients are of: a class's logit, each image's largest, or the only one.

    Without classes, half the squared length of the features, whose gradient is the features.
    """
    if num_classes == 0:
        return lambda features: (features**2).sum() / 2
    if num_classes == 1:
        return lambda logits: logits.sum()
    if target is None:
        return lambda logits: logits.max(1).sum()
    return lambda logits: logits[:, target].sum()
