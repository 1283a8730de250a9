"""Real data sets in the layouts they come in, from the folder of pictures to an exported file: see ../shared/data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vit
from tests.helpers import TINY
from vit import evaluate, run
from vit.export import export

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = {  # its layout, first class, number of classes, channels, test pictures
    "cifar10": ("npz", "airplane", 10, 3, 10_000),
    "pacs": ("folder", "dog", 7, 3, 21),
    "imagenette": ("folder", "cassette_player", 10, 3, 30),
    "pneumonia": ("npz", "0", 2, 1, 624),
}
FOLDERS = {"pacs": "pacs-96", "imagenette": "imagenette-96"}
FEW = 15  # pictures of a class folder
OPTIONS = [*TINY, "--data.img_size=32", "--data.train_size=60", "--trainer.limit_val_batches=1"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where CIFAR-10 lies as arrays, which its sheets are unpacked to."""
    path = tmp_path_factory.mktemp("unpacked") / "cifar10.npz"
    subprocess.run([sys.executable, SHARED / "unpack_cifar10.py", path], check=True, capture_output=True)
    return path


def place(name: str, scratch: Path, request: pytest.FixtureRequest) -> Path:
    """Arrays as they are; of a folder links to some pictures of each class, in its own layout."""
    where = {**FOLDERS, "cifar10": "cifar10-sheets", "pneumonia": "pneumonia/pneumoniamnist.npz"}[name]
    if not (SHARED / where).exists():
        pytest.skip(f"{name} is not beside the checkout")
    if name == "cifar10":
        return request.getfixturevalue("unpacked")
    if name == "pneumonia":
        return SHARED / where
    for folder in (SHARED / where).glob("*/*"):
        here = scratch / folder.relative_to(SHARED)
        here.mkdir(parents=True)
        for picture in sorted(folder.iterdir())[:FEW]:
            (here / picture.name).symlink_to(picture)
    return scratch / where / ("photo" if name == "pacs" else "")


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_trained_on_tested_exported_and_loaded_again(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root, (layout, first, k, channels, n) = place(name, tmp_path, request), SETS[name]
    folder, table, file = tmp_path / "run", tmp_path / "results.jsonl", tmp_path / "alone.safetensors"
    run.fit([*OPTIONS, "--data.root", str(root), "--run", str(folder)])
    result = evaluate.test(["--load", str(folder), "--record", str(table), "--data.root", str(root)])
    assert (result["n"], len(result["classes"]), next(iter(result["classes"]))) == (n, k, first)
    model = vit.load(folder)
    assert model.preprocessing.channels == channels and model.meta["data"]["num_train"] == 60
    assert export(model, "safetensors", file) == 0.0
    again, images = vit.load(file), torch.randn(3, channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.net(images), model.net(images)) and again.classes == model.classes
    (line,) = table.read_text().splitlines()
    record = json.loads(line)
    assert record["test"]["data"] == (root.stem if root.is_file() else root.name)
    assert record["test"]["manifest_hash"] == model.meta["data"]["manifest_hash"]
    assert record["config"]["data"]["dataset"] == layout and record["config"]["data"]["root"] is None
    for given_away in (line, (folder / "model.json").read_text(), (folder / "README.md").read_text()):
        assert not [part for part in (str(tmp_path), str(root), str(SHARED.parent)) if part in given_away]


def test_a_model_of_photos_is_tested_on_sketches_of_the_same_classes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    photos, folder = place("pacs", tmp_path, request), tmp_path / "run"
    run.fit([*OPTIONS, "--data.root", str(photos), "--run", str(folder)])
    result = evaluate.test(["--load", str(folder), "--data.root", str(photos.parent / "sketch")])
    assert result["data"] == "sketch" and (folder / "test-sketch" / "report.html").is_file()
    assert "test" not in vit.load(folder).meta["metrics"]
    with pytest.raises(ValueError, match=r"art_painting: .* found folders: if dog, elephant, .* are the classes"):
        run.fit([*OPTIONS, "--data.root", str(photos.parent), "--run", str(tmp_path / "other")])
