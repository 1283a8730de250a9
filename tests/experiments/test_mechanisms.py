"""The mechanisms study itself: a small one from the command line, and what is skipped, added and refused."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.test_datasize import ENVIRONMENT, call, lasting
from vit.experiments import datasize, mechanisms
from vit.experiments.ledger import ROWS, read

YAML = """
host: [model/vit_pico]
references: {mixer: attention/softmax, position: position/sincos2d, readout: pool/mean}
amount: 3
seeds: 1
patch: [4]
timed_patch: [2]
timed_batch: 2
timed_threads: 1
train_size: 40
fit:
  trainer:
    callbacks:
      - class_path: vit.tasks.release.Release
        init_args: {weights: last}
    enable_checkpointing: false
    enable_progress_bar: false
  model:
    init_args:
      net: {init_args: {backbone: {init_args: {depth: 1}}}}
  data: {batch_size: 16, augment: none}
"""
OF_THE_MOMENT = ("train_images_per_s", "infer_images_per_s", "train_times_as_fast", "infer_times_as_fast")


def words(config: Path, out: Path, *options: str) -> list[str]:
    base = ["-c", str(config), "--vary", "position", "--workers", "1", "--out", str(out)]
    return [*base, *(options or ("--arms", "position/none"))]


def command(config: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "vit", "study", "mechanisms", *words(config, out, *options)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mechanisms") / "study.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def finished(config: Path) -> tuple[Path, str]:
    """A finished study and what it printed; not to be written to."""
    out = config.parent / "out"
    done = call(*command(config, out))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return out, done.stdout


def test_each_arm_is_trained_and_timed(finished: tuple[Path, str]):
    rows = {row["key"]: row for row in read(finished[0] / ROWS)}
    arms = ("position.sincos2d", "position.none")
    assert set(rows) == {
        *(f"time-{arm}@{tokens}-40-0-32-true" for arm in arms for tokens in (4, 16)),
        *(f"run-{arm}@4-40-0-32-true" for arm in arms),
    }
    for row in rows.values():
        assert row["status"] == "done" and row["versions"]["torch"] and row["hardware"]["cpu"]
        assert str(finished[0]) not in json.dumps(row)
        if row["kind"] == "run":
            assert 0 <= row["acc"] <= 1 and row["n_test"] == 359 and row["steps"] == 3
            assert "patch_size=4" in row["command"] and "-c position/" in row["command"]
        else:
            assert row["train_images_per_s"] > 0 and row["infer_images_per_s"] > 0 and row["rounds"] == 20
            assert row["memory"] == "tensors saved for the backward pass" and row["timed_batch"] == 2
            assert (row["train_times_as_fast"] is None) == (row["overlay"] == "position/sincos2d")
    memory = {tokens: rows[f"time-position.none@{tokens}-40-0-32-true"]["memory_bytes"] for tokens in (4, 16)}
    assert 3 < memory[16] / memory[4] < 5
    assert len({rows[f"run-{arm}@4-40-0-32-true"]["subset_hash"] for arm in arms}) == 1


def test_it_ends_with_a_report_and_claims_no_order(finished: tuple[Path, str]):
    out, said = finished
    assert "No order of the arms is claimed: some have 1 of the 6 seeds" in said
    assert f"The whole report: {out / 'report.html'}" in said
    left = {path.name for path in out.iterdir()}
    assert left >= {"report.html", "summary.csv", "slopes.csv", "refused.csv", "tradeoff.png", "study.json", ROWS}
    assert not list((out / "runs").glob("*.log"))


@pytest.mark.slow
def test_the_same_command_does_nothing_again_and_another_arm_only_the_new_runs(config, finished, tmp_path, capsys):
    out = tmp_path / "copy"
    call("cp", "-r", str(finished[0]), str(out))
    before = (out / ROWS).read_text()
    assert mechanisms.main(words(config, out)) == 0
    assert (out / ROWS).read_text() == before
    assert mechanisms.main(words(config, out, "--arms", "position/none", "--seeds", "2", "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "2 runs to do" in said and "and 0 timings" in said and (out / ROWS).read_text() == before
    grown = call(*command(config, out, "--arms", "position/learned,position/none"))
    assert grown.returncode == 0, grown.stderr
    assert (out / ROWS).read_text().startswith(before)
    kinds = ("time-position.learned@4", "time-position.learned@16", "run-position.learned@4")
    assert {row["key"] for row in read(out / ROWS)[6:]} == {f"{kind}-40-0-32-true" for kind in kinds}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--arms", "position/sincos2d"),
            "holds a study with arms position.sincos2d@4, position.none@4, .*, asked",
        ),
        (("--arms", "position/none", "--amount", "4"), "holds a study with amount 3, asked for 4"),
        (
            ("--arms", "position/none", "--data.augment", "light"),
            "whose runs had other options or another configuration",
        ),
    ],
)
def test_another_study_is_refused_and_left_as_it_was(config, finished, options: tuple[str, ...], said: str):
    out = finished[0]
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=said):
        mechanisms.main(words(config, out, *options))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_the_folder_of_another_kind_of_study_is_refused(finished):
    with pytest.raises(ValueError, match="holds a mechanisms study of version 1, this is data-size 1"):
        datasize.main(["-c", "study/cpu", "--arms", "vit", "--sizes", "100", "--out", str(finished[0])])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 3, 5])
def test_killed_and_started_again_it_ends_as_if_undisturbed(config: Path, finished, tmp_path: Path, rows: int):
    out = tmp_path / "out"
    process = subprocess.Popen(command(config, out), env=ENVIRONMENT, start_new_session=True)
    while len(read(out / ROWS)) < rows or not out.is_dir():
        time.sleep(0.05)
    time.sleep(1.0)  # somewhere within the next
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = call(*command(config, out))
    assert again.returncode == 0, again.stderr
    ended = [lasting(read(folder / ROWS)) for folder in (out, finished[0])]
    for rows_of in ended:
        for row in rows_of.values():
            for name in OF_THE_MOMENT:
                row.pop(name, None)
    assert ended[0] == ended[1] and len(read(out / ROWS)) == 6
