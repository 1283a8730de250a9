"""Order and augmentation keys as pure functions of (seed, epoch, index), and a loader with no position of its own.

A stopped run continues bit for bit without anything of the data being stored: the loader asks where the run stands when
the first batch of a pass is wanted.  At `iter()` it would be too early: Lightning restores its counters only later.
"""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

ORDER, AUGMENT, BALANCE, MASK = 1, 2, 6, 7  # independent streams of keys, beside those of `scenes`
AGAIN = 2**40  # more than there are samples: keys of one that comes again stay apart
T = TypeVar("T")


def keys(seed: int, epoch: int, index: np.ndarray, stream: int) -> np.ndarray:
    """One 64-bit key per index (uint64), without collisions within an epoch."""
    state = np.zeros(1, dtype=np.uint64)
    for part in (stream, seed, epoch):
        state = _scramble(state ^ np.uint64(part % 2**64))
    return _scramble(state ^ index.astype(np.uint64))


def permutation(count: int, seed: int, epoch: int, stream: int = ORDER) -> np.ndarray:
    """The order of `count` samples in one epoch; our own arithmetic, so it is the same under every numpy release."""
    return np.argsort(keys(seed, epoch, np.arange(count), stream), kind="stable")


def balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Positions (n,) of one epoch in which all classes are equally frequent, to within one sample.

    As many as there are labels (n,): of a large class some, drawn anew each epoch, of a small one each as often as any
    other to within once.
    """
    order = permutation(len(labels), seed, epoch, BALANCE)
    members = [order[labels[order] == label] for label in np.unique(labels)]
    shares = (len(labels) + (np.arange(len(members)) + epoch) % len(members)) // len(members)
    return np.concatenate([np.resize(some, share) for some, share in zip(members, shares, strict=True)])


def _scramble(x: np.ndarray) -> np.ndarray:
    """SplitMix64, a bijection of 64-bit numbers.  Steele, Lea, Flood 2014."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Position(NamedTuple):
    """Where a run stands: the epoch, the batches of it already done, and this process among its peers."""

    epoch: int = 0
    batch: int = 0
    rank: int = 0
    world: int = 1


class Request(NamedTuple):
    """One batch to be made: positions in the source (b,) and their augmentation keys (b,)."""

    samples: np.ndarray
    keys: np.ndarray


@dataclass(frozen=True, eq=False)
class Plan:
    """Which samples each batch of a pass holds.

    With several processes each takes every world-th sample; where that does not come out even, the first samples are
    taken twice, so that all processes make equally many batches.  The last batch may be smaller; a single sample left
    over joins the batch before it, since batch normalisation cannot learn from one.

    Attributes:
        index: Positions in the source that take part.
        batch_size: Samples per batch and process.
        shuffle: A new order each epoch; otherwise as given.
        seed: Of order and augmentation.
        labels: Of the samples in `index`, to have all classes equally often (`balanced`); None takes each sample once.
    """

    index: np.ndarray
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    labels: np.ndarray | None = None

    def batches(self, world: int = 1) -> int:
        whole, left = divmod(self._share(world), self.batch_size)
        return whole + (left > (1 if whole and self.batch_size > 1 else 0))

    def requests(self, position: Position) -> Iterator[Request]:
        """From the position to the end of its epoch."""
        index, again = self._order(position.epoch)
        whole = self._share(position.world) * position.world
        mine = slice(position.rank, whole, position.world)
        index, again = np.resize(index, whole)[mine], np.resize(again, whole)[mine]
        count = self.batches(position.world)
        for batch in range(position.batch, count):
            start = batch * self.batch_size
            place = slice(start, start + self.batch_size if batch + 1 < count else None)
            part = index[place]
            yield Request(part, keys(self.seed, position.epoch, part + again[place] * AGAIN, AUGMENT))

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of an epoch, and how often each came before: its augmentation is another one each time."""
        order = np.arange(len(self.index))
        if self.labels is not None:
            order = balanced(self.labels, self.seed, epoch)
        if self.shuffle:
            order = order[permutation(len(order), self.seed, epoch)]
        by_sample = np.argsort(order, kind="stable")
        starts = np.searchsorted(order[by_sample], order[by_sample])
        again = np.empty_like(order)
        again[by_sample] = np.arange(len(order)) - starts
        return self.index[order], again

    def _share(self, world: int) -> int:
        return -(-len(self.index) // world)


class Loader(Generic[T]):
    """Batches of a data set in the order of a plan, from wherever the run stands.

    Not a `DataLoader`, so that Lightning puts no sampler of its own around the plan.

    Args:
        dataset: Makes one batch from one `Request`.
        plan: The order.
        position: Asked at the first `next()` of every pass.
        num_workers: Processes that make batches; 0 makes them in this one, with the same result.
        pin_memory: For copies to a CUDA device.

    Attributes:
        waited: Seconds spent so far until the next batch was there.
    """

    def __init__(
        self,
        dataset: Dataset[T],
        plan: Plan,
        position: Callable[[], Position],
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.plan = plan
        self.position = position
        self.waited = 0.0
        self._pass = _Pass()
        self._loader = DataLoader(
            dataset,
            sampler=self._pass,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_ctrl_c,
            generator=torch.Generator(),  # else every pass draws from the global one, which belongs to the model
        )

    def __len__(self) -> int:
        return self.plan.batches(self.position().world)

    def __iter__(self) -> Iterator[T]:
        self._pass.requests = self.plan.requests(self.position())  # a generator's body: runs at the first next()
        batches = iter(self._loader)
        while True:
            start = time.monotonic()
            try:
                batch = next(batches, None)
            except ValueError as error:  # a worker's comes with its traceback before it
                reason = str(error).rstrip().rpartition("\n")[2].removeprefix("ValueError: ")
                raise ValueError(reason) from error
            self.waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    @property
    def _iterator(self) -> object:
        """By this name Lightning finds, stops and drops the workers when a run ends or breaks off."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, stopped: None) -> None:
        self._loader._iterator = stopped

    def state_dict(self) -> dict:
        """Empty: the trainer's own counters say it all.  Its presence tells Lightning that the loader can resume."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """See `state_dict`."""


class _Pass:
    """The sampler of a `DataLoader` that outlives its passes, as persistent workers need."""

    requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def _leave_ctrl_c(worker: int) -> None:
    """To the parent, which may want further batches before it stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
