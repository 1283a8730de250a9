"""What README and the config headers claim is what the records say."""

import json
import re
from datetime import datetime
from functools import cache
from math import log
from pathlib import Path
from statistics import mean, stdev
from typing import get_args

import pytest
from scipy.stats import t

from vit.analysis.statistics import mean_interval
from vit.data.scenes import VERSION, Task
from vit.experiments.advice import recommendation
from vit.experiments.findings import Findings, findings
from vit.experiments.gains import gains
from vit.experiments.grid import best_trial
from vit.experiments.tradeoff import tradeoff

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TEXT = " ".join(README.split())
OF_RECORDS = (ROOT / "results" / "README.md").read_text()


def records(name: str) -> list[dict]:
    return [json.loads(line) for line in (ROOT / "results" / f"{name}.jsonl").read_text().splitlines()]


@cache
def study(name: str) -> Findings:
    return findings(ROOT / "results" / name)


def test_linked_files_exist() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_digits() -> None:
    accuracies = [100 * record["test"]["acc"] for record in records("digits")]
    assert sorted(record["fit"][0]["seed"] for record in records("digits")) == [0, 1, 2, 3, 4]
    half = t.ppf(0.975, 4) * stdev(accuracies) / 5**0.5
    assert f"{mean(accuracies):.1f} % ± {half:.1f} (mean of 5 seeds" in README
    header = (ROOT / "configs/quickstart.yaml").read_text()
    assert f"{mean(accuracies):.1f} % +- {half:.1f} (5 seeds)" in header
    assert mean(accuracies) >= 98


def test_overlays_on_digits() -> None:
    stacks = {}
    for record in records("digits_overlays"):
        words = record["fit"][0]["command"].split()
        (name,) = {words[place + 1] for place, word in enumerate(words) if word == "-c"} - {"quickstart", "data/digits"}
        if record["fit"][0]["seed"] == 0:
            stacks[name] = 100 * record["test"]["acc"]
    said = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix(): path.read_text()
        for path in (ROOT / "configs").rglob("*.yaml")
        if "digits_overlays.jsonl" in path.read_text()
    }
    assert said and said.keys() <= stacks.keys(), "the others say what three seeds of a study do"
    for name, text in said.items():
        assert f": {stacks[name]:.1f} % (seed 0, results/digits_overlays.jsonl)" in text, name


def test_fashion_mnist() -> None:
    (record,) = records("fashion_mnist")
    low, high = (100 * bound for bound in record["test"]["acc_95"])
    accuracy, minutes = 100 * record["test"]["acc"], record["fit"][0]["seconds"] / 60
    assert f"{minutes:.1f} minutes on one CPU core | {accuracy:.1f} % ({low:.1f} to {high:.1f}, one seed)" in README
    assert f"Expect {accuracy:.1f} % (one seed)" in (ROOT / "configs/data/fashion_mnist.yaml").read_text()
    assert accuracy >= 90 and minutes < 15


