"""Flags of declared fields and arguments: the only place that translates `ranges` for tyro."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

from tyro.conf import Suppress
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructTypeInfo,
)

from vitjax.base.ranges import Hidden, Range


def registry() -> ConstructorRegistry:
    """The constructors for `tyro.cli` that show the ranges of every dataclass's fields."""
    known, inside = ConstructorRegistry(), False

    @known.struct_rule
    def struct(info: StructTypeInfo) -> Any:
        nonlocal inside
        if inside:  # tyro's own rules then make the fields, which are translated here
            return None
        inside = True
        try:
            made = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(made, StructConstructorSpec):
            return made
        fields = [
            dataclasses.replace(each, type=flagged(each.type), helptext=_joined(each.helptext))
            for each in made.fields
        ]
        return dataclasses.replace(made, fields=tuple(fields))

    return known


def _joined(text: str | Callable[[], str | None] | None) -> Callable[[], str | None]:
    """A help text in one line: tyro keeps the breaks before lines that begin with no letter."""

    def join() -> str | None:
        found = text() if callable(text) else text
        return ' '.join(found.split()) if found else found

    return join


def flagged(kind: Any) -> Any:
    """A declared type as tyro shows and reads it: `int` from 1 to 8 as `INT[1,8]`."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return Annotated[str, _choice(inside)]
    if origin is Annotated:
        inner, *marks = inside
        marks = [_number(inner, mark) if isinstance(mark, Range) else mark for mark in marks]
        marks += [_choice((*mark.known,)) for mark in marks if hasattr(mark, 'known')]
        kind = Annotated[(flagged(inner), *marks)]
        return Suppress[kind] if any(isinstance(mark, Hidden) for mark in marks) else kind
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(flagged, inside))]  # noqa: UP007, of as many as there are
    return tuple[tuple(map(flagged, inside))] if origin is tuple else kind


_SHORT = {'bf16': 'bfloat16', 'fp16': 'float16', 'fp32': 'float32', 'fp64': 'float64'}


def _choice(names: tuple[str, ...]) -> Any:
    """A choice between names, in which dashes equal underscores; `fields.check` refuses others."""
    spelled = {name.replace('_', '-'): name for name in names}

    def read(texts: list[str]) -> str:
        return spelled.get(_SHORT.get(texts[0], texts[0]).replace('_', '-'), texts[0])

    return PrimitiveConstructorSpec(
        nargs=1, metavar=f'{{{",".join(names)}}}', instance_from_str=read,
        is_instance=lambda value: isinstance(value, str), str_from_instance=lambda value: [value],
    )  # fmt: skip


def _number(kind: Any, range: Range) -> Any:
    if kind not in (int, float):
        return range

    def read(texts: list[str]) -> Any:
        try:
            return kind(texts[0])
        except ValueError:
            return texts[0]  # `fields.check` refuses it, in the same words as in a file

    return PrimitiveConstructorSpec(
        nargs=1, metavar=kind.__name__.upper() + range.interval(), instance_from_str=read,
        is_instance=lambda value: isinstance(value, int | kind) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )  # fmt: skip
