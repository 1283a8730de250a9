"""Order and keys: pure functions, and a loader that starts anywhere with any number of workers."""

import os
import signal
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from vit.data.order import AUGMENT, ORDER, Loader, Plan, Position, Request, balanced, keys, permutation


class Echo(Dataset):
    """Returns what it was asked for."""

    def __getitem__(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(request.samples), torch.from_numpy(request.keys.view(np.int64))


def stream(position: Position, workers: int, plan: Plan) -> tuple[list[list[int]], list[int]]:
    batches = list(Loader(Echo(), plan, lambda: position, workers))
    return [samples.tolist() for samples, _ in batches], [key for _, part in batches for key in part.tolist()]


def test_permutation_is_pure_and_differs_by_epoch_and_seed():
    first = permutation(101, seed=3, epoch=5)
    assert np.array_equal(first, permutation(101, seed=3, epoch=5))
    assert np.array_equal(np.sort(first), np.arange(101))
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert not np.array_equal(first, permutation(101, seed, epoch))


def test_permutation_is_fixed_for_good():
    """Checkpoints outlive releases: these numbers must never change."""
    assert permutation(8, seed=0, epoch=0).tolist() == [3, 1, 6, 2, 4, 7, 0, 5]


def test_permutation_is_uniform():
    first = np.array([permutation(5, seed=0, epoch=epoch)[0] for epoch in range(5000)])
    chi2 = ((np.bincount(first, minlength=5) - 1000) ** 2 / 1000).sum()
    assert chi2 < 18.5  # 4 degrees of freedom, p = 0.001


def test_keys_do_not_collide():
    index = np.arange(1000)
    drawn = [keys(seed, epoch, index, s) for seed in (0, 1, 2**40, -1) for epoch in range(5) for s in (ORDER, AUGMENT)]
    assert len(np.unique(np.concatenate(drawn))) == 40 * 1000


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(11, 5, [5, 6]), (12, 5, [5, 5, 2]), (10, 5, [5, 5]), (1, 5, [1]), (3, 1, [1, 1, 1]), (6, 5, [6])],
)
def test_a_single_sample_left_over_joins_the_batch_before(count: int, batch_size: int, sizes: list[int]):
    plan = Plan(np.arange(count), batch_size, shuffle=True)
    parts = [request.samples for request in plan.requests(Position())]
    assert [len(part) for part in parts] == sizes and plan.batches() == len(sizes)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert [len(request.samples) for request in plan.requests(Position(batch=1))] == sizes[1:]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_samples_and_keys_are_the_same_with_any_number_of_workers_from_any_start(workers: int):
    plan = Plan(np.arange(100, 123), batch_size=5, shuffle=True, seed=7)
    samples, whole = stream(Position(epoch=2), 0, plan)
    assert sorted(chain(*samples)) == list(range(100, 123)) and [len(s) for s in samples] == [5, 5, 5, 5, 3]
    assert len(set(whole)) == 23
    for start in (0, 1, 4, 5):
        assert stream(Position(epoch=2, batch=start), workers, plan) == (samples[start:], whole[5 * start :])


@pytest.mark.parametrize("workers", [0, 2])
def test_position_is_asked_at_the_first_next_of_each_pass(workers: int):
    asked = []
    plan = Plan(np.arange(12), batch_size=4, shuffle=True)

    def position() -> Position:
        asked.append(len(asked))
        return Position(epoch=len(asked))

    loader = Loader(Echo(), plan, position, workers)
    batches = iter(loader)
    assert asked == []
    next(batches)  # abandoned, as Lightning does on a limit
    assert asked == [0]
    second = [samples.tolist() for samples, _ in loader]
    assert asked == [0, 1] and second == stream(Position(epoch=2), 0, plan)[0]


def test_workers_leave_ctrl_c_to_their_parent():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by tests in the background
    try:
        loader = Loader(Echo(), Plan(np.arange(24), batch_size=2, shuffle=True), Position, 2)
        batches = iter(loader)
        seen = [next(batches), next(batches)]
        for worker in loader._loader._iterator._workers:
            os.kill(worker.pid, signal.SIGINT)
        assert len(seen + list(batches)) == 12
    finally:
        signal.signal(signal.SIGINT, before)


def test_processes_share_an_epoch_evenly():
    plan = Plan(np.arange(23), batch_size=5, shuffle=True, seed=1)
    parts = [list(chain(*stream(Position(1, rank=rank, world=3), 0, plan)[0])) for rank in range(3)]
    assert [len(part) for part in parts] == [8, 8, 8] and set(chain(*parts)) == set(range(23))
    assert len(Loader(Echo(), plan, lambda: Position(world=3))) == plan.batches(3) == 2


def test_a_pass_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    stream(Position(), 0, Plan(np.arange(5), batch_size=2, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())


LABELS = np.repeat([0, 1, 2], [90, 9, 4])


def test_a_balanced_epoch_has_all_classes_equally_often():
    for epoch in range(4):
        order = balanced(LABELS, 3, epoch)
        counts = np.bincount(LABELS[order])
        assert len(order) == 103 and counts.max() - counts.min() <= 1
        for label in (0, 1, 2):
            times = np.bincount(order, minlength=103)[label == LABELS]
            assert times.max() - times.min() <= 1
    seen = {*np.concatenate([balanced(LABELS, 3, epoch) for epoch in range(20)]).tolist()}
    assert seen == set(range(103))  # of the large class others each epoch


def test_a_sample_that_comes_again_is_augmented_otherwise():
    plan = Plan(np.arange(100, 203), batch_size=10, shuffle=True, seed=3, labels=LABELS)
    requests = list(plan.requests(Position(epoch=1)))
    samples, drawn = np.concatenate([r.samples for r in requests]), np.concatenate([r.keys for r in requests])
    assert len(samples) == 103 > len({*samples.tolist()}) and len({*drawn.tolist()}) == 103
    assert samples.min() >= 100 and not np.array_equal(LABELS[samples - 100], np.sort(LABELS[samples - 100]))
    plain = Plan(np.arange(100, 203), batch_size=10, shuffle=True, seed=3)
    once = next(iter(plain.requests(Position(epoch=1))))
    assert np.array_equal(once.keys, keys(3, 1, once.samples, AUGMENT))
    late = list(plan.requests(Position(epoch=1, batch=4)))
    assert all(np.array_equal(a.keys, b.keys) for a, b in zip(requests[4:], late, strict=True))