def test_data_size_on_fashion_mnist() -> None:
    found = study("data-size-fashion-mnist")
    assert found.missing == 0 and all(len(cell.accuracies) == 6 for cell in found.cells)
    assert len({row["commit"] for row in found.done}) == 1
    advice = recommendation(found)
    assert advice.arms == ("cnn",)
    gains = [re.match(r"It is (.+) (\(.+\)) points ahead of (\w+)", sentence) for sentence in advice.sentences]
    hybrid, vit = (gain for gain in gains if gain)
    said = f"it is {hybrid[1]} points {hybrid[2]} ahead of the hybrid and {vit[1]} {vit[2]} ahead of the ViT"
    assert (hybrid[3], vit[3]) == ("hybrid", "vit") and said in TEXT
    by_pair = {(d.first, d.second, d.size): d.interval for d in found.differences}
    value, low, high = (-100 * x for x in by_pair["vit", "hybrid", 10_000])
    assert f"at 10,000 {value:+.1f} points, {high:+.1f} to {low:+.1f}, for the hybrid" in TEXT
    for size in (300, 1000, 3000, 10_000):
        assert by_pair["vit", "hybrid", size].low < 0 < by_pair["vit", "hybrid", size].high
        assert all(by_pair[arm, "cnn", size].high < 0 for arm in ("vit", "hybrid"))
    means = {(cell.arm, cell.size): cell.mean for cell in found.cells}
    assert f"at 10,000 ({100 * means['cnn', 10_000]:.1f} %)" in TEXT
    law = found.fits["vit"]
    assert law and "{:.1f} % error ({:.1f} to {:.1f})".format(*(100 * x for x in law.c)) in TEXT
    speed = {cell.arm: cell.images_per_s for cell in found.cells if cell.size == 10_000}
    macs = {arm["name"]: arm["macs"] / 1e6 for arm in found.study["arms"]}
    rates, work = (f"{x['cnn']:{form}} {{}} {x['vit']:{form}}" for x, form in ((speed, ".0f"), (macs, ".1f")))
    assert f"({rates.format('against')} images/s), of {work.format('and')} million multiply-adds" in TEXT
    for row in found.precisions:
        value, low, high = (100 * x for x in row.difference)
        name = {"vit": "ViT", "hybrid": "hybrid", "cnn": "CNN"}[row.arm]
        said = rf"{re.escape(f'{value:+.1f}')}( points)? \({re.escape(f'{low:+.1f} to {high:+.1f}')}\) for the {name}"
        assert re.search(said, TEXT), row.arm
    for arm, config in (("vit", "vit"), ("hybrid", "conformer"), ("cnn", "resnet")):
        header = (ROOT / "configs" / "model" / f"{config}_pico.yaml").read_text()
        assert f"# Expect {100 * means[arm, 10_000]:.1f} % on Fashion-MNIST: mean of 6 seeds" in header


def test_what_is_said_of_all_data_size_studies() -> None:
    """That intervals carry the claims, and that the CNN sits at an edge of the grid."""
    for folder in (ROOT / "results").glob("data-size-*"):
        found = study(folder.name)
        assert all(difference.adjusted >= 0.05 for difference in found.differences), folder.name
        assert "lr" in next(tuned.edges for tuned in found.tuning if tuned.arm == "cnn"), folder.name


def test_data_size_on_textures() -> None:
    found = study("data-size-scenes-texture")
    assert found.missing == 0 and all(len(cell.accuracies) == 6 for cell in found.cells)
    assert {row["commit"] for row in found.done} == {"8484e22fef23"}
    advice = recommendation(found)
    gains = [re.match(r"It is (.+) (\(.+\)) points ahead of (\w+)", sentence) for sentence in advice.sentences]
    hybrid, vit = (gain for gain in gains if gain)
    assert (hybrid[3], vit[3]) == ("hybrid", "vit")
    assert f"{hybrid[1]} points {hybrid[2]} ahead of the hybrid and {vit[1]} {vit[2]} ahead of the ViT" in TEXT
    assert f"reaches {100 * found.cell('cnn', 30_000).mean:.1f} %" in TEXT
    by_pair = {(d.first, d.second, d.size): d.interval for d in found.differences}
    assert all(by_pair["vit", "hybrid", size].high < 0 for size in (300, 3000, 30_000))
    value, low, high = (-100 * x for x in by_pair["vit", "hybrid", 30_000])
    assert f"by {value:.1f} points ({high:.1f} to {low:.1f}) at 30,000" in TEXT
    assert f"but {value:.1f} points on textures, below" in TEXT
    (pair,) = [pair for pair in found.pairs if (pair.first, pair.second) == ("hybrid", "cnn")]
    assert f"between {pair.crossing.low:,.0f} and {pair.crossing.high:,.0f}." in TEXT
    cnn, hybrid, vit = (100 * found.cell(arm, 30_000).mean for arm in ("cnn", "hybrid", "vit"))
    header = (ROOT / "configs/data/scenes_texture.yaml").read_text()
    assert (
        f"# Expect {cnn:.1f} % of study/cpu's CNN in 500 steps on 30,000, hybrid {hybrid:.1f}, ViT {vit:.1f} ("
        in header
    )


