"""What a job skips, keeps and takes up again, whatever its cells are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.studies import study
from vit.experiments import job as jobs
from vit.experiments.grid import TUNE_SEED, Cell
from vit.experiments.job import Job, failed
from vit.experiments.ledger import Ledger, fingerprint
from vit.experiments.live import Live
from vit.experiments.runner import Runner
from vit.experiments.workers import Failed


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A job whose runs are done at once, in this process; those of a seed in ``failing`` fail."""

    class AtOnce:
        def __init__(self, work: Callable[[Cell], dict], *_: object) -> None:
            self.running: dict[Cell, object] = {}

        def results(self, tasks: Sequence[Cell], tick: Callable[[], None]) -> Iterator[tuple[Cell, Any]]:
            for task in tasks:
                self.running = {task: None}
                tick()
                ran.append(task)
                yield task, Failed("broke") if task.seed in failing else finished_row(task)

    def finished_row(cell: Cell) -> dict[str, Any]:
        return {"key": cell.key, "status": "done", "acc": 0.5, "val_acc": 0.5}

    ran: list[Cell] = []
    failing: set[int] = set()
    monkeypatch.setattr(jobs, "Pool", AtOnce)

    def make(retry_failed: bool = False, fail: Sequence[int] = ()) -> tuple[Job, list[Cell]]:
        ran.clear()
        failing.clear()
        failing.update(fail)
        book = Ledger(tmp_path, fingerprint(study().to_dict()))
        return Job(Runner(study(), tmp_path, (), {}), book, jobs.Machine(1, False), retry_failed), ran

    return make


def do(job: Job, cells: Sequence[Cell]) -> int:
    with Live(job.left(cells), 1, lambda cell: cell.size) as live:
        return job.do(cells, live)


def test_failed_runs_are_kept_shown_and_retried_only_when_asked(job, capsys):
    cells = list(study().runs())
    first, ran = job(fail=[1])
    assert do(first, cells) == 4 and ran == cells
    assert "run-vit-30-1-32-true failed: broke" in capsys.readouterr().err
    again, ran = job()
    assert do(again, cells) == 4 and ran == []
    retried, ran = job(retry_failed=True)
    assert do(retried, cells) == 0 and ran == [cell for cell in cells if cell.seed == 1]


def test_tuning_is_not_taken_up_again_once_it_was_used(job):
    """A trial that succeeds late could change an arm's setting between its runs."""
    tuning, runs = list(study().tuning()), list(study().runs())
    first, _ = job(fail=[TUNE_SEED])
    assert do(first, tuning) == 4
    again, ran = job(retry_failed=True)
    assert do(again, tuning) == 0 and ran == tuning
    used, _ = job(fail=[TUNE_SEED])
    for cell in tuning:
        used.book.append(failed(cell, "broke"))
    used.book.append({"key": runs[0].key, "kind": "run", "arm": "vit", "status": "done"})
    late, ran = job(retry_failed=True)
    do(late, tuning)
    assert {cell.arm for cell in ran} == {"cnn"}


def test_an_interrupted_job_goes_on_where_it_stopped(job):
    cells = list(study().runs())
    first, _ = job()
    do(first, cells[:3])
    second, ran = job()
    assert do(second, cells) == 0 and ran == cells[3:]


def test_a_failed_run_tells_no_place_of_this_machine():
    assert (
        failed(next(study().runs()), "ValueError: /home/me/a/1.png: no picture")["error"]
        == "ValueError: 1.png: no picture"
    )
