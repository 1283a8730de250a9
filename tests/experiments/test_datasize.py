"""The study itself: a small one from the command line, and what is skipped, kept and taken up again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vit
from tests.experiments.studies import YAML, study
from vit import bundle
from vit.data.module import Images
from vit.experiments import datasize
from vit.experiments.grid import Arm
from vit.experiments.job import write_shared
from vit.experiments.ledger import ROWS, read
from vit.experiments.runner import SHARED, Runner, check_data, subset_file, write_subsets

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
OF_THE_MOMENT = ("fit_seconds", "seconds", "train_images_per_s", "started", "hardware")


def command(config: Path, out: Path, *options: str) -> list[str]:
    options = ("--sizes", "30,100", "--workers", "2", *options)
    return [sys.executable, "-m", "vit", "study", "data-size", "-c", str(config), "--out", str(out), *options]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def finished(config: Path) -> tuple[Path, str]:
    """A finished study and what it printed; not to be written to."""
    out = config.parent / "out"
    done = call(*command(config, out))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return out, done.stdout


def lasting(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by key, without what differs from one time to the next."""
    return {row["key"]: {k: v for k, v in row.items() if k not in OF_THE_MOMENT} for row in rows}


def test_each_run_is_a_row_that_says_how_it_was_made(finished: tuple[Path, str]):
    out, _ = finished
    rows = {row["key"]: row for row in read(out / ROWS)}
    assert set(rows) == {
        "tune-vit-30-1000-32-true-0",
        "tune-cnn-30-1000-32-true-0",
        *(f"run-{arm}-{size}-0-32-true" for arm in ("vit", "cnn") for size in (30, 100)),
    }
    for row in rows.values():
        assert row["status"] == "done" and row["options"] == {"lr": 0.002, "weight_decay": 0.05} and row["steps"] == 3
        assert (row["acc"] is None) == (row["kind"] == "tune") and 0 <= row["val_acc"] <= 1 and row["fit_seconds"] > 0
        assert row["versions"]["torch"] and row["hardware"]["cpu"] and row["command"].startswith("vit fit -c model/")
        assert str(out) not in json.dumps(row)
    assert {row["n_test"] for row in rows.values() if row["kind"] == "run"} == {359}
    assert (
        len({row["config_hash"] for row in rows.values()}) == 6
        and len({r["manifest_hash"] for r in rows.values()}) == 1
    )
    assert rows["run-vit-100-0-32-true"]["subset_hash"] == rows["run-cnn-100-0-32-true"]["subset_hash"]
    assert rows["run-vit-100-0-32-true"]["subset_hash"] != rows["run-vit-30-0-32-true"]["subset_hash"]


def test_the_manifest_names_the_pictures_a_run_was_trained_on(finished: tuple[Path, str]):
    out, _ = finished
    order = json.loads((out / "subsets" / "seed-0.json").read_text())["order"]
    assert len(order) == len(set(order)) == 100
    data = Images(train_size=30, seed=0)
    assert sorted(order[:30]) == data.train_samples.tolist()
    saved = yaml.safe_load((out / "runs" / "run-vit-30-0-32-true" / "config.yaml").read_text())
    assert saved["data"]["train_size"] == 30 and saved["seed_everything"] == 0


def test_what_is_left_of_a_run_is_its_model_and_its_metrics(finished: tuple[Path, str]):
    out, _ = finished
    left = {path.name for path in (out / "runs" / "run-cnn-100-0-32-true").iterdir()}
    bundle = {"model.json", "model.safetensors", "README.md"}
    assert left == {*bundle, "config.yaml", "data.json", "fit.json", "metrics.csv", "test.json", "report.html"}
    assert not list((out / "runs").glob("*.log"))
    model = vit.load(out / "runs" / "run-cnn-100-0-32-true")
    assert model.predict(np.zeros((8, 8), np.uint8))[0].label in model.classes


def test_it_ends_with_advice_and_a_report(finished: tuple[Path, str]):
    out, said = finished
    assert "No claim yet for 100 images." in said and "5 more (has 1)" in said
    assert f"The whole report: {out / 'report.html'}" in said
    assert {path.name for path in out.iterdir()} >= {"report.html", "summary.csv", "curves.png", "study.json", ROWS}


