"""Dotted fields of nested frozen dataclasses, linen modules included: `model.depth`.

They are read, replaced and compared by path, and checked against their declared types.
"""

import dataclasses
import difflib
import functools
import itertools
import sys
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from vitjax.base.ranges import Range, Rule

_LINEN = {'parent', 'name'}  # which linen adds to every module
_KINDS: dict[Any, str] = {
    bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
    dict: 'an object with named fields',
}  # fmt: skip


@functools.cache
def declared(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that users may set, with their declared types."""
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    if any(isinstance(type, str) for type in types.values()):
        types |= typing.get_type_hints(kind, include_extras=True)
    hidden = _LINEN if types.keys() >= _LINEN else set()
    return {name: type for name, type in types.items() if name not in hidden}


def names(tree: Any) -> list[str]:
    """The fields of a dataclass that users may set; none of anything else."""
    return [*declared(type(tree))] if _has_fields(tree) else []


@functools.cache
def reals(kind: Any) -> list[str]:
    """The fields of a dataclass that are declared as `float`."""
    return [name for name, each in declared(kind).items() if _parts(each)[0] is float]


# ---- Held against what is declared -------------------------------------------------------------


def require(tree: Any, path: str = '') -> None:
    """Checks every field of a dataclass, and of those inside it.

    Raises:
        ValueError: as `check`, for the first field that is wrong.
    """
    for name, kind in declared(type(tree)).items():
        check(getattr(tree, name), kind, _join(path, name))


def check(value: Any, kind: Any, path: str) -> None:
    """Checks a value, and all values inside it, against a declared type and its rules.

    A whole number is a number; true and false are not. No number is infinite or NaN.

    >>> from vitjax.base.ranges import Extent
    >>> check((4, 8), tuple[Extent, ...], 'widths')
    >>> check((4, 0), tuple[Extent, ...], 'widths')
    Traceback (most recent call last):
    ValueError: widths.1 must be a whole number, from 1 to 65,536: 0.

    Raises:
        ValueError: naming the path, the rule and the value, in one line.
    """
    kind, rules, optional = _parts(kind)
    if value is None and optional:
        return
    if _has_fields(kind):
        if not isinstance(value, kind):
            raise _wrong(path, f'a {kind.__name__}', value)
        require(value, path)
    elif typing.get_origin(kind) is tuple:
        _check_tuple(value, kind, rules, path)
    elif typing.get_origin(kind) is Literal:
        *rest, last = typing.get_args(kind)
        if not isinstance(value, str) or value not in (*rest, last):
            raise _wrong(path, f'{", ".join(map(repr, rest))} or {last!r}', value)
    else:
        fits = isinstance(value, int | float if kind is float else kind)
        fits = fits and isinstance(value, bool) == (kind is bool)
        fits = fits and (kind is not float or _finite(value))
        if fits and isinstance(value, str) and '\0' in value:  # which no path can have
            raise _wrong(path, 'text without NUL', value)
        if not (fits and all(rule.holds(value) for rule in rules)):
            raise _wrong(path, ', '.join(filter(None, [_KINDS[kind], *map(str, rules)])), value)


def _finite(value: Any) -> bool:
    return abs(value) <= sys.float_info.max  # NaN is not; a whole number may be beyond it


def _check_tuple(value: Any, kind: Any, rules: Sequence[Rule], path: str) -> None:
    inside = typing.get_args(kind)
    if inside[-1] is Ellipsis:
        length = 'values' + ''.join(f', {rule} of them' for rule in rules)
        inside = itertools.repeat(inside[0])
    else:
        length, rules = f'{len(inside)} values', [Range(len(inside), len(inside))]
    if not isinstance(value, tuple) or not all(rule.holds(len(value)) for rule in rules):
        if value == ():
            raise ValueError(f'{path} must be a list of {length}: it has none.')
        raise _wrong(path, f'a list of {length}', value)
    for i, (item, each) in enumerate(zip(value, inside, strict=False)):
        check(item, each, f'{path}.{i}')


def make(kind: Any, values: Any, path: str = '') -> Any:
    """Makes a dataclass, with those inside it, from JSON values; `require` checks it.

    Raises:
        ValueError: if a field does not exist, or a value without fields stands for a dataclass.
    """
    kind, _, optional = _parts(kind)
    if isinstance(values, list) and typing.get_origin(kind) is tuple:
        return tuple(values)
    if not _has_fields(kind) or _has_fields(values) or (values is None and optional):
        return values
    check(values, dict, path)
    known, inside = declared(kind), {}
    for name, value in typing.cast(dict[str, Any], values).items():
        if name not in known:
            raise _unknown(_join(path, name), [*known], [_join(path, each) for each in known])
        inside[name] = make(known[name], value, _join(path, name))
    return kind(**inside)


def _has_fields(value: Any) -> bool:
    return dataclasses.is_dataclass(value)


def _parts(kind: Any) -> tuple[Any, list[Rule], bool]:
    """A declared type without annotations, its rules, and True if it may be None."""
    rules: list[Rule] = []
    optional = False
    while True:
        origin, inside = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            kind, *metadata = inside
            rules += [each for each in metadata if isinstance(each, Rule)]
        elif origin in (typing.Union, types.UnionType):
            (kind,) = (each for each in inside if each is not types.NoneType)
            optional = True
        else:
            return kind, rules, optional


def _wrong(path: str, rule: str, value: Any) -> ValueError:
    huge = isinstance(value, int) and value.bit_length() > 1000  # Python prints no 4,301 digits
    text = f'a number of {value.bit_length():,} bits' if huge else repr(value)
    return ValueError(f'{path} must be {rule}: {text if len(text) < 80 else text[:76] + " ..."}.')


def _join(path: str, name: str) -> str:
    return f'{path}.{name}' if path else name


# ---- By path -----------------------------------------------------------------------------------


def get(tree: Any, path: str) -> Any:
    """The value of a dotted field.

    Raises:
        ValueError: if the field does not exist, with similar ones.

    Example:
        >>> from vitjax.models import ViT
        >>> from vitjax.experiment import Experiment
        >>> get(Experiment(ViT(depth=3)), 'model.depth')
        3
    """
    value = tree
    for name in path.split('.'):
        if name not in (there := names(value)):
            raise _unknown(path, there, paths(tree))
        value = getattr(value, name)
    return value


def replace(tree: Any, path: str, value: Any) -> Any:
    """A copy of `tree` with one dotted field replaced.

    Raises:
        ValueError: if the field does not exist, with similar ones.
    """
    get(tree, path)  # names an unknown field by its whole path
    parent, _, name = path.rpartition('.')
    if not parent:
        return dataclasses.replace(tree, **{name: value})
    return replace(tree, parent, dataclasses.replace(get(tree, parent), **{name: value}))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Differences of two nested dicts by dotted name: `['model.depth: 6 -> 8']`."""
    a, b = leaves(old), leaves(new)
    pairs = {name: (a.get(name), b.get(name)) for name in sorted({*a, *b})}
    return [f'{name}: {x} -> {y}' for name, (x, y) in pairs.items() if x != y]


def paths(tree: Any, at: str = '') -> list[str]:
    """Dotted paths of the fields of a dataclass and of those inside it."""
    found = []
    for name in names(tree):
        found += [_join(at, name), *paths(getattr(tree, name), _join(at, name))]
    return found


# Other programs' names of fields and flags, by the last part of the path.
_FOREIGN = {
    'optim.peak': 'lr learning_rate base_lr max_lr', 'optim.decay': 'wd weight_decay',
    'optim.name': 'opt optimizer', 'optim.clip': 'clip_grad grad_clip max_grad_norm',
    'batch_size': 'bs batch', 'epochs': 'num_epochs max_epochs', 'steps': 'num_steps max_steps',
    'parallel': 'gpus num_gpus devices', 'weights': 'pretrained checkpoint',
    'data.name': 'dataset data_path', 'data': 'dataset data_path', 'out': 'output output_dir',
    'augment.size': 'image_size img_size', 'image_size': 'size img_size',
    'size': 'image_size img_size', 'augment.smoothing': 'label_smoothing',
    'model.dtype': 'amp precision fp16 bf16', 'model.depth': 'layers num_layers',
    'model.num_heads': 'heads', 'model.width': 'dim embed_dim hidden_size',
}  # fmt: skip


def close(path: str, known: Sequence[str]) -> list[str]:
    """Known paths that a mistyped or foreign one may mean: at most three, the likeliest first.

    >>> close('lr', ['optim.peak', 'optim.decay', 'model.depth'])
    ['optim.peak']
    >>> close('dept', ['optim.peak', 'optim.decay', 'model.depth'])
    ['model.depth']
    """
    last = path.rpartition('.')[2]
    by_last = {each.rpartition('.')[2]: each for each in known}
    found = [each for each in known if last in _FOREIGN.get(each, '').split()]
    found += [each for each in known if each.rpartition('.')[2] == last]
    if not found:
        found = difflib.get_close_matches(path, known, n=3, cutoff=0.8)
        found += [by_last[each] for each in difflib.get_close_matches(last, by_last, n=3)]
    return [*dict.fromkeys(found)][:3]


def _unknown(path: str, here: Sequence[str], known: Sequence[str]) -> ValueError:
    there = ', '.join(close(path, known) or here) or 'none'
    return ValueError(f'no field {path!r}; there are {there}.')


def leaves(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """The values of nested dicts by dotted name: `{'model.depth': 6}`."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix + name
        out |= leaves(value, f'{path}.') if isinstance(value, dict) else {path: value}
    return out
