"""What a recorded result says, and what it must not."""

import json
from pathlib import Path

import pytest

from vit.commandline import record


def test_a_record_names_no_place_of_this_machine() -> None:
    args = ["-c", "quickstart", "-c", "/home/me/a.yaml", "--data.root", "/home/me/photos", "--run=/scratch/a"]
    args += ["--model.init_from", "timm:vit_tiny_patch16_224", "--trainer.max_epochs", "3"]
    args += ["--data.subset", "me/seed-0.json", "--model.init_args.teacher=../me/large"]
    assert record.shown("fit", args) == (
        "vit fit -c quickstart -c ... --data.root ... --run=... "
        "--model.init_from timm:vit_tiny_patch16_224 --trainer.max_epochs 3 "
        "--data.subset ... --model.init_args.teacher=..."
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