def test_data_size_on_relations() -> None:
    found = study("data-size-scenes-relation")
    assert found.missing == 0 and {row["commit"] for row in found.done} == {"8484e22fef23"}
    assert [row["key"] for row in found.failures if row["kind"] == "run"] == ["run-vit-30000-1-bf16-mixed"]
    runs = {(cell.arm, cell.size): list(cell.accuracies.values()) for cell in found.cells}
    assert [len(accuracies) for accuracies in runs.values()] == [6, 6, 5, 6, 6, 6, 6, 6, 6]
    stuck = {where: sum(accuracy < 0.52 for accuracy in accuracies) for where, accuracies in runs.items()}
    assert [stuck[arm, 3000] for arm in ("vit", "hybrid", "cnn")] == [0, 1, 2]
    assert [stuck[arm, 30_000] for arm in ("vit", "hybrid", "cnn")] == [0, 2, 1]
    assert f"the ViT reaches {100 * min(runs['vit', 3000]):.1f} % or more in each run" in TEXT
    assert min(runs["vit", 3000]) >= 0.998
    low = [accuracy for arm in ("hybrid", "cnn") for accuracy in runs[arm, 3000] if accuracy < 0.52]
    assert f"stay at {100 * min(low):.0f} to {100 * max(low):.0f} %" in TEXT
    assert max(sorted(runs["hybrid", 30_000])[:2]) < 0.26 and f"at {100 * min(runs['cnn', 30_000]):.0f} %" in TEXT
    assert all(d.interval.low < 0 < d.interval.high for d in found.differences if d.size > 300), "no order is told"
    (ahead,) = [d for d in found.differences if (d.first, d.second, d.size) == ("vit", "cnn", 300)]
    assert "the ViT {:.1f} points ({:.1f} to {:.1f}) ahead of it".format(*(100 * x for x in ahead.interval)) in TEXT
    assert f"Holm's p {ahead.adjusted:.2f} over nine" in TEXT and len(found.differences) == 9
    assert max(runs["cnn", 300]) < 0.26, "chance is 25 %"
    header = (ROOT / "configs/data/scenes_relation.yaml").read_text()
    assert f"# Expect {100 * mean(runs['vit', 3000]):.1f} % of study/cpu's ViT in 1,500 steps on 3,000" in header


def test_light_augmentation_on_fashion_mnist() -> None:
    light, none = (study(f"data-size-fashion-mnist{name}") for name in ("-light", ""))
    losses = [100 * (none.cell(arm, 10_000).mean - light.cell(arm, 10_000).mean) for arm in light.arms]
    assert f"every arm is {min(losses):.0f} to {max(losses):.0f} points worse at 10,000" in TEXT
    (gain,) = [d.interval for d in light.differences if (d.first, d.second, d.size) == ("vit", "hybrid", 10_000)]
    value, low, high = (-100 * x for x in gain)
    assert f"leads the ViT by {value:.1f} ({high:.1f} to {low:.1f};" in TEXT


def test_a_study_costs_little_more_than_its_runs() -> None:
    """Wall time against the cells', two at once; and a tuning cell, which does nothing but fit, against its fit."""
    rows = study("data-size-fashion-mnist").done
    starts = [datetime.strptime(row["started"], "%Y-%m-%dT%H:%M:%S%z").timestamp() for row in rows]
    wall = max(start + row["seconds"] for start, row in zip(starts, rows, strict=True)) - min(starts)
    tuning = [row for row in rows if row["kind"] == "tune"]
    around = 2 * wall / sum(row["seconds"] for row in rows)
    inside = sum(row["seconds"] for row in tuning) / sum(row["fit_seconds"] for row in tuning)
    assert around * inside < 1.05
    assert f"took {around * inside:.2f} times as long as its runs" in OF_RECORDS
    longer = 100 * (2 * wall / sum(row["fit_seconds"] for row in rows) - 1)
    assert f"without the tests, {longer:.0f} % longer than its fits" in OF_RECORDS
    fits: dict[tuple, list[float]] = {}
    for row in rows:
        if row["kind"] == "run" and row["precision"] == "32-true":
            fits.setdefault((row["arm"], row["size"]), []).append(row["fit_seconds"])
    quickest, slowest = [min(times) for times in fits.values()], max(map(max, fits.values()))
    said = f"in fp32 took {min(quickest):.0f} to {max(quickest):.0f} s, the slowest of all {slowest:.0f}"
    assert max(quickest) < 60 and said in OF_RECORDS


