"""What a recorded result says, and what it must not."""

import json
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

import vit
from tests.helpers import TINY
from vit import cli
from vit.commandline import record
from vit.export import export


def test_a_record_names_no_place_of_this_machine() -> None:
    args = ["-c", "quickstart", "-c", "/home/me/a.yaml", "--data.root", "/home/me/photos", "--run=/scratch/a"]
    args += ["--model.init_from", "timm:vit_tiny_patch16_224", "--trainer.max_epochs", "3"]
    args += ["--data.subset", "me/seed-0.json", "--model.init_args.teacher=../me/large"]
    assert record.shown("fit", args) == (
        "vit fit -c quickstart -c ... --data.root ... --run=... "
        "--model.init_from timm:vit_tiny_patch16_224 --trainer.max_epochs 3 "
        "--data.subset ... --model.init_args.teacher=..."
    )


def test_nested_options_and_files_of_them_name_no_place_either() -> None:
    args = ["--data", '{"root": "me/photos", "augment": "none"}', "--model=/home/me/model.yaml"]
    args += ["--trainer.callbacks", '[{"init_args": {"dirpath": "/home/me/a"}}]', "--data.img_size", "[8,12]"]
    assert record.shown("fit", args) == (
        'vit fit --data {"root": "photos", "augment": "none"} --model=... '
        '--trainer.callbacks [{"init_args": {"dirpath": "a"}}] --data.img_size [8,12]'
    )


def test_a_line_holds_every_sitting_and_the_result(tmp_path: Path) -> None:
    run, table = tmp_path / "run", tmp_path / "results" / "digits.jsonl"
    record.add_sitting(run, "vit fit -c quickstart", seed=3, seconds=1.25, waited=0.25, steps=6)
    record.add_sitting(run, "vit fit --resume ...", seed=3, seconds=2.5, waited=0.0, steps=9)
    (run / "model.json").write_text('{"config": {"data": {"batch_size": 64}}}')
    for accuracy in (0.5, 0.75):
        record.append(table, run, "test", {"acc": accuracy})
    first, second = (json.loads(line) for line in table.read_text().splitlines())
    assert [sitting["command"] for sitting in first["fit"]] == ["vit fit -c quickstart", "vit fit --resume ..."]
    assert [sitting["seconds"] for sitting in first["fit"]] == [1.2, 2.5]
    assert [sitting["waited"] for sitting in first["fit"]] == [0.25, 0.0]
    assert [sitting["steps"] for sitting in first["fit"]] == [6, 9] and record.steps_recorded(run) == 9
    assert {"seed", "commit", "hardware", "versions"} <= first["fit"][0].keys()
    assert (first["test"], second["test"]) == ({"acc": 0.5}, {"acc": 0.75})
    assert first["config"] == {"data": {"batch_size": 64}}


def test_a_model_of_unknown_making_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks fit.json or model.json: expected a finished run"):
        record.append(tmp_path / "a.jsonl", tmp_path, "test", {"acc": 1.0})
    assert not (tmp_path / "a.jsonl").exists()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose name nothing should tell, with photos in it, one of them unreadable."""
    for number in range(20):
        path = tmp_path / "ward-of-dr-no" / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * number).save(path)
    (tmp_path / "ward-of-dr-no/photos/class1/7.png").write_bytes(b"no picture")
    return tmp_path / "ward-of-dr-no"


KEEPS = {
    "config.yaml": "a resumed run has to find its data",
    "debug.log": "wandb's own messages name its folder; they stay on this machine",
}


def test_nothing_that_is_given_away_tells_where_it_was_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = place / "run"
    data = ["--data.root", str(place / "photos"), "--data.img_size=8", "--data.channels=1", "--data.bad_images=skip"]
    fit = ["fit", *TINY, "-c", "logger/wandb", *data, "--run", str(run)]
    monkeypatch.setattr(sys, "argv", ["vit", *fit])  # wandb looks there
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="wandb")
        warnings.filterwarnings("ignore", message="left out")
        assert cli.main(fit) == 0
        assert cli.main(["test", str(run), "--record", str(run / "results.jsonl")]) == 0
        export(vit.load(run, "cpu"), "safetensors", run / "exported" / "model.safetensors")
    left = [path for path in run.rglob("*") if path.is_file()]
    assert len(left) > 20 and {"skipped.json", "model.json", "last.ckpt", "results.jsonl"} <= {p.name for p in left}
    telling = {path.name for path in left if place.name.encode() in path.read_bytes()}
    assert telling == KEEPS.keys()
    assert "root: photos" in (run / "report.html").read_text()
