"""The line that says how far a grid is."""

import pytest

from vit.experiments import live
from vit.experiments.grid import Cell
from vit.experiments.live import Live

CELLS = [Cell("run", arm, size, 0, "32-true") for arm in ("vit", "cnn") for size in (100, 300)]
DONE = {"status": "done", "acc": 0.5, "val_acc": 0.5}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def test_the_rest_is_estimated_by_arm_and_length(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with Live(CELLS, 2, lambda cell: cell.size) as shown:
        shown.tick(CELLS[:1])
        assert capsys.readouterr().out == ""
        clock[0] = 100.0  # vit takes a second a step, and so would cnn, for all that is known
        shown.finished(CELLS[0], DONE)
        assert (
            capsys.readouterr().out == "1/4 run-vit-100-0-32-true: acc 0.5000, 100 s, 6 min left\n"
        )  # 700 s, two at once
        shown.tick(CELLS[2:3])
        clock[0] = 120.0
        shown.finished(CELLS[2], DONE)  # 0.2 s a step: 300 + 60
        assert "2/4 run-cnn-100-0-32-true: acc 0.5000, 20 s, 3 min left" in capsys.readouterr().out


def test_failures_are_said_and_teach_no_speed(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with Live(CELLS, 1, lambda cell: cell.size) as shown:
        shown.tick(CELLS[:1])
        shown.finished(CELLS[0], {"status": "failed", "error": "out of memory"})
        assert shown.failed == 1 and shown.seconds == {} and CELLS[0] not in shown.left
    assert "run-vit-100-0-32-true failed: out of memory" in capsys.readouterr().err