def test_a_pretrained_arm_on_fashion_mnist() -> None:
    found = study("data-size-fashion-mnist-mae")
    assert found.missing == 0 and not found.failures and all(len(cell.accuracies) == 6 for cell in found.cells)
    assert {row["commit"] for row in found.done} == {"e481edfd032d"}
    by_pair = {(d.first, d.second, d.size): [100 * bound for bound in d.interval] for d in found.differences}
    gains = [tuple(-by_pair["vit", "vit-mae", size][place] for place in (0, 2, 1)) for size in (300, 3000)]
    assert all(low > 0 for _, low, _ in gains)
    few, many = (
        "{:.1f}{} ({:.1f} to {:.1f})".format(gain[0], unit, *gain[1:])
        for gain, unit in zip(gains, (" points", ""), strict=True)
    )
    value, low, high = by_pair["cnn", "vit-mae", 300]
    assert (
        f"gains {few} at 300 labels, where the CNN's lead can no longer be told ({value:.1f}, {low:.1f} to {high:.1f})"
        in TEXT
    )
    (lead,) = [s for s in recommendation(found).sentences if s.endswith("ahead of vit-mae.")]
    points = lead.removeprefix("It is ").replace(" points", "").removesuffix(" ahead of vit-mae.")
    assert low < 0 < high and f"and {many} at 3,000, where the CNN stays {points} ahead." in TEXT


def test_data_size_on_cifar10_has_only_begun() -> None:
    found = study("data-size-cifar10")
    assert {len(cell.accuracies) for cell in found.cells if cell.size == 45_000} == {2}
    cnn, hybrid, vit = (100 * found.cell(arm, 45_000).mean for arm in ("cnn", "hybrid", "vit"))
    assert f"(CNN {cnn:.0f} %, hybrid {hybrid:.0f}, ViT {vit:.0f})" in TEXT


def test_train_step_against_timm() -> None:
    for record in records("train_step_vs_timm"):
        low, high = record["interval95"]
        assert f"{record['ratio']:.3f} ({low:.3f} to {high:.3f}) in {record['precision']}" in README


def test_mae_step_against_a_supervised_one() -> None:
    found = records("mae_step_vs_supervised")
    assert [record["precision"] for record in found] == ["fp32", "bf16"]
    for record in found:
        low, high = record["interval95"]
        assert high < 0.6 and f"{record['ratio']:.3f} ({low:.3f} to {high:.3f}) in {record['precision']}" in TEXT


def test_attention_bench() -> None:
    (record,) = records("bench_attention")
    for tokens in record["tokens"]:
        seconds = {
            part["name"]: part["seconds"] for part in record["parts"] if (part["tokens"], part["depth"]) == (tokens, 4)
        }
        share = f"{100 * seconds['attention core'] / sum(seconds.values()):.0f} %"
        assert f"{share} of the time at {tokens}" in TEXT or f"{share} at {tokens:,}" in TEXT
    heads = {row["heads"]: row["seconds"] for row in record["cut_into_heads"]}
    assert f"{max(heads)} take {heads[16] / heads[1]:.1f} times as long as one" in TEXT
    cores = {(core["overlay"], core["tokens"]): core["seconds"] for core in record["cores"]}
    slopes = {name: log(cores[name, 4096] / cores[name, 1024]) / log(4) for name, _ in cores}
    assert f"softmax's core grows as N^{slopes['attention/softmax']:.2f}" in TEXT
    claimed = [f"attention/{name}" for name in ("window", "linear", "efficient", "linformer")]
    exponents = [slopes[name] for name in (*claimed, "mixer/aft_simple", "mixer/pool")]
    assert max(exponents) <= 1.3 and f"as N^{min(exponents):.2f} to N^{max(exponents):.2f}" in TEXT


