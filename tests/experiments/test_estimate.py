"""What a grid will cost: the sum over its cells of what a step and a picture take."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from tests.experiments.studies import study
from vit.data.images import Preprocessing
from vit.experiments import estimate
from vit.experiments.plan import Plan

# vit and cnn: 2 trials, 2 sizes of 2 seeds, 2 runs more in the other precision; 40 steps each, 143 pictures to validate
# on after every run, 359 to test on after those of the grid.
STEP, PICTURE = 1.5, 0.01
TUNE, RUN = 40 * STEP + 143 * PICTURE, 40 * STEP + (143 + 359) * PICTURE


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Plan:
    def seconds(net: nn.Module, shape: tuple[int, ...], batch_size: int, precision: str, device: str):
        assert shape == (1, 8, 8) and batch_size == 16
        factor = 2 if precision == "bf16-mixed" else 1
        return factor * STEP, factor * PICTURE

    monkeypatch.setattr(estimate, "seconds", seconds)
    data = SimpleNamespace(preprocessing=Preprocessing((8, 8), 1, (0.5,), (0.5,)))
    grid = study(compare_precision="bf16-mixed")
    return cast(Plan, SimpleNamespace(study=grid, data=lambda _: data, net=lambda _: nn.Identity()))


def last_minutes(table: str) -> float:
    return float(table.splitlines()[-1].partition(" about ")[2].split()[0])


@pytest.mark.parametrize(("device", "runs_share"), [("cpu", 2), ("cuda", 1)])
def test_cells_are_summed_each_in_its_precision(planned: Plan, device: str, runs_share: int):
    table = estimate.table(planned, [*planned.study.tuning(), *planned.study.runs()], 2, device)
    seconds = 2 * (2 * TUNE + 4 * RUN + 2 * 2 * RUN)
    assert last_minutes(table) == round(seconds / runs_share / 60)
    assert table.splitlines()[-1].startswith("16 runs to do, " + ("at most about" if device == "cuda" else "about"))
    (vit,) = [line.split() for line in table.splitlines() if line.startswith("vit")]
    assert vit == ["vit", "101", "1,009", "1500", "8", str(round(seconds / 2 / 60))]


def test_what_is_done_costs_nothing(planned: Plan):
    left = [cell for cell in planned.study.runs() if cell.arm == "vit"][:1]
    table = estimate.table(planned, left, 1, "cpu")
    assert last_minutes(table) == round(RUN / 60) and table.splitlines()[-1].startswith("1 runs to do")


def test_a_net_that_has_nothing_left_to_run_is_not_timed(planned: Plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "seconds", lambda *_: pytest.fail("a step was taken"))
    table = estimate.table(planned, [], 1, "cpu")
    assert [line.split()[3] for line in table.splitlines() if line.startswith(("vit", "cnn"))] == ["-", "-"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_and_a_picture_are_timed_and_the_net_learns_nothing_lasting(precision: str):
    net: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    step, picture = estimate.seconds(net, (1, 8, 8), 16, precision, "cpu")
    assert 0 < picture < step < 5
    assert all(parameter.grad is None for parameter in net.parameters()) and torch.is_grad_enabled()
