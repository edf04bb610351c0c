"""Target of gradients: a class, named by the user, and the scalar that is differentiated."""

import difflib
import re
from collections.abc import Callable

import jax

from vitjax.experiment import Experiment


def class_index(experiment: Experiment, target: str | int, what: str = 'target') -> int:
    """Index of a class, given as an index, a name or one of its names; errors name `what`.

    Raises:
        ValueError: if the model has no such class.
    """
    count = experiment.model.num_classes
    target = str(target)
    if count < 2:
        raise ValueError(f'{what} {target}: the model has no classes to choose from.')
    if target.isdecimal() and int(target) < count:
        return int(target)
    names = [name.lower() for name in experiment.classes]
    found = [i for i, n in enumerate(names) if target.lower() in (n, *re.split(r',\s*', n))]
    if not found:
        close = difflib.get_close_matches(target.lower(), names, n=3)
        hint = f'; close: {"; ".join(close)}' if close else ''
        raise ValueError(f'{what} must be a class or 0 to {count - 1}: {target!r}{hint}.')
    return found[0]


def goal(num_classes: int, index: int | None) -> Callable[[jax.Array], jax.Array]:
    """Target of gradients: a class's logit, each image's largest, or the only one.

    Without classes, half the squared length of the features, whose gradient is the features.
    """
    if num_classes == 0:
        return lambda features: (features**2).sum() / 2
    if num_classes == 1:
        return lambda logits: logits.sum()
    if index is None:
        return lambda logits: logits.max(1).sum()
    return lambda logits: logits[:, index].sum()
