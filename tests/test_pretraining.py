"""`vit fit -c pretrain/mae` and what the other commands say to its run."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.helpers import TINY
from vit import bundle, cli, evaluate, run
from vit.data.source import Batch
from vit.tasks.pretrain import Pretrainer

SHARED = Path(__file__).parents[2] / "shared" / "data"
SMALL = ["--model.net.backbone.embed_dim=12", "--model.net.backbone.depth=2", "--trainer.max_epochs=2"]
SMALL += ["--model.net.backbone.patch_size=2", "--trainer.limit_train_batches=3", "--trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> run.Run:
    folder = tmp_path_factory.mktemp("runs") / "mae"
    return run.fit(["-c", "model/vit_nano", "-c", "pretrain/mae", *SMALL, "--run", str(folder)])


def test_a_run_leaves_its_net_pictures_and_probes(pretrained: run.Run) -> None:
    names = {path.name for path in pretrained.folder.iterdir()}
    assert {"model.json", "model.safetensors", "reconstructions.png", "curves.png", "report.html", "README.md"} <= names
    record = json.loads((pretrained.folder / "model.json").read_text())
    assert record["spec"]["class"] == "vit.models.mae.MAE"
    assert {"val/loss", "probe/knn", "probe/linear"} <= record["metrics"]["last"].keys()
    weights = load_file(pretrained.folder / "model.safetensors")
    own = bundle.load(pretrained.folder, "cpu").net.backbone.state_dict()
    assert {name for name in weights if name.startswith("backbone.")} == {f"backbone.{name}" for name in own}
    page = (pretrained.folder / "report.html").read_text()
    assert "it knows no classes yet" in page and "vit test" not in page
    assert pretrained.next == f"vit fit -c finetune --model.init_from {pretrained.folder}"


def test_the_next_command_is_one_that_works(tmp_path: Path) -> None:
    """On the same data, and in the size that the patches fit."""
    odd = ["--data.dataset=scenes_shape", "--data.img_size=[8,12]", "--trainer.max_steps=1", "--data.train_size=64"]
    sooner = ["--trainer.limit_val_batches=1"]
    done = run.fit(
        ["-c", "model/vit_nano", "-c", "pretrain/mae", *SMALL, *odd, *sooner, "--run", str(tmp_path / "mae")]
    )
    assert done.next.endswith("mae --data.dataset scenes_shape")
    _, _, *again = shlex.split(done.next)
    tuned = run.fit([*again, *odd[2:], *sooner, "--run", str(tmp_path / "tuned")])
    assert bundle.load(tuned.folder, "cpu").preprocessing.img_size == (8, 12)


def test_validation_repeats_the_runs_loss(pretrained: run.Run) -> None:
    again = evaluate.validate(["--load", str(pretrained.folder)])
    for name in ("val/loss", "probe/knn", "features/rank"):
        assert again[name] == pytest.approx(pretrained.metrics[name], rel=1e-5)


@pytest.mark.parametrize(
    "command", [["test"], ["predict", "{}/curves.png"], ["explain", "{}/curves.png"], ["export", "--format", "onnx"]]
)
def test_commands_for_classifiers_say_what_to_do_instead(command, pretrained: run.Run, capsys) -> None:
    name, *rest = (word.format(pretrained.folder) for word in command)
    before = {path.name for path in pretrained.folder.iterdir()}
    assert cli.main([name, str(pretrained.folder), *rest]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"vit: {pretrained.folder} holds a pretrained MAE, which knows no classes: `vit fit -c finetune"
    )
    assert {path.name for path in pretrained.folder.iterdir()} == before


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(pretrained: run.Run, tmp_path: Path, monkeypatch) -> None:
    def stop(task: Pretrainer, batch: Batch, batch_idx: int) -> torch.Tensor:
        if task.global_step == 4:
            raise RuntimeError("stop here")
        return step(task, batch, batch_idx)

    step, folder = Pretrainer.training_step, tmp_path / "run"
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="stop here"):
        patched.setattr(Pretrainer, "training_step", stop)
        run.fit(["-c", "model/vit_nano", "-c", "pretrain/mae", *SMALL, "--run", str(folder)])
    run.fit(["--resume", str(folder)])
    whole, resumed = (load_file(place / "model.safetensors") for place in (pretrained.folder, folder))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("name", ["pretrain/simmim", "pretrain/aim"])
def test_the_other_objectives_run_from_their_configs(name: str, tmp_path: Path) -> None:
    done = run.fit(["-c", "model/vit_nano", "-c", name, *SMALL, "--run", str(tmp_path / "run")])
    assert np.isfinite(done.metrics["val/loss"]) and done.metrics["probe/linear"] > 0.1


def test_a_model_overlay_after_pretraining_is_told_to_go_before(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"-c pretrain/mae goes after -c model/NAME"):
        run.fit(["-c", "pretrain/mae", *TINY, "--run", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


SHORT = [
    "--model.net.backbone.embed_dim=16",
    "--model.net.backbone.depth=1",
    "--trainer.max_epochs=2",
    "--data.batch_size=4",
    "--trainer.limit_train_batches=3",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures without labels, some of them in folders."""
    root, drawn = tmp_path_factory.mktemp("own") / "pictures", np.random.default_rng(0)
    for number in range(20):
        path = root / ("", "a", "a/b")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def alone(pictures: Path) -> run.Run:
    """Pretrained on them."""
    fit = ["-c", "model/vit_pico", "-c", "pretrain/mae", "-c", "data/unlabelled", f"--data.root={pictures}", *SHORT]
    return run.fit([*fit, "--data.img_size=16", "--run", str(pictures.parent / "mae")])


