"""Rules for the values of fields and arguments, declared with their types: `depth: Extent`.

`fields.check` holds values against them, and `flags` shows them in `--help`.
"""

import dataclasses
import math
import re
from typing import Annotated, Any, Literal, Protocol, runtime_checkable


@runtime_checkable
class Rule(Protocol):
    """A condition on a value; its text completes the sentence "it must be ..."."""

    def holds(self, value: Any) -> bool:
        """Returns True if a value meets the condition."""
        ...


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds; of a tuple, its number of values.

    Attributes:
        low: smallest number.
        high: largest number.
        above: exclude `low` itself.
        below: exclude `high` itself.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Returns True if a number lies in the range; NaN lies in none."""
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
        """The range in mathematical notation."""
        if self.high == math.inf:
            return '' if self.low == -math.inf else f'{">" if self.above else ">="}{self.low}'
        return f'{"(" if self.above else "["}{self.low},{self.high}{")" if self.below else "]"}'


class Expression:
    """Text that is a regular expression."""

    def holds(self, value: str) -> bool:
        """Returns True if the text compiles."""
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError):
            return False
        return True

    def __str__(self) -> str:
        return 'a regular expression'


class Hidden:
    """Marks a field that no flag sets: `Annotated[str, Hidden()]`."""


Count = Annotated[int, Range(1, 2**31 - 1)]  # XLA counts in 32 bits
Whole = Annotated[int, Range(0, 2**63 - 1)]
Steps = Count
Epochs = Annotated[float, Range(0, 2**31 - 1, above=True)]
Seeds = Annotated[int, Range(1, 1024)]  # runs of one configuration
Seed = Annotated[int, Range(0, 2**32 - 1)]
Side = Annotated[int, Range(1, 16_384)]  # of an image, in pixels
Extent = Annotated[int, Range(1, 65_536)]  # of a model: width, depth, heads
Classes = Annotated[int, Range(0, 10_000_000)]
Ratio = Annotated[float, Range(0, 1_000, above=True)]
Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(0, above=True)]
Amount = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, below=True)]
Pattern = Annotated[str, Expression()]
Formats = Annotated[tuple[Literal['png', 'pdf', 'svg'], ...], Range(1)]  # of figures