@pytest.mark.slow
def test_the_same_command_does_nothing_again_and_more_sizes_only_the_new_runs(config: Path, finished, tmp_path: Path):
    out = tmp_path / "copy"
    call("cp", "-r", str(finished[0]), str(out))
    before = (out / ROWS).read_text()
    assert call(*command(config, out)).returncode == 0
    assert (out / ROWS).read_text() == before
    grown = call(*command(config, out, "--sizes", "30,100,300"))
    assert grown.returncode == 0, grown.stderr
    after = (out / ROWS).read_text()
    assert after.startswith(before)
    assert {row["key"] for row in read(out / ROWS)[6:]} == {"run-vit-300-0-32-true", "run-cnn-300-0-32-true"}
    assert len(read(out / ROWS)) == 8  # and none of tuning, although the middle size is another now
    refused = call(*command(config, out, "--sizes", "30,100,300", "--amount", "4"))
    assert refused.returncode == 2 and "holds a study with amount 3, asked for 4" in refused.stderr
    assert (out / ROWS).read_text() == after


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 1, 3, 5])
def test_killed_and_started_again_it_ends_as_if_undisturbed(config: Path, finished, tmp_path: Path, rows: int):
    out = tmp_path / "out"
    process = subprocess.Popen(command(config, out), env=ENVIRONMENT, start_new_session=True)
    while len(read(out / ROWS)) < rows or not any((out / "runs").glob("*")):
        time.sleep(0.05)
    time.sleep(1.0)  # somewhere within the next runs
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = call(*command(config, out))
    assert again.returncode == 0, again.stderr
    assert lasting(read(out / ROWS)) == lasting(read(finished[0] / ROWS))
    assert len(read(out / ROWS)) == 6


PRETRAINED = yaml.safe_load(YAML) | {"arms": ["vit-mae"], "seeds": 1, "amount": 2}
PRETRAINED["candidates"] = {
    "vit-mae": {
        "configs": ["model/vit_pico"],
        "pretrain": ["pretrain/mae"],
        "pretrain_amount": 2,
        "pretrain_options": {"model.optimizer.lr": 0.007},
    }
}


