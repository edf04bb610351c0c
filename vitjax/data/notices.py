"""Lines about data on stderr."""

import functools
import sys
from collections.abc import Sequence


@functools.cache
def tell(text: str) -> None:
    """Prints a line on stderr, once in a process."""
    print(text, file=sys.stderr)


def listed(names: Sequence[str]) -> str:
    """The first five names, for a message of one line."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:5]]
    more = [f'and {len(names) - 5:,} more'] if len(names) > 5 else []
    return ', '.join(shown + more)