@pytest.mark.parametrize("axis", ["mixer", "readout", "position", "block"])
def test_mechanisms(axis: str) -> None:
    found = tradeoff(ROOT / "results" / f"mechanisms-{axis}")
    assert found.missing == 0 and not found.failures
    assert len({row["commit"] for row in found.done}) == (2 if axis == "readout" else 1)  # its timings came later
    trained = [point for point in found.points if point.trained and not point.arm["widened"]]
    (reference,) = (point for point in trained if point.arm["overlay"] == found.study["reference"])
    there = f", {reference.name.partition('/')[2]} {100 * reference.mean:.1f}; "
    claimed = 0
    for point in trained:
        assert sorted(point.accuracies) == [0, 1, 2] and min(point.accuracies.values()) > 0.5, point.name
        header = (ROOT / "configs" / f"{point.name}.yaml").read_text()
        _, low, high = (100 * x for x in point.interval)
        said = f"# Expect {100 * point.mean:.1f} % ({low:.1f} to {high:.1f}) on Fashion-MNIST in 300 steps"
        if point is not reference:
            said += f"{there}{point.measured('train_times_as_fast')[0]:.2f}x as fast"
        claimed += f"{said} (results/mechanisms-{axis})" in header
        assert f"{said} (results/mechanisms-{axis})" in header or f"(results/mechanisms-{axis})" not in header
    parts = (path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "study")
    shown = [path for path in parts if f"(results/mechanisms-{axis})" in path.read_text()]
    assert claimed == len(shown) and claimed > 2


def test_mixers_in_one_host() -> None:
    found = tradeoff(ROOT / "results" / "mechanisms-mixer")
    means = {point.name: 100 * point.mean for point in found.points if point.trained and not point.arm["widened"]}
    assert f"all {len(means)} mixers of at most 1.1 times its parameters learn" in TEXT
    said = f"from {min(means.values()):.1f} % (random Synthesizer) to {max(means.values()):.1f} (MLP-Mixer)"
    ends = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    assert said in TEXT and ends == ("attention/random_synthesizer", "mixer/mlp_mixer")
    own = means["attention/softmax"]
    assert f"softmax attention has {own:.1f}" in TEXT
    header = (ROOT / "configs/study/mechanisms_cpu.yaml").read_text()
    low = f"above {int(min(means.values()))} % on Fashion-MNIST, softmax {own:.1f} (results/"
    assert f"# Expect all {len(means)} mixers that it admits {low}" in header
    refused = {cell["overlay"] for cell in found.study["refused"] if cell["patch"] == 4}
    larger: dict[str, list[float]] = {}
    for record in records("mechanisms_larger"):
        (name,) = re.findall(r"-c ((?:attention|mixer)/\S+)", record["fit"][0]["command"])
        larger.setdefault(name, []).append(100 * record["test"]["acc"])
    assert larger.keys() == refused
    for name, accuracies in larger.items():
        value, low, high = mean_interval(accuracies)
        header = f"# Expect {value:.1f} % ({low:.1f} to {high:.1f}) on Fashion-MNIST in 300 steps, softmax {own:.1f} ("
        assert len(accuracies) == 3 and min(accuracies) > 50 and header in (ROOT / f"configs/{name}.yaml").read_text()
    longformer, sra, bias = (
        mean(larger[name]) for name in ("attention/longformer", "mixer/sra", "attention/edge_bias")
    )
    assert f"of the larger ones Longformer has {longformer:.1f}, SRA {sra:.1f} and a bias of edges {bias:.1f}" in TEXT


