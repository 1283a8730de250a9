"""`vit probe` on a real run."""

import json
from pathlib import Path

import numpy as np
import pytest

from vit import bundle, cli, probe
from vit.data.images import Preprocessing
from vit.models import CNN

FEW = ["--shots", "1,3", "--draws", "2"]


def test_a_run_is_probed_on_its_own_data_and_recorded(folder: Path, tmp_path: Path, capsys) -> None:
    out, table = tmp_path / "probe.json", tmp_path / "probes.jsonl"
    assert cli.main(["probe", str(folder), *FEW, "--out", str(out), "--record", str(table)]) == 0
    found = json.loads(out.read_text())
    assert (found["data"], found["split"], found["n"], found["n_train"]) == ("digits", "test", 359, 1295)
    assert set(found["features"]) == {"mean of patches", "class token"}
    assert {(row["features"], row["method"], row["shots"]) for row in found["rows"]} == {
        (name, method, shots)
        for name in found["features"]
        for method in ("kNN", "ridge", "logistic")
        for shots in (1, 3, None)
    }
    assert all(row["acc"] == pytest.approx(np.mean(row["values"])) for row in found["rows"])
    said = capsys.readouterr().out
    assert "mean of patches (12)" in said and "3 shots" in said and "on 359 pictures (test)" in said
    line = json.loads(table.read_text())
    assert line["probe"] == found and line["fit"][0]["command"].startswith("vit fit") and "trainer" in line["config"]
    again = probe.probe(["--load", str(folder), *FEW])
    assert again["rows"] == found["rows"]


def test_other_data_and_validation_may_be_named(folder: Path) -> None:
    found = probe.probe(["--load", str(folder), "-c", "data/digits", "--on", "val", "--data.train_size", "200", *FEW])
    assert (found["split"], found["n"], found["n_train"]) == ("val", 143, 200)


def test_a_bundle_made_in_python_needs_its_data_named(tmp_path: Path) -> None:
    net = CNN(8, 1, 3, width=0.25)
    bundle.save(tmp_path, net, classes=list("abc"), preprocessing=Preprocessing((8, 8), 1, (0.5,), (0.25,)))
    with pytest.raises(ValueError, match="name the data, -c data/digits for instance"):
        probe.probe(["--load", str(tmp_path), *FEW])
    found = probe.probe(["--load", str(tmp_path), "--data.dataset", "digits", *FEW])
    assert set(found["features"]) == {"what the head reads"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "vit probe expects a model: vit probe MODEL"),
        (
            ["{run}", "--shots", "1,x"],
            "--shots expects numbers of pictures of each class, such as 1,5,10,25; got",
        ),
        (["{run}", "--draws", "two"], "--draws expects a number, got 'two'"),
        (["{run}", "--draws", "1"], "an interval takes at least 2 draws, got 1"),
        (["{run}", "--on", "train"], "--on expects test or val, got 'train'"),
        (
            ["{run}", "--shots", "500"],
            "500 shots of each class: expected as many of class 8, got 125; --shots takes fewer",
        ),
        (["{run}", "--data.rooot", "x"], "--data.rooot: no such option; did you mean '--data.root'?"),
        (["{run}", "--data.std=[0.5]"], "the model was trained with data.std [0.376], got [0.5]: leave it out"),
        (["{run}", "--data.channels", "3"], "the model takes pictures of 1 channels, got 3"),
        (["gone"], "no model 'gone'"),
    ],
)
def test_errors_are_one_line(args: list[str], message: str, finished: Path, capsys) -> None:
    assert cli.main(["probe", *(argument.format(run=finished) for argument in args)]) == cli.WRONG_USE
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