def pretrained(folder: Path) -> list[dict[str, Any]]:
    """Rows of a study in ``folder``/out, begun or continued; the same options there whatever the folder."""
    words = [sys.executable, "-m", "vit", "study", "data-size", "-c", "study.yaml", "--sizes", "30", "--workers", "1"]
    done = subprocess.run([*words, "--out", "out"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return read(folder / "out" / ROWS)


@pytest.mark.slow
def test_an_arm_that_is_pretrained_and_a_study_killed_while_it_is(tmp_path: Path):
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    whole.mkdir()
    (whole / "study.yaml").write_text(yaml.safe_dump(PRETRAINED))
    rows = {row["key"]: row for row in pretrained(whole)}
    before, begun = (f"pretrain-vit-mae-1295-{seed}-32-true" for seed in (1000, 0))
    tune, run = "tune-vit-mae-30-1000-32-true-0", "run-vit-mae-30-0-32-true"
    assert list(rows) == [before, begun, tune, run] and {row["status"] for row in rows.values()} == {"done"}
    assert rows[begun]["steps"] == 2 and rows[begun]["acc"] is rows[begun]["subset_hash"] is None
    assert "-c pretrain/mae" in rows[begun]["command"] and rows[begun]["val_loss"] > 0 and "val_acc" not in rows[begun]
    runs = whole / "out" / "runs"
    for key, start in ((begun, None), (tune, before), (run, begun)):
        model = yaml.safe_load((runs / key / "config.yaml").read_text())["model"]
        assert model["init_args"].get("init_from") == (start and str(Path("out", "runs", start)))
        assert (model["init_args"]["optimizer"]["init_args"]["lr"] == 0.007) == (start is None)
    page = (whole / "out" / "report.html").read_text()
    assert "vit-mae pretraining" in page and "<td>vit-mae</td>" in page

    shutil.copytree(whole, killed)  # as a kill within the second pretraining leaves it
    table, left = killed / "out" / ROWS, killed / "out" / "runs"
    table.write_text(table.read_text().splitlines(keepends=True)[0])
    for key in (tune, run):
        shutil.rmtree(left / key)
    (left / begun / bundle.RECORD).unlink()
    again = pretrained(killed)
    assert lasting(again) == lasting(list(rows.values())) and [row["key"] for row in again] == list(rows)
    assert again[0] == rows[before]


def test_a_run_starts_from_the_pretraining_of_its_seed_done_again_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of one seed; the slow test above has the whole study."""
    data, lr = Images("digits"), {"model.optimizer.lr": 0.007}
    arm = Arm("vit-mae", ("model/vit_pico",), {}, 101, 1009, ("pretrain/mae",), 2, lr)
    facts = study().data | {"manifest_hash": data.manifest_hash}
    small = study(arms=(arm,), seeds=(0,), amount=3, data=facts, fit=PRETRAINED["fit"])
    runner = Runner(small, tmp_path, (), {"vit-mae": {"lr": 0.001}})
    write_shared(tmp_path / SHARED, small.fit)
    write_subsets(subset_file(tmp_path, 0), data, 0, 30)
    before, run = small.stage_one("vit-mae", 0), next(small.runs())

    def killed(args: list[str]) -> None:
        (runner.path(before) / "checkpoints").mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("vit.run.fit", killed)
        runner(before)
    with pytest.raises(ValueError, match=f"nothing to start from: the pretraining {before.key} failed or is gone"):
        runner(run)
    row, final = runner(before), runner(run)
    assert (row["steps"], row["size"], row["acc"], row["subset_hash"]) == (2, 1295, None, None)
    assert "val_acc" not in row and row["val_loss"] > 0 and "-c pretrain/mae" in row["command"]
    assert (final["steps"], final["size"], final["n_test"]) == (3, 30, 359)
    configs = [yaml.safe_load((runner.path(cell) / "config.yaml").read_text())["model"] for cell in (before, run)]
    assert configs[0]["class_path"].endswith("Pretrainer") and configs[1]["class_path"].endswith("Classifier")
    assert [model["init_args"]["optimizer"]["init_args"]["lr"] for model in configs] == [0.007, 0.001]
    assert configs[1]["init_args"]["init_from"] == str(runner.path(before))


def test_data_that_changed_under_a_study_fail_the_run(tmp_path: Path):
    (tmp_path / "model.json").write_text(json.dumps({"data": {"manifest_hash": "cd"}}))
    with pytest.raises(ValueError, match="the data changed since the study began: expected ab, got cd"):
        check_data(tmp_path, "ab")


def test_wandb_groups_the_runs_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fit(_: list[str]) -> None:
        raise RuntimeError(f"{os.environ['WANDB_RUN_GROUP']} {os.environ['WANDB_JOB_TYPE']}")

    monkeypatch.setattr("vit.run.fit", fit)
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE"):
        monkeypatch.setenv(name, "mine")
    tuning = next(study().tuning())
    with pytest.raises(RuntimeError, match=f"{tmp_path.name} tune"):
        Runner(study(), tmp_path, (), {})(tuning)


def test_the_test_split_is_read_once_by_a_run_and_never_by_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tested: list[list[str]] = []
    monkeypatch.setattr("vit.run.fit", lambda args: SimpleNamespace(metrics={}))
    monkeypatch.setattr("vit.evaluate.test", lambda args: tested.append(args) or {"acc": 0.5})
    monkeypatch.setattr("vit.experiments.runner.check_data", lambda path, manifest_hash: None)
    monkeypatch.setattr(Runner, "_row", lambda self, cell, settings, metrics, tested: dict(tested))
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE"):
        monkeypatch.setenv(name, "mine")
    runner = Runner(study(), tmp_path, (), {arm: study().trials[0] for arm in ("vit", "cnn")})
    assert "acc" not in runner(next(iter(study().tuning()))) and not tested
    cell = next(iter(study().runs()))
    assert runner(cell)["acc"] == 0.5 and [args[1] for args in tested] == [str(runner.path(cell))]


def test_a_dry_run_says_what_is_left_and_writes_nothing(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    threads, out = torch.get_num_threads(), tmp_path / "out"
    try:
        args = ["-c", str(config), "--sizes", "30,100", "--workers", "2", "--out", str(out), "--dry-run"]
        assert datasize.main(args) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "6 runs to do" in said and "with 2 at once on" in said and "multiply-adds" in said
    assert not out.exists()


@pytest.mark.gpu
def test_workers_share_a_gpu_in_bfloat16(config: Path, tmp_path: Path):
    """None of them forked from a process that has used CUDA, which would end each with an error."""
    out = tmp_path / "out"
    done = call(*command(config, out, "--compare_precision", "32-true", "--dry-run"))
    assert "bf16-mixed" in done.stdout and "at once on cuda" in done.stdout, done.stderr
    done = call(*command(config, out, "--compare_precision", "32-true"))
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in read(out / ROWS)}
    assert {row["status"] for row in rows.values()} == {"done"} and "run-vit-30-0-32-true" in rows
    assert all(row["hardware"]["gpus"] for row in rows.values())
    assert rows["run-cnn-100-0-bf16-mixed"]["n_test"] == 359
