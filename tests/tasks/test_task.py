"""What training draws is a function of where it stands."""

from types import SimpleNamespace
from typing import Any, cast

import torch

from vit.tasks.task import Task


def draws(seed: int = 5, step: int = 7, batch: int = 3, rank: int = 0) -> list[float]:
    """What a micro-batch draws there."""
    finite = SimpleNamespace(begin=lambda net: None)
    place = SimpleNamespace(data=SimpleNamespace(seed=seed), global_step=step, global_rank=rank, net=None)
    place._finite = finite
    Task.on_train_batch_start(cast(Any, place), cast(Any, None), batch)
    return torch.rand(11).tolist()


def test_draws_repeat_and_differ_between_seeds_steps_micro_batches_and_ranks() -> None:
    assert draws() == draws()
    places = [draws(), draws(seed=6), draws(step=8), draws(batch=4), draws(rank=1)]
    assert len({tuple(numbers) for numbers in places}) == len(places)
