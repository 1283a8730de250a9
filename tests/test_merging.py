"""Coarser labels on the command line: fit, validate, test, predict, check, transfer."""

import json
from pathlib import Path

import pytest

from tests.helpers import TINY
from tests.idx import fashion_mnist
from vit import bundle, check, evaluate, run

CLASSES = ("upper body", "trousers", "dress", "shoe", "bag")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on coarse labels and where its pictures lie."""
    folder = tmp_path_factory.mktemp("coarse")
    place = fashion_mnist(folder / "data")
    arguments = ["-c", "data/fashion_mnist_coarse", f"--data.root={place}", "--data.train_size=60"]
    return run.fit([*TINY, *arguments, "--run", str(folder / "run")]).folder, place


def test_a_run_knows_its_coarse_classes_and_is_tested_validated_and_asked(fitted: tuple[Path, Path]):
    folder, _ = fitted
    model = bundle.load(folder, "cpu")
    assert model.classes == CLASSES and model.meta["data"]["name"] == "fashion_mnist-coarse"
    result = evaluate.test(["--load", str(folder)])
    assert {name: row["n"] for name, row in result["classes"].items()} == dict(
        zip(CLASSES, (16, 4, 4, 12, 4), strict=True)
    )
    assert result["manifest_hash"] == model.meta["data"]["manifest_hash"]
    assert "val/acc" in evaluate.validate(["--load", str(folder)])
    (answer,) = evaluate.predict(["--load", str(folder), "--data.pictures", str([str(folder / "curves.png")])])
    assert answer.label in CLASSES and set(answer.top) <= set(CLASSES)


def test_a_bundle_given_away_keeps_the_names_and_is_tested_where_the_pictures_lie(
    fitted: tuple[Path, Path], tmp_path: Path
):
    folder, place = fitted
    for name in (bundle.RECORD, bundle.WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    kept = json.loads((tmp_path / bundle.RECORD).read_text())["config"]["data"]
    assert kept["root"] is None and kept["merge_classes"]["upper body"] == ["T-shirt/top", "Pullover", "Coat", "Shirt"]
    assert evaluate.test(["--load", str(tmp_path), f"--data.root={place}"])["n"] == 40
    groups = {"upper body": ["Pullover", "Coat", "Shirt"], "trousers": ["Trouser", "T-shirt/top"]}
    groups |= {name: kept["merge_classes"][name] for name in ("dress", "shoe", "bag")}
    again = ["--load", str(tmp_path), f"--data.root={place}", f"--data.merge_classes={json.dumps(groups)}"]
    with pytest.raises(ValueError, match="the data's 5 classes are not the model's 5: they come in another order"):
        evaluate.test(again)


def test_other_groups_need_every_class(fitted: tuple[Path, Path], tmp_path: Path):
    groups = json.dumps({"shoe": ["Sandal", "Sneaker"], "bag": ["Bag", "Bagg"]})
    with pytest.raises(ValueError, match=r"^merge_classes names every class .* missing: T-shirt/top.*; unknown: Bagg$"):
        run.fit([*TINY, "-c", "data/fashion_mnist", f"--data.root={fitted[1]}", f"--data.merge_classes={groups}"])


def test_check_counts_coarse_classes(fitted: tuple[Path, Path]):
    found = check.survey(f"data/fashion_mnist_coarse={fitted[1]}")
    assert found.name == "fashion_mnist-coarse" and found.classes == CLASSES
    assert found.counts == {"train": [48, 12, 12, 36, 12], "test": [16, 4, 4, 12, 4]}
    assert check.survey(f"data/fashion_mnist={fitted[1]}").counts["train"] == [12] * 10