def test_pictures_without_labels_are_pretrained_on_validated_and_resumed(alone: run.Run, pictures: Path) -> None:
    record = json.loads((alone.folder / "model.json").read_text())
    assert record["data"]["num_train"] == 18 and record["classes"] == ["unlabelled"]
    assert "features/rank" in alone.metrics and not any("probe" in name for name in alone.metrics)
    names = {path.name for path in alone.folder.iterdir()}
    assert {"reconstructions.png", "curves.png", "report.html", "README.md"} <= names
    assert "MAE</td>" in (alone.folder / "report.html").read_text()
    assert (
        "It gives every picture a vector, not a class.\nPretrained on: pictures, 18 pictures"
        in (alone.folder / "README.md").read_text()
    )
    load = ["--load", str(alone.folder)]
    assert evaluate.validate(load)["val/loss"] == pytest.approx(alone.metrics["val/loss"], rel=1e-5)
    other = shutil.copytree(pictures / "a", pictures.parent / "other")
    assert evaluate.validate([*load, f"--data.root={other}"])["val/loss"] > 0
    more = run.fit(["--resume", str(alone.folder), "--trainer.max_epochs=3"])
    assert np.isfinite(more.metrics["val/loss"]) and len(json.loads((more.folder / "fit.json").read_text())) == 2


def test_a_classifier_starts_from_pictures_without_labels(alone: run.Run, tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "labelled" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 99, 9)).save(path)
    args = ["-c", "finetune", f"--model.init_from={alone.folder}", f"--data.root={tmp_path / 'labelled'}"]
    done = run.fit([*args, "--trainer.max_epochs=1", "--data.img_size=16", "--run", str(tmp_path / "run")])
    assert bundle.load(done.folder, "cpu").classes == ("cat", "dog")


def test_what_learns_from_labels_refuses_pictures_without(alone: run.Run, pictures: Path, finished, tmp_path, capsys):
    data = ["--data.dataset=unlabelled", f"--data.root={pictures}"]
    refused = "needs labels: expected pictures of at least two classes, got 'pictures' with 'unlabelled' alone; "
    out = ["--out", str(tmp_path / "out")]
    for words, who in (
        (["fit", *TINY, *data, "--run", str(tmp_path / "run")], "a classifier"),
        (["fit", *TINY, "-c", "task/label_tokens", *data, "--run", str(tmp_path / "run")], "labelling patches"),
        (["probe", str(alone.folder)], "vit probe"),
        (["test", str(finished), *data, "--data.channels=1"], "vit test"),
        (["study", "data-size", *data, *out], "a study"),
        (["study", "mechanisms", "--vary", "readout", *data, *out], "a study"),
    ):
        assert cli.main(words) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"vit: {who} {refused}"), (words, line)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "FashionMNIST" / "raw").is_dir(), reason="Fashion-MNIST is not beside the checkout")
def test_fashion_mnist_is_learned_from_unlabelled_pictures(tmp_path: Path) -> None:
    """The loss falls, and neighbours among features tell more than before training."""
    fit = ["-c", "model/vit_pico", "-c", "pretrain/mae", "-c", "data/fashion_mnist", f"--data.root={SHARED}"]
    options = ["--trainer.max_epochs=20", "--data.train_size=6000", "--trainer.limit_val_batches=8"]
    done = run.fit([*fit, *options, "--run", str(tmp_path / "run")])
    with (done.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert losses[-1] < 0.8 * losses[0]
    untrained = next(float(row["probe/linear"]) for row in rows if row["probe/linear"])
    assert done.metrics["probe/linear"] > untrained
