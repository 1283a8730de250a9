"""A run from its folder's making to its model's use, by the functions Python calls."""

import csv
import html
import json
import os
import re
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import vit
from tests.helpers import TINY
from vit import evaluate, run
from vit.cli import main
from vit.commandline.options import VitCLI, choose_accelerator, default_precision
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.commandline.runfolder import claimed, default_folder
from vit.commandline.trained import open_trained
from vit.data.module import Images
from vit.data.splits import Splits
from vit.experiments.runner import write_subsets
from vit.tasks.checkpoint import load_checkpoint
from vit.tasks.classify import Classification, Classifier
from vit.tasks.distill import Distiller
from vit.tasks.ema import EMA


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def sittings(folder: Path) -> list[dict]:
    return json.loads((folder / "fit.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_run_leaves_its_record(finished: Path) -> None:
    left = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert left == {
        "config.yaml",
        "data.json",
        "seen.npz",
        "fit.json",
        "metrics.csv",
        "curves.png",
        "samples.png",
        "model.safetensors",
        "model.json",
        "README.md",
        "report.html",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    assert vit.load(finished).classes == tuple("0123456789")


def test_fit_returns_folder_and_metrics(tmp_path: Path) -> None:
    done = run.fit([*TINY, "--run", str(tmp_path / "a")])
    assert done.folder == tmp_path / "a"
    assert {"train/loss", "val/loss", "val/acc", "best/val/acc"} <= set(done.metrics)
    assert done.metrics["best/val/acc"] >= done.metrics["val/acc"]


def test_a_run_says_what_it_left_out_and_how_long_it_waited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "a"
    for number in range(12):
        path = photos / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(path)
    shutil.copytree(photos / "train", photos / "val")
    (photos / "train" / "class1" / "7.png").write_bytes(b"no picture")
    data = ["--data.root", str(photos), "--data.img_size", "8", "--data.channels", "1", "--data.bad_images", "skip"]
    with pytest.warns(UserWarning, match="left out"):
        assert main(["fit", *TINY, *data, "--data.cache_gb", "0", "--run", str(folder)]) == 0
    assert re.search(r"\d+ s, \d+% of it waiting for data; next: vit test", capsys.readouterr().out)
    (problem,) = json.loads((folder / "skipped.json").read_text())
    (sitting,) = json.loads((folder / "fit.json").read_text())
    page = (folder / "report.html").read_text()
    assert problem.startswith("train/class1/7.png: expected a picture") and problem in html.unescape(page)
    assert 0 < sitting["waited"] < 60 and "waiting for data" in page


def test_what_is_left_out_is_listed_before_training_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "run"
    for number in range(12):
        path = photos / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(path)
    (photos / "class0" / "4.png").write_bytes(b"no picture")
    begun = []
    monkeypatch.setattr(Classifier, "on_train_start", lambda self: begun.append((folder / "skipped.json").read_text()))
    data = ["--data.root", str(photos), "--data.img_size", "8", "--data.channels", "1", "--data.bad_images", "skip"]
    with pytest.warns(UserWarning, match=r"left out: /.*class0/4\.png"):
        run.fit([*TINY, *data, "--run", str(folder)])
    (problem,) = json.loads(begun[0])
    assert problem.startswith("class0/4.png: expected a picture")
    (folder / "skipped.json").write_text(json.dumps(["class0/2.png: was locked", problem]))
    with pytest.warns(UserWarning, match="left out"):
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
    assert json.loads((folder / "skipped.json").read_text()) == ["class0/2.png: was locked", problem]


def test_the_saved_config_repeats_the_run(finished: Path, tmp_path: Path) -> None:
    run.fit(["-c", str(finished / "config.yaml"), "--run", str(tmp_path / "again")])
    first, second = weights(finished), weights(tmp_path / "again")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (finished / "config.yaml").read_text() == (tmp_path / "again/config.yaml").read_text()


def test_another_seed_is_another_run(finished: Path, tmp_path: Path) -> None:
    run.fit([*TINY, "--seed_everything", "1", "--run", str(tmp_path / "b")])
    first, second = weights(finished), weights(tmp_path / "b")
    assert not torch.equal(first["head.fc.weight"], second["head.fc.weight"])


def stop_in_second_epoch(monkeypatch, error: BaseException, task: type[Classification] = Classifier) -> None:
    def stop(self: Classification) -> None:
        if self.current_epoch == 1:
            raise error

    monkeypatch.setattr(task, "on_train_epoch_start", stop)


def test_a_stopped_run_resumes_to_the_same_weights(finished: Path, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop here"):
        stop_in_second_epoch(patch, RuntimeError("stop here"))
        run.fit([*TINY, "--run", str(folder)])
    assert (folder / "checkpoints/last.ckpt").is_file() and not (folder / "model.json").exists()
    assert open_trained(str(folder)).checkpoint == folder / "checkpoints/best.ckpt"
    assert run.fit(["--resume", str(folder)]).folder == folder
    first, second = weights(finished), weights(folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in rows(folder)] == [row["step"] for row in rows(finished)]


def test_a_distillation_resumes_to_the_same_weights_and_its_test_needs_no_teacher(
    finished: Path, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    args = ["-c", "model/vit_nano", "-c", "distill", f"--model.teacher={folder}", *TINY[2:], "--seed_everything=1"]
    args += ["--model.net.head=vit.layers.DistilledHead", "--model.net.backbone.prefix=[cls,dist]"]
    whole = run.fit([*args, "--run", str(tmp_path / "whole")])
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop here"):
        stop_in_second_epoch(patch, RuntimeError("stop here"), Distiller)
        run.fit([*args, "--run", str(tmp_path / "stopped")])
    assert load_checkpoint(tmp_path / "stopped/checkpoints/last.ckpt")["global_step"] == 3
    resumed = run.fit(["--resume", str(tmp_path / "stopped")])
    first, second = weights(whole.folder), weights(resumed.folder)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert (whole.next, resumed.next) == (f"vit test {whole.folder}", f"vit test {resumed.folder}")

    shutil.rmtree(folder)
    tested = evaluate.test(["--load", str(resumed.folder)])
    data, net = Images("digits"), vit.load(resumed.folder, "cpu").net
    data.setup("test")
    with torch.no_grad():
        right = [net(batch.images).argmax(dim=1) == batch.labels for batch in data.test_dataloader()]
    assert tested["n"] == 359 and tested["acc"] == pytest.approx(torch.cat(right).float().mean().item())


def test_ctrl_c_is_passed_on_and_stays_usable(tmp_path: Path, monkeypatch) -> None:
    handler = signal.getsignal(signal.SIGINT)
    stop_in_second_epoch(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=r"vit fit --resume .*run` continues"):
        run.fit([*TINY, "--run", str(tmp_path / "run")])
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("step", [1, 3])  # before the first checkpoint; before the first validation
def test_ctrl_c_within_a_step_waits_for_its_end(step: int, finished: Path, tmp_path: Path, monkeypatch) -> None:
    """Elsewhere the weights are half a step ahead of their average and of the loops."""
    folder, average = tmp_path / "run", EMA.on_train_batch_end

    def typed(self: EMA, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        average(self, trainer, *args)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by tests in the background
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=r"vit fit --resume .*run` continu"):
            patch.setattr(EMA, "on_train_batch_end", typed)
            run.fit([*TINY, "--run", str(folder)])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert load_checkpoint(folder / "checkpoints/last.ckpt")["global_step"] == step
    run.fit(["--resume", str(folder)])
    first, second = weights(finished), weights(folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in rows(folder)] == [row["step"] for row in rows(finished)]


def test_resume_trains_on(folder: Path) -> None:
    evaluate.test(["--load", str(folder)])
    assert "test pictures" in (folder / "report.html").read_text()
    done = run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
    assert [row["epoch"] for row in rows(folder) if row["val/acc"]] == ["0", "1", "2"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 3
    assert not any((folder / name).exists() for name in ("test.json", "confusion.png", "mistakes.png"))  # of another
    assert "test" not in vit.load(folder).meta["metrics"]
    assert "test pictures" not in (folder / "report.html").read_text()
    assert done.metrics["val/acc"] == vit.load(folder).meta["metrics"]["last"]["val/acc"]


def test_a_finished_run_is_left_alone(folder: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate.test(["--load", str(folder)])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["fit", "--resume", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said == f"{folder} is already finished, 6 steps; to train longer: --trainer.max_epochs 3"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_finished_run_of_before_steps_were_recorded_keeps_its_results(folder: Path) -> None:
    evaluate.test(["--load", str(folder)])
    old = [{name: value for name, value in sitting.items() if name != "steps"} for sitting in sittings(folder)]
    (folder / "fit.json").write_text(json.dumps(old))
    changing = {"fit.json", "report.html", "last.ckpt", "best.ckpt"}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in changing}
    assert {"test.json", "model.json", "mistakes.png", "metrics.csv"} <= {path.name for path in before}
    run.fit(["--resume", str(folder)])
    assert {path: path.read_bytes() for path in before} == before
    assert sittings(folder)[:-1] == old and sittings(folder)[-1]["steps"] == 6


def test_a_run_killed_between_its_last_step_and_its_results_still_gets_them(folder: Path) -> None:
    for name in ("fit.json", "model.json", "model.safetensors"):
        (folder / name).unlink()
    run.fit(["--resume", str(folder)])
    assert vit.load(folder).classes == tuple("0123456789")


@pytest.mark.parametrize(("option", "end", "reached"), [("max_steps", 2, 6), ("max_epochs", 1, 2)])
def test_resume_refuses_an_end_that_lies_behind(folder: Path, option: str, end: int, reached: int) -> None:
    config = (folder / "config.yaml").read_text()
    with pytest.raises(ValueError, match=rf"--trainer\.{option} {end} lies behind: .* has trained {reached} already"):
        run.fit(["--resume", str(folder), f"--trainer.{option}", str(end)])
    assert (folder / "config.yaml").read_text() == config


def test_resume_without_a_checkpoint_starts_at_the_first_step(folder: Path, finished: Path) -> None:
    shutil.rmtree(folder / "checkpoints")
    run.fit(["--resume", str(folder)])
    assert all(torch.equal(tensor, weights(finished)[name]) for name, tensor in weights(folder).items())


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (["--model.optimizer.lr", "1"], "model.optimizer.lr"),
        (["--data.batch_size=8"], "data.batch_size"),
        (["--seed_everything", "1"], "seed_everything"),
        (["-c", "model/vit_tiny"], "config"),
    ],
)
def test_resume_refuses_what_would_make_it_another_run(folder: Path, args: list[str], key: str) -> None:
    before = (folder / "config.yaml").read_text()
    with pytest.raises(ValueError, match=f"--{key} cannot change on resume"):
        run.fit(["--resume", str(folder), *args])
    assert (folder / "config.yaml").read_text() == before


def test_resume_refuses_other_data_than_the_run_began_on(folder: Path) -> None:
    known = json.loads((folder / "data.json").read_text())
    manifest_hash = vit.load(folder).meta["data"]["manifest_hash"]
    assert known == {"name": "digits", "manifest_hash": manifest_hash, "subset": None}
    (folder / "model.json").unlink()
    assert open_trained(str(folder)).manifest_hash == known["manifest_hash"]  # so that a test of it is refused, too
    (folder / "data.json").write_text(json.dumps({**known, "manifest_hash": "0" * 64}))
    with pytest.raises(ValueError, match=r"'digits' changed since .*run was begun: manifest 000000000000, now "):
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
    assert "max_epochs: 2" in (folder / "config.yaml").read_text()


def test_resume_refuses_another_list_of_pictures_under_the_same_name(tmp_path: Path) -> None:
    data = Images("digits")
    write_subsets(tmp_path / "seed-0.json", data, 0, 200)
    own = ["--data.dataset=digits", "--data.subset", str(tmp_path / "seed-0.json"), "--data.train_size=100"]
    folder = run.fit([*TINY, *own, "--run", str(tmp_path / "run")]).folder
    write_subsets(tmp_path / "seed-0.json", data, 0, 100)
    with pytest.raises(ValueError, match=r"none.json: expected a study's subset file"):
        run.fit([*TINY, "--data.dataset=digits", "--data.subset=none.json", "--run", str(tmp_path / "no")])
    with pytest.raises(ValueError, match=r"the subset .*seed-0.json changed since .*run was begun: manifest "):
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])


def test_reading_pictures_in_counts_as_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Splits.__dict__["fit"].func

    def slowly(self: Splits) -> object:
        time.sleep(0.5)
        return read(self)

    monkeypatch.setattr(Splits.__dict__["fit"], "func", slowly)
    done = run.fit([*TINY, "--run", str(tmp_path / "run")])
    assert 0.5 <= done.waited < done.seconds


def test_resume_with_a_checkpoint_of_another_architecture(folder: Path) -> None:
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("embed_dim: 12", "embed_dim: 24"))
    with pytest.raises(ValueError, match=r"prefix_tokens is \(1, 1, 12\), expected \(1, 1, 24\)") as caught:
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
    assert "\n" not in str(caught.value)


def test_a_folder_is_used_once(finished: Path) -> None:
    before = (finished / "config.yaml").stat().st_mtime_ns
    with pytest.raises(ValueError, match="is not empty: --run expects a new folder"):
        run.fit([*TINY, "--run", str(finished)])
    assert (finished / "config.yaml").stat().st_mtime_ns == before


def test_what_fails_before_training_leaves_no_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Classifier, "setup", lambda self, stage: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.fit([*TINY, "--run", str(tmp_path / "new/run")])
    assert not any(tmp_path.iterdir())


def test_claimed_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyError), claimed(tmp_path / "mine/run", "a: 1"):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with claimed(tmp_path / "mine/run", "a: 1"):
        pass
    assert (tmp_path / "mine/run/config.yaml").read_text() == "a: 1"
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not empty"), claimed(tmp_path / "file", "a: 1"):
        pass


def test_default_folder_is_named_by_time_and_configs() -> None:
    folder = default_folder(["configs/quickstart.yaml", "configs/model/vit_tiny.yaml"])
    assert folder.parent == Path("runs")
    assert folder.name.endswith("-quickstart-vit_tiny") and folder.name[:8].isdecimal()


def test_fast_dev_run_writes_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run.fit([*TINY, "--trainer.fast_dev_run", "true"])
    assert done.metrics["val/acc"] >= 0
    assert not any(tmp_path.iterdir())


def test_precision_follows_the_device(monkeypatch) -> None:
    assert default_precision("cpu") == default_precision("mps") == "32-true"
    for supported, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert default_precision("cuda") == precision


def test_accelerator(monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for cuda, chosen in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda c=cuda: c)
        assert choose_accelerator("auto") == chosen
    assert choose_accelerator("cpu") == "cpu"
    assert capsys.readouterr().out == ""
    assert choose_accelerator("mps") == "mps"  # only when asked, with one line saying so
    assert capsys.readouterr().out.count("\n") == 1


def test_metrics_csv_is_written_beside_a_chosen_logger(tmp_path: Path) -> None:
    with quiet():
        cli = VitCLI("fit", [f"--config={resolve(name)}" for name in ("base", "quickstart", "logger/wandb")])
        cli.build(tmp_path)
    assert [type(logger).__name__ for logger in cli.trainer.loggers] == ["MetricsCSV", "Wandb"]
    assert [logger.save_dir for logger in cli.trainer.loggers] == [str(tmp_path)] * 2


def test_sigterm_ends_with_143_and_the_run_resumes(finished: Path, tmp_path: Path, monkeypatch) -> None:
    def terminate(self: Classifier) -> None:
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Classifier, "on_train_epoch_start", terminate)
        run.fit([*TINY, "--run", str(folder)])
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    run.fit(["--resume", str(folder)])
    assert all(torch.equal(tensor, weights(finished)[name]) for name, tensor in weights(folder).items())


