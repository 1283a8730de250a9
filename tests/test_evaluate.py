"""A trained model validated, tested and used, by the functions Python calls."""

import base64
import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import vit
from tests.helpers import TINY
from vit import cli, evaluate, run
from vit.commandline import record
from vit.commandline.predictions import Predicted
from vit.commandline.trained import open_trained
from vit.data import catalog
from vit.data.module import Images
from vit.export import export


def test_test_reports_accuracy_n_and_interval(folder: Path) -> None:
    result = evaluate.test(["--load", str(folder)])
    low, high = result["acc_95"]
    assert result["n"] == 359 and 0 <= low <= result["acc"] <= high <= 1
    assert result["data"] == "digits" and len(result["manifest_hash"]) == 64
    assert json.loads((folder / "test.json").read_text()) == json.loads(json.dumps(result))
    assert vit.load(folder).meta["metrics"]["test"]["acc"] == pytest.approx(result["acc"])
    assert result["classes"].keys() == set("0123456789") and sum(row["n"] for row in result["classes"].values()) == 359
    assert result["acc_top5"] > result["acc"] and 0 <= result["balanced_acc"] <= 1


def test_a_test_leaves_its_pictures_and_a_page(folder: Path) -> None:
    result = evaluate.test(["--load", str(folder)])
    page = (folder / "report.html").read_text()
    for name in ("samples.png", "curves.png", "confusion.png", "mistakes.png"):
        assert base64.b64encode((folder / name).read_bytes()).decode() in page
    low, high = (100 * bound for bound in result["acc_95"])
    assert f"{100 * result['acc']:.1f} % ({low:.1f} to {high:.1f}) of 359 test pictures of digits are right." in page
    measured = vit.load(folder).meta["metrics"]["last"]
    low, high = (round(bound, 4) for bound in measured["val/acc_95"])
    assert f"val/acc_95 {low} to {high}, val/n 143" in page
    assert "http" not in page and "vit fit -c model/vit_nano" in page and "seed_everything: 0" in page


def test_the_mistakes_are_the_surest_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("vit.tasks.pictures.plots.samples", lambda pictures, titles: drawn.append((pictures, titles)))
    monkeypatch.setattr("vit.tasks.pictures.write_picture", lambda figure, path: None)
    evaluate.test(["--load", str(folder)])
    ((pictures, titles),) = drawn
    assert pictures.shape == (24, 8, 8, 1) and pictures.dtype == "uint8" and len(titles) == 24
    shares = [int(re.fullmatch(r"(\d), not\n(?!\1)\d \((\d+)%\)", title)[2]) for title in titles]  # pyright: ignore
    assert shares == sorted(shares, reverse=True)
    model = vit.load(folder)
    for picture, title in zip(pictures, titles, strict=True):
        assert model.predict(picture)[0].label == title[7]


def test_test_agrees_with_the_bundle(folder: Path) -> None:
    """Lightning's route and `vit.load` give the same answers."""
    result = evaluate.test(["--load", str(folder)])
    source = catalog.load("digits", None, "test")
    assert source is not None
    predictions = vit.load(folder, device="cpu").predict(list(source.pictures))
    right = sum(int(p.label) == label for p, label in zip(predictions, source.labels.tolist(), strict=True))
    assert right == round(result["acc"] * result["n"])


def test_a_checkpoint_is_tested_apart(folder: Path) -> None:
    result = evaluate.test(["--load", str(folder / "checkpoints/last.ckpt")])
    assert result["weights"] == "last.ckpt"
    assert (folder / "test-last/test.json").is_file() and not (folder / "test.json").exists()
    average = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["EMA"]["weights"]
    net = open_trained(str(folder / "checkpoints/last.ckpt")).net  # validation measured the averaged weights
    assert all(torch.equal(tensor, average[f"net.{name}"]) for name, tensor in net.state_dict().items())


def test_another_validation_split_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"seed_everything 7 would draw another validation split than the run's 0"):
        evaluate.validate(["--load", str(folder), "--seed_everything", "7"])


