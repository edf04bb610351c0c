"""Dotted fields of nested frozen dataclasses, linen modules among them: `model.depth`."""

import dataclasses
import difflib
import functools
from typing import Any

_LINEN = {'parent', 'name'}  # what linen adds to the fields of every module


def names(tree: Any) -> list[str]:
    """The fields of a dataclass that are the user's to set; of anything else none."""
    fields = dataclasses.fields(tree) if dataclasses.is_dataclass(tree) else ()
    known = [field.name for field in fields]
    return [name for name in known if name not in _LINEN] if _LINEN <= {*known} else known


def get(tree: Any, path: str) -> Any:
    """The value of a dotted field.

    Raises:
        ValueError: for a field that does not exist, with the close ones.

    Example:
        >>> from vitjax.models import ViT
        >>> from vitjax.experiment import Experiment
        >>> get(Experiment(ViT(depth=3)), 'model.depth')
        3
    """
    return functools.reduce(lambda inner, name: _get(inner, path, name), path.split('.'), tree)


def replace(tree: Any, path: str, value: Any) -> Any:
    """A copy of `tree` with one dotted field replaced.

    Raises:
        ValueError: for a field that does not exist, with the close ones.
    """
    get(tree, path)  # an unknown field is named by its whole path
    first, _, rest = path.partition('.')
    inner = replace(getattr(tree, first), rest, value) if rest else value
    return dataclasses.replace(tree, **{first: inner})


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where two nested dicts differ, by dotted name: `['model.depth: 6 -> 8']`."""
    a, b = _leaves(old), _leaves(new)
    return [
        f'{name}: {a.get(name)} -> {b.get(name)}'
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]


def _get(tree: Any, path: str, name: str) -> Any:
    known = names(tree)
    if name not in known:
        inside = [f'{n}.{name}' for n in known if name in names(getattr(tree, n))]
        close = inside or difflib.get_close_matches(name, known, n=3) or known
        raise ValueError(f'no field {path!r}; there are {", ".join(close) or "none"}.')
    return getattr(tree, name)


def _leaves(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix + name
        out |= _leaves(value, f'{path}.') if isinstance(value, dict) else {path: value}
    return out
