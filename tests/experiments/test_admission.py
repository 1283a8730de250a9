"""From the command line to the grid: who takes part in which host, and what cannot be said in one line each."""

from pathlib import Path

import pytest

from vit.commandline.quiet import quiet
from vit.experiments import axes
from vit.experiments.admission import MLP, PATCH, compare
from vit.experiments.comparison import Comparison, Mechanisms
from vit.experiments.options import parse

YAML = """
host: [model/vit_pico]
references: {mixer: attention/softmax, readout: pool/mean}
amount: 3
seeds: 1
patch: [4]
"""
MIXER = "model: {init_args: {net: {init_args: {backbone: {init_args: {block: {init_args: {mixer: %s}}}}}}}}"
BLOCKS = ("pre_norm", "no_mlp")
NO_RATIO = "its MLP, which would be widened to the host's parameters, has no mlp_ratio"
PLANTED = {
    "identity": MIXER % "{class_path: vit.layers.Identity}",
    "large": MIXER % "{init_args: {value_dim: 48}}",
    "twin": MIXER % "{init_args: {num_heads: 2}}",  # as it is already
    "broken": MIXER % "{init_args: {value_dim: 0}}",
    "misspelt": MIXER % "{init_args: {valeu_dim: 3}}",
}


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(YAML)
    return str(path)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Overlays of this test's own beside attention/softmax, by name."""
    paths = {name: str(tmp_path / f"{name}.yaml") for name in PLANTED}
    for name, text in PLANTED.items():
        Path(paths[name]).write_text(text)
    monkeypatch.setattr(axes, "overlays", lambda axis: ["attention/softmax", *paths.values()])
    return paths


def compared(*args: str) -> Comparison:
    with quiet():
        return compare(*parse(args, Mechanisms))[0]


def test_arms_are_admitted_by_parameters_and_smaller_ones_twice(config: str, planted: dict[str, str]):
    """And once where they are only timed: that shows how a mixer grows as it is."""
    study = compared("-c", config, "--timed_patch", "2")
    reasons = {refused.overlay: refused.reason for refused in study.refused}
    assert reasons.keys() == {planted[name] for name in ("large", "twin", "broken", "misspelt")}
    assert reasons[planted["large"]].endswith("parameters are 1.16 times the host's: expected at most 1.1")
    assert reasons[planted["twin"]] == "the same configuration as attention/softmax"
    assert reasons[planted["broken"]] == "value_dim must be at least 1, got 0"
    assert "did you mean 'value_dim'" in reasons[planted["misspelt"]]
    identity = planted["identity"]
    kinds = [(entry.overlay, entry.tokens, entry.widened) for entry in study.entries]
    host_and_own = [("attention/softmax", 4, False), (identity, 4, False)]
    timed = [("attention/softmax", 16, False), (identity, 16, False)]
    assert kinds == [*host_and_own, (identity, 4, True), *timed]
    host, own, wide = study.grid.arms[:3]
    assert own.parameters < 0.8 * host.parameters and abs(wide.parameters / host.parameters - 1) <= 0.02
    assert host.options == own.options == {PATCH: 4} and wide.options.keys() == {PATCH, MLP}
    assert study.host_at(4) == host and study.embed_dim == 48 and study.host_at(2).macs > 3 * host.macs


def test_nothing_is_widened_unasked(config: str, planted: dict[str, str]):
    study = compared("-c", config, "--arms", planted["identity"], "--widen", "false")
    assert [entry.widened for entry in study.entries] == [False, False]


def test_two_arms_that_are_one_are_an_error_where_both_were_named(config: str, planted: dict[str, str]):
    with pytest.raises(ValueError, match="makes the same configuration as attention/softmax: leave one of them out"):
        compared("-c", config, "--arms", planted["twin"])


@pytest.mark.parametrize("name", Mechanisms.presets)
def test_packaged_studies_know_each_axis_and_admit_their_host(name: str):
    settings = parse(["-c", name], Mechanisms).settings
    assert all(settings.references[axis] in axes.overlays(axis) for axis in axes.FOLDERS)
    study = compared("-c", name, "--vary", "block", "--arms", "block/no_mlp", "--patch", "8", "--timed_patch", "16")
    assert [entry.name for entry in study.entries[:2]] == [f"block.{arm}@{study.entries[0].tokens}" for arm in BLOCKS]
    assert {refused.reason for refused in study.refused} == {NO_RATIO} and len(study.entries) == 4
    assert study.grid.data["name"] == "digits" and study.grid.trials == ()


def test_the_grid_of_a_command_line(config: str):
    study = compared("-c", config, "--vary", "readout", "--arms", "pool/cls", "--patch", "4", "--timed_patch", "2,4")
    assert [entry.name for entry in study.entries] == ["pool.mean@4", "pool.cls@4", "pool.mean@16", "pool.cls@16"]
    assert (study.patch, study.timed_patch, study.grid.sizes) == ((4,), (2,), (1295,))
    assert [cell.key for cell in study.runs()] == ["run-pool.mean@4-1295-0-32-true", "run-pool.cls@4-1295-0-32-true"]
    assert [cell.arm for cell in study.timings()] == [entry.name for entry in study.entries]
    described = study.to_dict()
    assert described["study"] == "mechanisms" and described["arms"][1]["overlay"] == "pool/cls"
    assert described["arms"][1]["configs"] == ("model/vit_pico", "pool/cls") and "trials" not in described


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--arms", "attention/softmaxx"],
            "unknown arm 'attention/softmaxx' of --vary mixer: expected some of attention",
        ),
        (["--patch", "3"], "--patch 3: image 8x8 is not divisible by patch size 3x3"),
        (["--patch", "0"], "each 1 or more, got [0]"),
        (["--vary", "head"], "vary"),
        (["--vary", "position"], "the overlay that leaves the host as it is under references: position"),
        (["--train_size", "2000"], "size 2000 is more than the 1295 pictures there are to train on"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--pach", "2"], "--pach: no such option; did you mean '--patch'"),
        (["--model.net.backbone.patch_size", "2"], "patch_size is set by the study, for every run: see --patch"),
        (["--data.train_size", "50"], "--data.train_size is set by the study, for every run: see --train_size"),
        (["-c", "model/vit_tiny"], "-c model/vit_tiny sets the net of every run, which the arms do"),
    ],
)
def test_what_cannot_be_is_one_line(config: str, args: list[str], words: str):
    with pytest.raises(ValueError) as error:
        compared("-c", config, *args)
    assert words in str(error.value) and "\n" not in str(error.value)