def test_data_that_changed_since_training_are_refused(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(Images, "manifest_hash", "of other pictures")
    with pytest.raises(ValueError, match="'digits' changed since the model was trained on it"):
        evaluate.test(["--load", str(folder)])


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_one_of_several_processes_has_no_result(folder: Path, command: str) -> None:
    several = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    with pytest.raises(ValueError, match=rf"vit {command} runs on one device, got 2: leave out --trainer\.devices"):
        getattr(evaluate, command)(["--load", str(folder), *several])


def test_part_of_the_test_split_is_no_result_of_the_run(folder: Path) -> None:
    evaluate.test(["--load", str(folder), "--trainer.limit_test_batches", "1"])
    assert not (folder / "test.json").exists() and (folder / "test-part/test.json").is_file()
    assert "test" not in json.loads((folder / "model.json").read_text())["metrics"]


def test_a_bundle_alone_is_enough(folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(folder / name, bundle / name)
    assert evaluate.test(["--load", str(bundle)])["acc"] == evaluate.test(["--load", str(folder)])["acc"]
    assert evaluate.validate(["--load", str(bundle)]) == evaluate.validate(["--load", str(folder)])
    file = tmp_path / "file" / "model.safetensors"
    export(vit.load(folder, "cpu"), "safetensors", file)
    assert evaluate.test(["--load", str(file)])["acc"] == evaluate.test(["--load", str(folder)])["acc"]
    assert (file.parent / "test.json").is_file()


def test_options_override_what_is_stored(folder: Path, tmp_path: Path) -> None:
    """Other data of the same classes; the model's own preprocessing stays."""
    source = catalog.load("digits", None, "test")
    assert source is not None
    for place, (pixels, label) in enumerate(zip(source.pictures, source.labels.tolist(), strict=True)):
        for split in ("train", "test"):
            path = tmp_path / f"photos/{split}/{label}/{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0]).save(path)
    own = evaluate.test(["--load", str(folder)])
    other = evaluate.test(["--load", str(folder), "--data.root", str(tmp_path / "photos"), "--data.batch_size", "50"])
    assert (other["acc"], other["n"], other["data"]) == (own["acc"], own["n"], "photos")
    assert (folder / "test-photos/test.json").is_file()
    assert json.loads((folder / "test.json").read_text())["data"] == "digits"


def test_data_of_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("0", "1", "cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("L", (8, 8), number).save(tmp_path / "photos" / name / f"{number}.png")
    with pytest.raises(ValueError, match="3 classes are not the model's 10: the model does not know 'cat'"):
        evaluate.test(["--load", str(folder), "--data.root", str(tmp_path / "photos")])
    shutil.rmtree(tmp_path / "photos/cat")
    with pytest.raises(ValueError, match="2 classes are not the model's 10: the data lacks '2'"):
        evaluate.test(["--load", str(folder), "--data.root", str(tmp_path / "photos")])


def test_a_scale_the_model_does_not_know(folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"the model was trained with data\.mean \[0\.305\], got \[0\.5\]: leave it out"
    ):
        evaluate.test(["--load", str(folder), "--data.mean=[0.5]"])
    assert evaluate.test(["--load", str(folder), "--data.mean=[0.305]"])


def test_channels_the_model_does_not_take(folder: Path) -> None:
    with pytest.raises(ValueError, match="the model takes pictures of 1 channels, got 3"):
        evaluate.test(["--load", str(folder), "--data.channels", "3"])


def test_predict(folder: Path, tmp_path: Path) -> None:
    source = catalog.load("digits", None, "test")
    assert source is not None
    for place in range(5):
        Image.fromarray(source.pictures[place][..., 0]).save(tmp_path / f"{place}.png")
    args = ["--load", str(folder), f'--data.pictures=["{tmp_path}/*.png"]']
    predictions = evaluate.predict([*args, "--out", str(tmp_path / "out/p.json"), "--top_k", "4"])
    expected = vit.load(folder, device="cpu").predict([tmp_path / f"{place}.png" for place in range(5)], top_k=4)
    for place, (ours, theirs) in enumerate(zip(predictions, expected, strict=True)):
        assert (ours.file, ours.label) == (str(tmp_path / f"{place}.png"), theirs.label)
        assert ours.top == pytest.approx(theirs.probabilities, abs=1e-6)
        assert ours.probability == max(ours.top.values()) and len(ours.top) == 4
    written = json.loads((tmp_path / "out/p.json").read_text())
    assert [Predicted(**entry) for entry in written] == predictions
    evaluate.predict([*args, "--out", str(tmp_path / "p.csv")])
    with (tmp_path / "p.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["label"] for row in table] == [prediction.label for prediction in predictions]
    assert [float(row["probability"]) for row in table] == [prediction.probability for prediction in predictions]
    assert list(table[0])[3:] == ["label_2", "probability_2", "label_3", "probability_3", "error"]


def test_a_picture_that_cannot_be_read_is_listed_in_its_place(folder: Path, tmp_path: Path, capsys) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "p.csv"
    pictures.mkdir()
    for place in range(3):
        Image.new("L", (8, 8), 80 * place).save(pictures / f"{place}.png")
    (pictures / "1.png").write_bytes(b"no picture")
    assert cli.main(["predict", str(folder), str(pictures), "--out", str(out)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"1 of 3 pictures cannot be read: {pictures}/1.png: expected a picture" in said
    with out.open() as file:
        first, broken, last = csv.DictReader(file)
    assert broken["file"] == f"{pictures}/1.png" and broken["label"] == "" and "none of them" in broken["error"]
    assert first["error"] == last["error"] == "" and first["label"] and last["file"] == f"{pictures}/2.png"
    (pictures / "0.png").unlink()
    (pictures / "2.png").unlink()
    with pytest.raises(ValueError, match="no picture to predict can be read"):
        evaluate.predict(["--load", str(folder), f'--data.pictures=["{pictures}/1.png"]'])


def test_logits_and_embeddings_are_the_nets(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pictures, out, table = tmp_path / "pictures", tmp_path / "p.json", tmp_path / "p.csv"
    pictures.mkdir()
    random = np.random.default_rng(0)
    for place in (0, 1, 3, 4):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(pictures / f"{place}.png")
    (pictures / "2.png").write_bytes(b"no picture")
    for path in (out, table):
        args = ["predict", str(folder), str(pictures), "--out", str(path), "--include", "logits,embeddings"]
        assert cli.main([*args, "--data.batch_size", "3"]) == 1
    model = vit.load(folder, device="cpu")
    entries = json.loads(out.read_text())
    assert [entry["file"] for entry in entries] == [str(pictures / f"{place}.png") for place in range(5)]
    assert entries[2]["logits"] is None and entries[2]["embedding"] is None and entries[2]["error"]
    for entry in entries[:2] + entries[3:]:
        with torch.inference_mode():
            logits = model.net(model.preprocessing(entry["file"])[None])[0]
        assert_close(torch.tensor(entry["logits"]), logits)
        assert_close(torch.tensor(entry["embedding"]), model.embed(entry["file"])[0])
        assert model.classes[int(logits.argmax())] == entry["label"]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["logit_7"] for row in rows] == ["" if e["error"] else str(e["logits"][7]) for e in entries]
    assert [row["embedding_11"] for row in rows] == ["" if e["error"] else str(e["embedding"][11]) for e in entries]


def test_include_is_checked(finished: Path) -> None:
    args = ["--load", str(finished), '--data.pictures=["x.png"]', "--include"]
    with pytest.raises(ValueError, match="--include expects logits or embeddings, or both; got 'logit'"):
        evaluate.predict([*args, "logit", "--out", "p.csv"])
    with pytest.raises(ValueError, match="--include embeddings expects a file for the numbers: --out"):
        evaluate.predict([*args, "embeddings"])


def test_predict_needs_no_training_data(folder: Path, tmp_path: Path) -> None:
    """The run's data may be gone, or on another machine."""
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("root: null", "root: /gone/photos"))
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    (prediction,) = evaluate.predict(["--load", str(folder), f'--data.pictures=["{tmp_path}/x.png"]'])
    assert prediction.label in "0123456789"


@pytest.mark.parametrize("top_k", ["0", "11", "many", "-1"])
def test_top_k_is_checked(finished: Path, top_k: str) -> None:
    with pytest.raises(ValueError, match=f"--top_k expects a number from 1 to 10, .* got '{top_k}'"):
        evaluate.predict(["--load", str(finished), "--top_k", top_k, '--data.pictures=["x.png"]'])


def test_near_names_of_models_are_suggested(finished: Path) -> None:
    with pytest.raises(ValueError, match=r"did you mean '.*/finished'\?"):
        evaluate.test(["--load", str(finished.with_name("finishd"))])


def photos(root: Path, shade: int = 0, count: int = 8) -> Path:
    for name, colour in (("cat", 40), ("dog", 150)):
        for i in range(count):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), colour + shade + i).save(path)
    return root


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A run on a user's 16 photos, of which 4 are for testing, and the bundle that was ``given`` of it."""
    photos(tmp_path / "photos")
    lines = [f"photos/{path.parent.name}/{path.name},{path.parent.name}" for path in tmp_path.rglob("*.png")]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    args = ["--data.root", str(tmp_path / "labels.csv"), "--data.img_size=8", "--data.channels=1"]
    run.fit([*TINY, *args, "--run", str(tmp_path / "run")])
    for name in ("model.json", "model.safetensors"):
        (tmp_path / "given").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "run" / name, tmp_path / "given")
    return tmp_path


def test_a_bundle_of_a_users_pictures_predicts_alone_and_is_tested_elsewhere(users: Path) -> None:
    given = users / "given"
    assert str(users) not in (given / "model.json").read_text()
    (predicted,) = evaluate.predict(["--load", str(given), f'--data.pictures=["{users}/photos/cat/0.png"]'])
    assert predicted.label in ("cat", "dog")
    with pytest.raises(ValueError, match=r"'csv' needs its place: --data.root FILE"):
        evaluate.test(["--load", str(given)])
    moved = shutil.copytree(users, users.with_name("moved"), ignore=shutil.ignore_patterns("run", "given"))
    result = evaluate.test(["--load", str(given), "--data.root", str(moved / "labels.csv")])
    assert (result["n"], result["split"]) == (4, "test")


def test_a_new_folder_without_splits_is_tested_as_a_whole_and_this_is_said(users: Path, capsys) -> None:
    new = str(photos(users / "new", shade=60, count=5))
    for model, told in (
        ("run", "none of them is among its training or validation data"),
        ("given", "some of them is not known"),
    ):
        result = evaluate.test(["--load", str(users / model), "--data.root", new])
        assert (result["n"], result["split"], result["data"]) == (10, "all", "new")
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(new)]
        assert len(said) == 1 and "is not the data the model was trained on" in said[0] and said[0].endswith(told)
        assert json.loads((users / model / "test-new" / "test.json").read_text())["split"] == "all"


def test_no_picture_that_a_run_has_seen_is_tested(users: Path, capsys) -> None:
    more = photos(users / "more")  # all of them the model's, and one new
    Image.new("L", (8, 8), 99).save(more / "cat" / "new.png")
    with pytest.raises(ValueError, match=r"12 of the 17 pictures .*more are .*: (cat|dog)/\d\.png, .* and 9 more;"):
        evaluate.test(["--load", str(users / "run"), "--data.root", str(more)])
    assert evaluate.test(["--load", str(users / "given"), "--data.root", str(more)])["n"] == 17
    assert "whether it has seen some of them is not known" in capsys.readouterr().out
    for split in ("train", "test"):
        shutil.copytree(users / "photos", users / "own" / split)
    with pytest.raises(ValueError, match=r"12 of the 16 pictures .*own are among .*: test/(cat|dog)/"):
        evaluate.test(["--load", str(users / "run/checkpoints/last.ckpt"), "--data.root", str(users / "own")])
    assert evaluate.test(["--load", str(users / "given"), "--data.root", str(users / "own")])["n"] == 16


def test_data_with_some_splits_but_none_to_test_on_are_refused(users: Path) -> None:
    for split in ("train", "val"):
        photos(users / "half" / split, shade=60)
    with pytest.raises(ValueError, match=r"half is not the data .* has no test split of its own, but others: name"):
        evaluate.test(["--load", str(users / "given"), "--data.root", str(users / "half")])


def test_what_the_start_of_a_run_has_seen_is_said_to_be_unknown(users: Path, capsys) -> None:
    other = ["--data.root", str(photos(users / "other", shade=60)), "--data.img_size=8", "--data.channels=1"]
    run.fit([*TINY, *other, "--model.init_from", str(users / "run"), "--run", str(users / "tuned")])
    evaluate.test(["--load", str(users / "tuned"), "--data.root", str(photos(users / "new", shade=80))])
    assert "validation data; what its start or its teacher has seen is not known" in capsys.readouterr().out


def test_a_run_on_pictures_that_are_not_square_is_tested_in_its_folder(tmp_path: Path) -> None:
    size = ["--data.img_size=[8,12]", "--model.init_args.net.init_args.backbone.init_args.patch_size=4"]
    own = ["--data.root", str(photos(tmp_path / "photos")), "--data.channels=1"]
    run.fit([*TINY, *own, *size, "--run", str(tmp_path / "run")])
    for again in ([], ["--data.img_size=[8,12]"]):
        (tmp_path / "run" / "test.json").unlink(missing_ok=True)
        evaluate.test(["--load", str(tmp_path / "run"), *again])
        assert (tmp_path / "run" / "test.json").is_file() and not (tmp_path / "run" / "test-resized").exists()
    evaluate.test(["--load", str(tmp_path / "run"), "--data.img_size=8"])
    assert (tmp_path / "run" / "test-resized" / "test.json").is_file()


def test_a_range_of_values_is_that_of_the_pictures_asked_for(users: Path) -> None:
    dim = Image.fromarray(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8))
    dim.save(users / "dim.png")
    args = ["--load", str(users / "run"), f'--data.pictures=["{users}/dim.png"]']
    (full,), (ranged,) = evaluate.predict(args), evaluate.predict([*args, "--data.value_range=[0,4095]"])
    assert full.top != ranged.top
    stretched = Image.fromarray((np.asarray(dim) * (65535 / 4095)).round().astype(np.uint16))
    stretched.save(users / "dim.png")
    (expected,) = evaluate.predict(args)
    assert ranged.top == pytest.approx(expected.top, abs=1e-3)
    with pytest.raises(
        ValueError, match=r"trained on values of the full range of these pictures, got .* \(0.0, 4095.0\)"
    ):
        evaluate.test(["--load", str(users / "run"), "--data.value_range=[0,4095]"])


def test_files_are_not_found_among_arrays(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The same pictures, saved as files: they have other prints."""
    source = catalog.load("digits", None, "train")
    assert source is not None
    for place, label in enumerate(source.labels.tolist()[:99]):
        (tmp_path / "files" / f"{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.pictures[place][..., 0]).save(tmp_path / "files" / f"{label}" / f"{place}.png")
    assert evaluate.test(["--load", str(folder), "--data.root", str(tmp_path / "files")])["n"] == 99
    assert "whether it has seen some of them is not known" in capsys.readouterr().out


def test_the_prints_of_what_was_seen_stay_in_the_run(users: Path) -> None:
    seen = record.seen_by(users / "run")
    assert seen is not None and seen.kind == "files" and len(seen.values) == 12
    assert record.seen_by(users / "given") is None and "seen" not in (users / "given" / "model.json").read_text()
