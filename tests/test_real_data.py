"""Real data sets in the layouts they come in, from the folder of pictures to an exported file: see ../shared/data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import vit
from tests.helpers import TINY
from vit import evaluate, run
from vit.commandline.overlays import config_folder
from vit.export import export

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = {  # where it lies, its layout, classes, channels, test pictures
    "cifar10": ("cifar10.npz", "npz", 10, 3, 10_000),
    "pacs": ("pacs-96/photo", "folder", 7, 3, 333),
    "imagenette": ("imagenette-96", "folder", 10, 3, 1_894),
    "pneumonia": ("pneumonia/pneumoniamnist.npz", "npz", 2, 1, 624),
}
OPTIONS = [*TINY, "--data.img_size=32", "--data.train_size=60", "--trainer.limit_val_batches=1"]


def place(name: str, scratch: Path) -> Path:
    """CIFAR-10 is unpacked from its sheets first."""
    where = SETS[name][0]
    if not (SHARED / ("cifar10-sheets" if name == "cifar10" else where)).exists():
        pytest.skip(f"{name} is not beside the checkout")
    if name != "cifar10":
        return SHARED / where
    subprocess.run([sys.executable, SHARED / "unpack_cifar10.py", scratch / where], check=True, capture_output=True)
    return scratch / where


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_trained_on_tested_exported_and_loaded_again(name: str, tmp_path: Path) -> None:
    root, (_, layout, k, channels, n) = place(name, tmp_path), SETS[name]
    folder, table, file = tmp_path / "run", tmp_path / "results.jsonl", tmp_path / "alone.safetensors"
    run.fit([*OPTIONS, "--data.root", str(root), "--run", str(folder)])
    result = evaluate.test(["--load", str(folder), "--record", str(table), "--data.root", str(root)])
    assert result["n"] == n and len(result["classes"]) == k and 0 < result["acc"] < 1
    model = vit.load(folder)
    assert model.preprocessing.channels == channels and model.meta["data"]["num_train"] == 60
    assert export(model, "safetensors", file) == 0.0
    again = vit.load(file)
    images = torch.randn(3, channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.net(images), model.net(images)) and again.classes == model.classes
    (line,) = table.read_text().splitlines()
    record = json.loads(line)
    assert record["test"]["data"] == (root.stem if root.is_file() else root.name)
    assert record["test"]["manifest_hash"] == model.meta["data"]["manifest_hash"]
    assert record["config"]["data"]["dataset"] == layout and record["config"]["data"]["root"] is None
    for given_away in (line, (folder / "model.json").read_text(), (folder / "README.md").read_text()):
        assert not [part for part in (str(tmp_path), str(SHARED), str(SHARED.parent)) if part in given_away]


def test_a_model_of_photos_is_tested_on_sketches_of_the_same_classes(tmp_path: Path) -> None:
    photos = place("pacs", tmp_path)
    folder, sketches = tmp_path / "run", photos.parent / "sketch"
    run.fit([*OPTIONS, "--data.root", str(photos), "--run", str(folder)])
    result = evaluate.test(["--load", str(folder), "--data.root", str(sketches)])
    assert result["data"] == "sketch" and (folder / "test-sketch" / "report.html").is_file()
    assert "test" not in vit.load(folder).meta["metrics"]
    with pytest.raises(ValueError, match=r"art_painting: .* found folders: if dog, elephant, .* are the classes"):
        run.fit([*OPTIONS, "--data.root", str(photos.parent), "--run", str(tmp_path / "other")])


def test_the_named_classes_of_cifar_are_those_of_its_config(tmp_path: Path) -> None:
    from vit.data.catalog import describe

    known = yaml.safe_load((config_folder() / "data" / "cifar10.yaml").read_text())
    assert describe(None, str(place("cifar10", tmp_path))).classes == describe(known["data"]["dataset"], None).classes
