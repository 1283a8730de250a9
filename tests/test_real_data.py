"""Real data sets in the layouts they come in, from the folder of pictures to an exported file: see ../shared/data."""

import json
import runpy
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import vit
from tests.helpers import TINY
from vit import evaluate, run
from vit.export import export

SHARED = Path(__file__).parents[2] / "shared" / "data"
SETS = {  # its layout, first class, number of classes, channels, test pictures
    "cifar10": ("npz", "airplane", 10, 3, 1000),
    "pacs": ("folder", "dog", 7, 3, 14),
    "imagenette": ("folder", "cassette_player", 10, 3, 20),
    "pneumonia": ("npz", "0", 2, 1, 624),
}
PLACES = {"cifar10": "cifar10-sheets", "pacs": "pacs-96", "imagenette": "imagenette-96", "pneumonia": "pneumonia"}
FEW = 10  # pictures of a class folder
OPTIONS = [*TINY, "--data.img_size=16", "--data.train_size=40", "--data.batch_size=16", "--trainer.max_epochs=1"]


def place(name: str, scratch: Path) -> Path:
    """X-rays as they are, CIFAR-10 unpacked in part; of a folder links to some pictures of each class."""
    there = SHARED / PLACES[name]
    if not there.exists():
        pytest.skip(f"{name} is not beside the checkout")
    if name == "cifar10":
        return unpacked(there, scratch)
    if name == "pneumonia":
        return there / "pneumoniamnist.npz"
    for folder in there.glob("*/*"):
        here = scratch / folder.relative_to(SHARED)
        here.mkdir(parents=True)
        for picture in sorted(folder.iterdir())[:FEW]:
            (here / picture.name).symlink_to(picture)
    return scratch / there.name / ("photo" if name == "pacs" else "")


def unpacked(sheets: Path, scratch: Path) -> Path:
    """The first of the sheets of each split as arrays, by the script that lies beside them."""
    script, arrays = runpy.run_path(str(SHARED / "unpack_cifar10.py")), {}
    read = script["read_split"]
    read.__globals__["HERE"] = scratch
    for split in ("train", "test"):
        (scratch / f"{split}_00.webp").symlink_to(sheets / f"{split}_00.webp")
        arrays[f"{split}_images"] = read(split)
        arrays[f"{split}_labels"] = np.load(sheets / f"{split}_labels.npy")[: len(arrays[f"{split}_images"])]
    np.savez(scratch / "cifar10.npz", classes=np.array((sheets / "classes.txt").read_text().split()), **arrays)
    return scratch / "cifar10.npz"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Where a set lies and the folder of a run on it, which both tests of PACS share."""

    @cache
    def train(name: str) -> tuple[Path, Path]:
        scratch = tmp_path_factory.mktemp(name)
        root, folder = place(name, scratch), scratch / "run"
        run.fit([*OPTIONS, "--data.root", str(root), "--run", str(folder)])
        return root, folder

    return train


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_trained_on_tested_exported_and_loaded_again(
    name: str, tmp_path: Path, trained: Callable[[str], tuple[Path, Path]]
) -> None:
    (root, folder), (layout, first, k, channels, n) = trained(name), SETS[name]
    table, file = tmp_path / "results.jsonl", tmp_path / "alone.safetensors"
    result = evaluate.test(["--load", str(folder), "--record", str(table), "--data.root", str(root)])
    assert (result["n"], len(result["classes"]), next(iter(result["classes"]))) == (n, k, first)
    model = vit.load(folder)
    assert model.preprocessing.channels == channels and model.meta["data"]["num_train"] == 40
    assert export(model, "safetensors", file) == 0.0
    again, images = vit.load(file), torch.randn(3, channels, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.net(images), model.net(images)) and again.classes == model.classes
    (line,) = table.read_text().splitlines()
    record = json.loads(line)
    assert record["test"]["data"] == (root.stem if root.is_file() else root.name)
    assert record["test"]["manifest_hash"] == model.meta["data"]["manifest_hash"]
    assert record["config"]["data"]["dataset"] == layout and record["config"]["data"]["root"] is None
    for given_away in (line, (folder / "model.json").read_text(), (folder / "README.md").read_text()):
        assert not [part for part in (str(tmp_path), str(root), str(folder), str(SHARED.parent)) if part in given_away]


def test_a_model_of_photos_is_tested_on_sketches_of_the_same_classes(
    tmp_path: Path, trained: Callable[[str], tuple[Path, Path]]
) -> None:
    photos, first = trained("pacs")
    folder = shutil.copytree(first, tmp_path / "run", ignore=shutil.ignore_patterns("test*"))
    before = vit.load(folder).meta["metrics"]
    whole = evaluate.test(["--load", str(folder), "--data.root", str(photos.parent / "sketch")])
    assert (whole["split"], whole["data"]) == ("all", "sketch") and (folder / "test-sketch" / "report.html").is_file()
    shifted = tmp_path / "shifted"
    for split, domain in (("train", "photo"), ("test", "sketch")):
        shutil.copytree(photos.parent / domain, shifted / split)
    result = evaluate.test(["--load", str(folder), "--data.root", str(shifted)])
    assert (result["n"], result["data"]) == (whole["n"], "shifted") and (
        folder / "test-shifted" / "report.html"
    ).is_file()
    assert vit.load(folder).meta["metrics"] == before
    with pytest.raises(ValueError, match=r"art_painting: .* found folders: if dog, elephant, .* are the classes"):
        run.fit([*OPTIONS, "--data.root", str(photos.parent), "--run", str(tmp_path / "other")])
