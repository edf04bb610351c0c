"""Captured path: the name of an array inside a model, as a value with its parts."""

STACKS = ('blocks', 'class_blocks')  # arrays of their modules carry a leading depth axis
WEIGHTS = ('weights', 'mixed_weights', 'mixed_logits')  # arrays of attention, [..., queries, keys]


class Path(str):
    """Captured path, a string with parts: equal to the string, and hashed as it.

    >>> path = Path('blocks/attention/weights')
    >>> path.stack, path.name, path.is_attention
    ('blocks', 'weights', True)
    >>> Path('embed').stack is None
    True
    """

    __slots__ = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the modules, the outermost first, then that of the array."""
        return tuple(self.split('/'))

    @property
    def stack(self) -> str | None:
        """Name of the stack that contains the module; None outside of stacks."""
        return self.parts[0] if self.parts[0] in STACKS else None

    @property
    def name(self) -> str:
        """Last part."""
        return self.parts[-1]

    @property
    def is_attention(self) -> bool:
        """True for attention weights or logits, whose last two axes are queries and keys."""
        return self.name in WEIGHTS
