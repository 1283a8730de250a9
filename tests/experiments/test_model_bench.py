"""A net beside timm's of the same shape. No time is asserted."""

import json
from pathlib import Path

import pytest

from vit.experiments import bench

SMALL = ["--img_size", "32", "--patch_size", "8", "--classes", "3", "--batch_size", "2", "--rounds", "2"]


def test_ours_and_timms_of_one_name_are_one_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "bench"
    args = ["model", "--net", "model/vit_tiny", "--timm", "vit_tiny_patch16_224", *SMALL, "--out", str(out)]
    assert bench.main(args) == 0
    said = capsys.readouterr().out
    assert "train: model/vit_tiny is" in said and "times as fast as timm vit_tiny_patch16_224" in said
    (record,) = [json.loads(line) for line in (out / "models.jsonl").read_text().splitlines()]
    ours, theirs = record["nets"]
    assert theirs["parameters"] - ours["parameters"] == 192  # a position for the class token
    assert ours["macs"] == theirs["macs"]
    assert ours["memory_bytes"] > 0 and theirs["train_images_per_s"] > 0 and len(theirs["infer_times_as_fast"]) == 3
    assert str(tmp_path) not in json.dumps(record) and record["versions"]["timm"]


def test_a_net_alone(capsys: pytest.CaptureFixture[str]):
    assert bench.main(["model", "--net", "model/resnet_pico", *SMALL]) == 0
    assert "model/resnet_pico" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--timm", "vit_tny_patch16_224"], "timm has no net 'vit_tny_patch16_224'"),
        (["--net", "model/vit_tinny"], "did you mean 'model/vit_tiny'"),
        (["--rounds", "0"], "1 or more"),
        (["--patch_size", "5"], "image 32x32 is not divisible by patch size 5x5"),
    ],
)
def test_what_cannot_be_is_one_line(args: list[str], words: str):
    with pytest.raises(ValueError) as error:
        bench.main(["model", *SMALL, *args])
    assert words in str(error.value) and "\n" not in str(error.value)
