"""What fields and arguments may hold, declared as their types: `depth: Extent`.

`fields.check` holds values against them, and `--help` shows them.
"""

import dataclasses
import math
import re
from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds; of a tuple, how many values it has.

    Attributes:
        low: the smallest.
        high: the largest.
        above: `low` itself is too small.
        below: `high` itself is too large.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range; NaN lies in none."""
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.low == -math.inf:
            return ''
        low = f'{"above" if self.above else "at least"} {self.low:,}'
        if self.high == math.inf:
            return low
        if self.above or self.below:
            return f'{low} and {"below" if self.below else "at most"} {self.high:,}'
        return f'from {self.low:,} to {self.high:,}'

    def interval(self) -> str:
        """The range as mathematics writes it."""
        if self.high == math.inf:
            return '' if self.low == -math.inf else f'{">" if self.above else ">="}{self.low}'
        return f'{"(" if self.above else "["}{self.low},{self.high}{")" if self.below else "]"}'


@dataclasses.dataclass(frozen=True)
class Number(PrimitiveConstructorSpec[Any]):
    """The range of a number, and how tyro reads it from a command line."""

    range: Range = Range()

    def holds(self, value: float) -> bool:
        """Whether it lies in the range."""
        return self.range.holds(value)

    def __str__(self) -> str:
        return str(self.range)


@dataclasses.dataclass(frozen=True)
class Matching:
    """Text that a regular expression matches as a whole.

    Attributes:
        pattern: the expression.
        rule: what it asks for, in words.
    """

    pattern: str
    rule: str

    def holds(self, value: str) -> bool:
        """Whether it matches."""
        return bool(re.fullmatch(self.pattern, value))

    def __str__(self) -> str:
        return self.rule


class Expression:
    """Text that is a regular expression."""

    def holds(self, value: str) -> bool:
        """Whether it compiles."""
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError):
            return False
        return True

    def __str__(self) -> str:
        return 'a regular expression'


def whole(low: float = -math.inf, high: float = math.inf) -> Number:
    """Whole numbers from `low` to `high`."""
    return _number(int, Range(low, high))


def number(
    low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Number:
    """Finite numbers from `low` to `high`, without these where they must be `above` and `below`."""
    return _number(float, Range(low, high, above, below))


def _number(kind: Any, range: Range) -> Number:
    def read(texts: list[str]) -> Any:
        try:
            return kind(texts[0])
        except ValueError:
            return texts[0]  # for `fields.check` to refuse, in the words that it has for a file

    return Number(
        nargs=1, metavar=kind.__name__.upper() + range.interval(), instance_from_str=read,
        is_instance=lambda value: isinstance(value, int | kind) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)], range=range,
    )  # fmt: skip


Count = Annotated[int, whole(1, 2**31 - 1)]  # XLA counts in 32 bits
Whole = Annotated[int, whole(0, 2**63 - 1)]
Steps = Count
Epochs = Annotated[float, number(0, 2**31 - 1, above=True)]
Seeds = Annotated[int, whole(1, 1024)]  # runs of one configuration
Seed = Annotated[int, whole(0, 2**32 - 1)]
Side = Annotated[int, whole(1, 16_384)]  # of an image, in pixels
Extent = Annotated[int, whole(1, 65_536)]  # of a model: width, depth, heads
Classes = Annotated[int, whole(0, 10_000_000)]
Ratio = Annotated[float, number(0, 1_000, above=True)]
Finite = Annotated[float, number()]
Positive = Annotated[float, number(0, above=True)]
Amount = Annotated[float, number(0)]
Share = Annotated[float, number(0, 1)]
Rate = Annotated[float, number(0, 1, below=True)]
Pattern = Annotated[str, Expression()]
Formats = Annotated[tuple[Literal['png', 'pdf', 'svg'], ...], Range(1)]  # of figures
