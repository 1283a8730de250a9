"""The transfer study itself: a small one from the command line, what its runs start from, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.idx import fashion_mnist
from vit import bundle
from vit.commandline.quiet import quiet
from vit.experiments.gains import same_pictures
from vit.experiments.grid import TUNE_SEED
from vit.experiments.ledger import ROWS, continues, read
from vit.experiments.options import parse
from vit.experiments.runner import config_hash
from vit.experiments.stages import Stages, Transfer
from vit.experiments.transfer_plan import TransferPlan, merged, plan

SMALL = {"net": {"init_args": {"backbone": {"init_args": {"patch_size": 4, "depth": 1, "embed_dim": 16}}}}}
YAML = {
    "host": ["model/vit_pico"],
    "methods": {"supervised": [], "mae": ["pretrain/mae"]},
    "rows": ["scratch-long", "supervised@*", "mae"],
    "labels": 30,
    "amount": 2,
    "pretrain_amount": 3,
    "seeds": 1,
    "trials": [{"lr": 2.0e-3}],
    "fit": {
        "trainer": {
            "callbacks": [{"class_path": "vit.tasks.release.Release", "init_args": {"weights": "last"}}],
            "enable_checkpointing": False,
            "enable_progress_bar": False,
        },
        "model": {"init_args": SMALL},
        "data": {"batch_size": 30, "augment": "none"},
    },
    "pretrain": {"data": {"batch_size": 40}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's YAML, and a source: grey blobs of three classes, larger than digits."""
    folder, labels = tmp_path_factory.mktemp("transfer"), np.arange(60) % 3
    pictures = np.repeat(np.arange(60, dtype=np.uint8) % 3 * 80, 81).reshape(60, 9, 9)
    parts = {"train": slice(0, 60), "val": slice(0, 12), "test": slice(0, 12)}
    arrays = {f"{name}_images": pictures[part] for name, part in parts.items()}
    np.savez(folder / "blobs.npz", **arrays, **{f"{name}_labels": labels[part, None] for name, part in parts.items()})
    (folder / "study.yaml").write_text(yaml.safe_dump(YAML))
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, str]:
    """A finished study and what it printed; not to be written to."""
    words = ["study", "transfer", "-c", "study.yaml", "--sources", "blobs.npz", "--out", "out", "--workers", "1"]
    done = subprocess.run([sys.executable, "-m", "vit", *words], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return place / "out", done.stdout


def test_every_pretraining_is_a_cell_and_every_finetuning_begins_with_that_of_its_seed(
    finished: tuple[Path, str], tmp_path: Path
):
    out, said = finished
    rows = {row["key"]: row for row in read(out / ROWS)}
    origins, entries = ("mae@digits-1295", "supervised@blobs-60"), ("scratch-long", "supervised@blobs", "mae")
    pretrained = {f"pretrain-{name}-{seed}-32-true" for name in origins for seed in (0, 1000)}
    tuned = {f"tune-digits.{name}-30-1000-32-true-0" for name in entries}
    run = {f"run-digits.{name}-30-0-32-true" for name in entries}
    assert set(rows) == pretrained | tuned | run and {row["status"] for row in rows.values()} == {"done"}
    for key, row in rows.items():
        assert row["steps"] == (3 if key in pretrained else 6 if "long" in key else 2)  # 2 + 3 * 40 / 30 pictures
        assert row["commit"] and row["config_hash"] and row["manifest_hash"] and row["seconds"] > 0
        assert str(out) not in json.dumps(row) and row["command"].startswith("vit fit -c model/vit_pico")
        assert (row.get("probe") is not None) == (key in run and "long" not in key)
    assert len({rows[key]["subset_hash"] for key in run}) == 1
    for key in tuned | run:
        config = yaml.safe_load((out / "runs" / key / "config.yaml").read_text())
        start = config["model"]["init_args"]["init_from"]
        expected = None if "long" in key else "mae@digits-1295" if "mae" in key else "supervised@blobs-60"
        assert start == (expected and str(Path("out", "runs", f"pretrain-{expected}-{rows[key]['seed']}-32-true")))
        (other := tmp_path / f"{key}.yaml").write_text(
            (out / "runs" / key / "config.yaml").read_text().replace("init_from: out/", "init_from: /elsewhere/")
        )
        assert config_hash(other) == rows[key]["config_hash"] and (expected is None or "elsewhere" in other.read_text())
    kept = {"model.safetensors", "model.json", "config.yaml"}
    for key in rows:  # what is large is gone, also of what was finetuned from
        left = {path.name for path in (out / "runs" / key).iterdir()}
        assert kept <= left and left.isdisjoint({"seen.npz", "checkpoints"})
    assert "No gain is claimed" in said and (out / "report.html").is_file() and (out / "transfer.png").is_file()


def test_finetuning_starts_near_its_pretraining_and_far_from_a_fresh_net(finished: tuple[Path, str]):
    out, _ = finished
    tuned, before = (
        bundle.load(out / "runs" / name, device="cpu").net.get_parameter("backbone.patch_embed.proj.weight")
        for name in ("run-digits.mae-30-0-32-true", "pretrain-mae@digits-1295-0-32-true")
    )
    fresh = bundle.load(out / "runs" / "run-digits.scratch-long-30-0-32-true", device="cpu").net
    far = (fresh.get_parameter("backbone.patch_embed.proj.weight") - before).norm()
    assert 0 < (tuned - before).norm() < far


def planned(place: Path, *options: str) -> Stages:
    torch.set_num_threads(1)
    asked = parse(["-c", str(place / "study.yaml"), "--sources", str(place / "blobs.npz"), *options], Transfer)
    with quiet():
        return plan(asked.settings, asked.configs, asked.options).study


@pytest.mark.parametrize(
    "options, said",
    [
        (["--rows", "scratch,supervised"], "would learn from the labels of the target digits"),
        (["--sources", "data/digits", "--rows", "supervised@*"], "would learn from the labels of the target digits"),
        (["--rows", "scratch,mea"], "unknown row 'mea'"),
        (["--labels", "5"], "leaves some of the 10 classes without a picture"),
        (["--data.root", "."], "--data.root is set by the study, for every run: see --targets"),
        (["--labels", "0"], "labels must be at least 1, got 0"),
        (["--model.net.backbone.patch_embed", "vit.layers.ConvStem"], "looks at other patches"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(place: Path, options: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        planned(place, *options)


def own_pictures(place: Path) -> str:
    """Nine pictures without labels, as a source or target is named."""
    (place / "own").mkdir(exist_ok=True)
    for number in range(9):
        Image.new("L", (9, 9), number).save(place / "own" / f"{number}.png")
    return f"data/unlabelled={place / 'own'}"


def test_pictures_without_labels_are_no_source_of_what_needs_some(place: Path):
    with pytest.raises(ValueError, match=r"^row 'supervised@own' needs labels: .* got 'own' with 'unlabelled' alone"):
        planned(place, "--sources", own_pictures(place), "--rows", "supervised@own")


@pytest.mark.slow
def test_pictures_without_labels_are_a_source_of_what_needs_none_and_no_target(place: Path):
    own = own_pictures(place)
    study = planned(place, "--sources", own, "--rows", "scratch,mae@*")
    assert [entry.row for entry in study.entries] == ["scratch", "mae@own"]
    assert (study.sets["own"]["train"], study.sets["own"]["test"]) == (8, 0)
    with pytest.raises(ValueError, match=r"^a target needs labels: .* got 'own' with 'unlabelled' alone"):
        planned(place, "--targets", own, "--rows", "scratch")


def test_coarser_labels_of_the_targets_pictures_are_a_source_and_finer_ones_are_not(tmp_path: Path):
    torch.set_num_threads(1)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(YAML))
    fine, coarse = (f"data/fashion_mnist{end}={fashion_mnist(tmp_path / end)}" for end in ("", "_coarse"))

    def made(target: str, source: str) -> TransferPlan:
        words = ["-c", str(tmp_path / "study.yaml"), "--targets", target, "--sources", source]
        asked = parse([*words, "--rows", "scratch,supervised@*,mae@*"], Transfer)
        with quiet():
            return plan(asked.settings, asked.configs, asked.options)

    planned = made(fine, coarse)
    study = planned.study
    assert [entry.row for entry in study.entries] == [
        "scratch",
        *(f"{m}@fashion_mnist-coarse" for m in ("supervised", "mae")),
    ]
    own, other = study.sets["fashion_mnist"], study.sets["fashion_mnist-coarse"]
    assert other["coarse_of"] == own["manifest_hash"] != other["manifest_hash"] and "coarse_of" not in own
    assert (own["classes"], other["classes"], own["train"], other["train"]) == (10, 5, 110, 110)
    (said,) = same_pictures(study.to_dict())
    assert said.startswith("fashion_mnist-coarse is no other data set than fashion_mnist: the same 110 pictures")
    with pytest.raises(ValueError, match="would learn from the labels of the target fashion_mnist-coarse"):
        made(coarse, fine)


@pytest.mark.slow
def test_a_coarse_source_is_pretrained_and_finetuned_from(tmp_path: Path):
    place = fashion_mnist(tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(YAML | {"rows": ["scratch", "supervised@*"]}))
    words = [sys.executable, "-m", "vit", "study", "transfer", "-c", "study.yaml", "--workers", "1", "--out", "out"]
    words += ["--sources", f"data/fashion_mnist_coarse={place}", "--targets", f"data/fashion_mnist={place}"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "fashion_mnist-coarse is no other data set than fashion_mnist" in done.stdout
    runs, name = tmp_path / "out" / "runs", "supervised@fashion_mnist-coarse"
    classes = {key: bundle.load(runs / key, device="cpu").classes for key in (
        f"pretrain-{name}-110-0-32-true", f"run-fashion_mnist.{name}-30-0-32-true"
    )}  # fmt: skip
    assert [len(names) for names in classes.values()] == [5, 10]


@pytest.mark.slow
def test_a_study_may_gain_rows_and_seeds_and_nothing_else(place: Path):
    before: dict[str, Any] = json.loads(json.dumps(planned(place, "--rows", "scratch").to_dict()))
    grown = planned(place, "--rows", "scratch,mae", "--seeds", "2")
    continues(before, grown.to_dict(), place)
    assert [cell.seed for cell in grown.first()] == [TUNE_SEED, TUNE_SEED, 0, 1]
    with pytest.raises(ValueError, match="amount 2, asked for 3"):
        continues(before, planned(place, "--rows", "scratch", "--amount", "3").to_dict(), place)


def test_the_second_configuration_wins_where_both_say_something():
    assert merged({"a": {"b": 1, "c": [1, 2]}, "d": 2}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}, "d": 2}