def test_mechanisms_added_later() -> None:
    """By the recipe of those studies, which had no such arms."""
    added: dict[str, list[float]] = {}
    for record in records("mechanisms_added"):
        (name,) = re.findall(
            r"-c ((?:attention|block|pool|position)/(?!sincos2d|mean)\S+)", record["fit"][0]["command"]
        )
        added.setdefault(name, []).append(100 * record["test"]["acc"])
    parts = {"block/top_k", "block/shared_layers", "position/sincos1d"}
    parts |= {"attention/routing", "block/swiglu", "pool/max", "pool/seq"}
    assert added.keys() == {"attention/nearest_bias", "attention/superpixels", *parts}
    for name, accuracies in added.items():
        value, low, high = mean_interval(accuracies)
        header = f"# Expect {value:.1f} % ({low:.1f} to {high:.1f}) on Fashion-MNIST in 300 steps"
        assert len(accuracies) == 3 and min(accuracies) > 50 and header in (ROOT / f"configs/{name}.yaml").read_text()
    assert f"superpixels {mean(added['attention/superpixels']):.1f}" in TEXT


def test_transfer_on_fashion_mnist() -> None:
    found = gains(ROOT / "results" / "transfer-fashion-mnist")
    assert found.missing == 0 and not found.failures and found.study["labels"] == 600
    assert {row["commit"] for row in found.done} == {"f068376c6619"}
    mae, scratch = (found.at(row, "fashion_mnist") for row in ("mae", "scratch"))
    value, low, high = (100 * bound for bound in mae.interval)
    reached = f"{value:.1f} % ({low:.1f} to {high:.1f})"
    assert f"reaches {reached}" in TEXT
    for row in ("mae", "aim", "simmim"):
        said = "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * bound for bound in found.at(row, "fashion_mnist").interval))
        header = (ROOT / f"configs/pretrain/{row}.yaml").read_text()
        assert f"# Expect {said}" in header and f"{100 * scratch.mean:.1f} without" in header, row
    ahead = {gain.over: [100 * bound for bound in gain.interval] for gain in found.gains if gain.row == "mae"}
    short, long = ("{:.1f} points ({:.1f} to {:.1f})".format(*ahead[over]) for over in ("scratch", "scratch-long"))
    assert ahead["scratch"][1] > 0 < ahead["scratch-long"][1]
    assert f"{short} ahead of the same ViT from scratch" in TEXT
    assert f"and {long.replace(' points', '')} ahead of one trained" in TEXT
    preset = " ".join((ROOT / "configs/study/transfer_cpu.yaml").read_text().replace("\n#", "").split())
    assert f"+{short.replace(' points', '')}" in preset.replace(" points", "")
    assert f"+{long.replace(' points', '')} over scratch-long" in preset
    digits = "supervised@mnist"
    frozen = {
        row: tuple(100 * bound for bound in found.at(row, "fashion_mnist").probes["logistic"])
        for row in ("mae", "aim", "simmim", "scratch", digits)
    }
    text = " ".join(TEXT.split())
    assert f"reads {frozen['mae'][0]:.1f} % after MAE" in text
    assert f"{frozen['scratch'][0]:.1f} of a fresh net and {frozen[digits][0]:.1f} after MNIST's labels" in text
    for row, name in (("aim", "AIM"), ("simmim", "SimMIM")):
        assert "{:.1f} ({:.1f} to {:.1f}) after {}".format(*frozen[row], name) in text
    assert frozen["mae"][1] > frozen["aim"][2] > frozen["aim"][1] > frozen["simmim"][2], "which the answer rests on"
    tuned = [100 * found.at(row, "fashion_mnist").mean for row in ("aim", "simmim")]
    assert "Finetuned, AIM has {:.1f} and SimMIM {:.1f}: both ahead of scratch".format(*tuned) in text
    ahead = {(gain.row, gain.over): gain.interval for gain in found.gains}
    assert all(ahead[row, "scratch"].low > 0 >= ahead[row, "scratch-long"].low for row in ("aim", "simmim"))
    for row, rate in {
        "scratch-long": 0.01,
        "aim": 0.01,
        "simmim": 0.01,
        "mae": 0.001,
        "scratch": 0.003,
        digits: 0.01,
    }.items():
        tried = [done for done in found.done if done["kind"] == "tune" and done["arm"] == f"fashion_mnist.{row}"]
        assert best_trial(tried)["options"]["lr"] == rate, f"README says at which end of the grid {row} did best"
    reached = tuple(100 * bound for bound in found.at(digits, "fashion_mnist").interval)
    assert "instead, it reaches {:.1f} % ({:.1f} to {:.1f}): no gain over scratch can be told".format(*reached) in text
    own = "{:+.1f} points ({:.1f} to {:.1f})".format(*(100 * bound for bound in ahead[digits, "scratch"]))
    assert ahead[digits, "scratch"].low < 0 and f"can be told, {own}." in text
    assert f"{own.replace(' points', '')} of MNIST's labels over scratch" in preset
    assert len(found.gains) == 9 and {gain.adjusted for gain in found.gains if gain.p < 0.05} == {0.28125}
    assert "Of nine comparisons" in text and "(Holm's p is 0.28)" in text


