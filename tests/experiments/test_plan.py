"""From the command line to the grid, and what cannot be said in one line each."""

from pathlib import Path

import pytest

from tests.experiments.studies import YAML
from vit.commandline.overlays import packaged_names
from vit.commandline.quiet import quiet
from vit.experiments.datasize import options_of
from vit.experiments.grid import Study
from vit.experiments.options import parse
from vit.experiments.plan import DataSize, plan

WIDTH = "model.init_args.net.init_args.width"
PACKAGED = [name for name in packaged_names() if name in DataSize.presets]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(YAML)
    return str(path)


def planned(*args: str) -> Study:
    with quiet():
        return plan(*parse(args, DataSize)).study


def test_options_go_where_they_belong(config: str):
    settings, configs, options = parse(
        [
            "-c",
            config,
            "-c",
            "data/digits",
            "--data.batch_size",
            "16",
            "--arms",
            "cnn,vit",
            "--sizes=30,10",
            "--dry-run",
        ],
        DataSize,
    )
    assert configs == ("data/digits",) and options == ("--data.batch_size=16",)
    assert settings.arms == ["cnn", "vit"] and settings.sizes == [30, 10] and settings.dry_run is True
    assert settings.trials == [{"lr": 0.002, "weight_decay": 0.05}] and settings.candidates["cnn"].high == 8.0
    assert settings.fit["trainer"]["callbacks"][0]["class_path"] == "vit.tasks.release.Release"


def test_the_grid_of_a_command_line(config: str):
    wide = "--data.img_size=16"  # 4x4 patches of 2: more positions and pixels for the first arm alone
    study = planned("-c", config, "--sizes", "100,30", "--seeds", "2", "--data.batch_size", "16", wide)
    assert study.sizes == (30, 100) and study.seeds == (0, 1) and study.tune_size == 30 and study.batch_size == 16
    assert study.precision == "32-true" and study.data["name"] == "digits" and study.data["classes"] == 10
    assert [study.data[split] for split in ("train", "validation", "test")] == [1295, 143, 359]
    vit, cnn = study.arms
    assert abs(cnn.parameters / vit.parameters - 1) <= 0.02 and vit.options == {}


def test_a_dial_is_turned_where_the_nets_differ(config: str):
    study = planned("-c", config, "--match", "compute")
    vit, cnn = study.arms
    (value,) = cnn.options.values()
    assert abs(cnn.macs / vit.macs - 1) <= 0.02 and cnn.options.keys() == {WIDTH} and value > 0.2
    assert cnn.parameters > 3 * vit.parameters


def test_sizes_are_chosen_by_what_there_is(config: str):
    assert planned("-c", config, "--arms", "vit").sizes == (100, 300, 1000)


def test_a_precision_is_not_compared_with_itself(config: str):
    assert planned("-c", config, "--arms", "vit", "--compare-precision", "32-true").compare_precision is None
    assert planned("-c", config, "--arms", "vit", "--compare-precision", "bf16-mixed").compare_precision == "bf16-mixed"


def test_what_decides_a_run_is_part_of_the_study(config: str, tmp_path: Path):
    args = ("-c", config, "--arms", "vit", "--sizes", "30")
    first = planned(*args)
    assert planned(*args, "--data.num_workers", "1") == first
    for option in (
        "--data.augment=light",
        "--model.init_args.criterion.label_smoothing=0.2",
        "--trainer.gradient_clip_val=2",
    ):
        assert planned(*args, option).recipes != first.recipes


def test_epochs_are_counted_by_the_user(config: str):
    with pytest.raises(ValueError, match="--budget epochs expects --amount, a number of epochs: the 3 of the preset"):
        options_of(["-c", config, "--budget", "epochs"])
    assert options_of(["-c", config, "--budget=epochs", "--amount", "20"]).settings.amount == 20
    assert options_of(["-c", config, "--budget", "steps"]).settings.budget == "steps"


@pytest.mark.parametrize("match", ["parameters", "macs"])
@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_studies_are_matched_within_two_percent(name: str, match: str):
    how = "compute" if match == "macs" else match
    study = planned("-c", name, "-c", "data/digits", "--sizes", "100", "--match", how)
    first, *others = study.arms
    assert len(others) == 2
    assert all(abs(getattr(arm, match) / getattr(first, match) - 1) <= 0.02 for arm in others)
    assert len(study.trials) == 6 and len(study.seeds) >= 6


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--arms", "vit,cnm"], "unknown arm 'cnm': expected some of vit, cnn, fixed; did you mean 'cnn'"),
        (["--sizes", "100,2000"], "size 2000 is more than the 1295 pictures there are to train on"),
        (["--sizes", "5"], "size 5 leaves some of the 10 classes without a picture: expected 10 or more"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--sizes", "many"], "sizes"),
        (["--budget", "hours"], "budget"),
        (["--seed", "3"], "--seed: no such option; did you mean '--seeds'"),
        (["--trainer.max_steps", "5"], "--trainer.max_steps is set by the study, for every run: see --amount"),
        (["--trainer.devices", "2"], "--trainer.devices is set by the study, for every run: see --workers"),
        (["--data.trian_size", "5"], "trian_size"),
        (["--out", "--dry-run"], "--out expects a value"),
        (
            ["--model.init_args.optimizer.lr", "0.1"],
            "--model.optimizer.lr is set by the study, for every run: see --trials",
        ),
        (["--sizes", "[]"], "sizes: expected at least one number"),
        (
            ["--sizes", "30,60", "--tune-size", "100", "--compare-precision", "bf16-mixed"],
            "expected it among sizes (30, 60)",
        ),
        (["-c", "model/vit_tiny"], "-c model/vit_tiny sets the net of every run, which the arms do"),
        (["-c", "study/cpv"], "no config 'study/cpv'"),
        (["my_photos"], "unexpected argument 'my_photos'"),
        (["--out"], "--out expects a value"),
    ],
)
def test_what_cannot_be_is_one_line(config: str, args: list[str], words: str):
    with pytest.raises(ValueError) as error:
        planned("-c", config, *args)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("trainer: {accumulate_grad_batches: 4}", "trainer.accumulate_grad_batches"),
        ("model: {init_args: {optimizer: {lr: 0.1}}}", "model.optimizer.lr"),
        ("data: {train_size: 100}", "data.train_size"),
    ],
)
def test_an_overlay_cannot_set_what_the_grid_sets(config: str, tmp_path: Path, text: str, name: str):
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    with pytest.raises(ValueError, match=f"--{name} is set by the study, for every run"):
        planned("-c", config, "-c", str(mine))
    inside = tmp_path / "inside.yaml"
    inside.write_text(f"fit: {{{text}}}")
    with pytest.raises(ValueError, match=f"--{name} is set by the study, for every run"):
        planned("-c", config, "-c", str(inside))
