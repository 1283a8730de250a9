"""The nearest of the names there are, for who mistyped one."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def did_you_mean(
    name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6, shown: Callable[[str], str] = str
) -> str:
    """`; did you mean 'x' or 'y'?`, or nothing where no name is near.

    Args:
        name: as it was typed.
        known: the names there are.
        most: so many are named.
        cutoff: how alike a name has to be, from 0 to 1: `difflib.SequenceMatcher.ratio`.
        shown: what is said of a name, where that is not the name itself.
    """
    near = get_close_matches(name, [*known], n=most, cutoff=cutoff)
    return f"; did you mean {' or '.join(repr(shown(one)) for one in near)}?" if near else ""