def test_wandb_follows_a_run_offline(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="wandb")
        run.fit([*TINY, "-c", "logger/wandb", "--run", str(folder)])
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
        evaluate.test(["--load", str(folder)])
    logs = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    assert len(logs) == 3 and len({log.name for log in logs}) == 1  # one run to wandb, continued twice
    fitted, resumed, tested = (log.read_bytes() for log in logs)
    assert b"vit.models.ViT" in fitted and b"vit.models.ViT" in resumed  # the parsed config
    assert b"torch.nn.Identity" not in tested
    assert b"val/acc" in resumed and b"test/acc" in tested and b"test/acc" not in fitted + resumed
    assert "save_dir: ." in (folder / "config.yaml").read_text()


def test_a_refused_resume_leaves_the_run_as_it_was(folder: Path) -> None:
    evaluate.test(["--load", str(folder)])
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    content["vit"]["classes"] = ["other", *content["vit"]["classes"][1:]]
    torch.save(content, folder / "checkpoints/last.ckpt")
    before = (folder / "config.yaml").read_text()
    with pytest.raises(ValueError, match="trained on classes"):
        run.fit(["--resume", str(folder), "--trainer.max_epochs", "3"])
    assert (folder / "config.yaml").read_text() == before and (folder / "test.json").is_file()