def test_gradient_checkpointing() -> None:
    (saving, theirs), (plain, beside) = (record["nets"] for record in records("grad_checkpointing"))
    header = " ".join((ROOT / "configs/grad_checkpointing.yaml").read_text().replace("\n#", "").split())
    kept = [f"{net['memory_bytes'] / 2**20:.1f}" for net in (saving, plain, theirs)]
    assert f"{kept[0]} MiB kept for the backward pass in place of {kept[1]}" in header and kept[1] == kept[2]
    speeds = ["{:.3f} ({:.3f} to {:.3f}) times".format(*net["train_times_as_fast"]) for net in (theirs, beside)]
    assert all(speed in header for speed in speeds)


def test_ways_of_finetuning() -> None:
    ways: dict[str, list[float]] = {}
    for record in records("finetune"):
        (name,) = re.findall(r"-c (finetune/\S+)", record["fit"][0]["command"]) or ["finetune"]
        ways.setdefault(name, []).append(100 * record["test"]["acc"])
    assert ways.keys() == {"finetune", "finetune/lora", "finetune/attention_only", "finetune/linear_probe"}
    for name, accuracies in ways.items():
        value, low, high = mean_interval(accuracies)
        header = f"# Expect {value:.1f} % ({low:.1f} to {high:.1f}) with 600 labels of Fashion-MNIST after MAE, 3 seeds"
        assert len(accuracies) == 3 and header in (ROOT / f"configs/{name}.yaml").read_text(), name


def test_sparse_patterns_against_full_attention() -> None:
    (record,) = records("sparse_engines")
    gathered = [ratio for name, ratio in record["ratio"].items() if "dense" not in name]
    assert min(gathered) >= 2 and record["tokens"] == 4096 and record["ratio"]["neighborhood, dense mask"] < 1
    assert f"{min(gathered):.1f} to {max(gathered):.1f} times as fast" in TEXT


def test_check_of_a_folder() -> None:
    (record,) = records("check_folder")
    assert record["pictures"] == 100_000 and record["copies"] == record["cut_off"] == 100
    assert record["cpu_seconds"] > 1.2 * record["seconds"], "one core did nearly all of it"
    assert f"the program's start included: {record['seconds']:.0f} s on two cores" in OF_RECORDS


def test_scenes_are_drawn_faster_than_trained_on() -> None:
    found = records("scenes_vs_step")
    assert {record["task"] for record in found} == set(get_args(Task)) and len(found) == 6
    assert all(record["generator"] == VERSION and record["interval95"][1] < 0.1 for record in found)
    ratios = [100 * record["ratio"] for record in found]
    assert f"in {min(ratios):.1f} to {max(ratios):.1f} % of the time that study/cpu's ViT or CNN trains" in OF_RECORDS


def test_no_record_names_a_local_path() -> None:
    for path in (ROOT / "results").rglob("*.jsonl"):
        assert not re.search(r'"(/|\.\./|~)', path.read_text()), path.name
