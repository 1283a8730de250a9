"""Work for a pool, handed out some at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 4096  # calls that wait in a pool: `Executor.map` would submit all, 2 KB for each of a million files


def ahead(pool: Executor, call: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """What each call gives, in the order of the items."""
    for start in range(0, len(items), AHEAD):
        yield from pool.map(call, items[start : start + AHEAD])
