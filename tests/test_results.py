"""What README and the config headers claim is what the records say."""

import json
import re
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t

from vit.experiments.findings import Difference, Pair, findings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def records(name: str) -> list[dict]:
    return [json.loads(line) for line in (ROOT / "results" / f"{name}.jsonl").read_text().splitlines()]


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
    assert said.keys() == stacks.keys()
    for name, accuracy in stacks.items():
        assert f": {accuracy:.1f} % (seed 0, results/digits_overlays.jsonl)" in said[name], name


def test_fashion_mnist() -> None:
    (record,) = records("fashion_mnist")
    low, high = (100 * bound for bound in record["test"]["acc_95"])
    accuracy, minutes = 100 * record["test"]["acc"], record["fit"][0]["seconds"] / 60
    assert f"{minutes:.1f} minutes on one CPU core | {accuracy:.1f} % ({low:.1f} to {high:.1f}, one seed)" in README
    assert f"Expect {accuracy:.1f} % (one seed)" in (ROOT / "configs/data/fashion_mnist.yaml").read_text()
    assert accuracy >= 90 and minutes < 15


def test_data_size_on_fashion_mnist() -> None:
    found = findings(ROOT / "results" / "data-size-fashion-mnist")
    assert found.missing == 0 and all(len(cell.accuracies) == 6 for cell in found.cells)
    last = {(d.first, d.second): [100 * x for x in d.interval] for d in found.differences if d.size == 10_000}
    behind, low, high = (-x for x in last["hybrid", "cnn"])
    assert f"it is {behind:.1f} points ({high:.1f} to {low:.1f}) ahead of the hybrid" in README
    behind, low, high = (-x for x in last["vit", "hybrid"])
    assert f"which is {behind:.1f} ({high:.1f} to {low:.1f}) ahead\nof the ViT" in README
    for pair in found.pairs:
        assert pair.second != "cnn" or all(
            d.interval.high < 0 for d in found.differences if of(d, pair) and d.size >= 300
        )
    means = {(cell.arm, cell.size): cell.mean for cell in found.cells}
    assert all(means[arm, 10_000] - means[arm, 1_000] < 0.01 for arm in found.arms)
    speed = {cell.arm: cell.images_per_s for cell in found.cells if cell.size == 10_000}
    assert f"({speed['cnn']:.0f} against {speed['vit']:.0f} images/s)" in README
    for row in found.precisions:
        value, low, high = (100 * x for x in row.difference)
        assert f"{value:+.1f}" in README and re.search(rf"\({low:+.1f} to\s\{high:+.1f}\)", README), row
    for arm, config in (("vit", "vit"), ("hybrid", "conformer"), ("cnn", "resnet")):
        header = (ROOT / "configs" / "model" / f"{config}_pico.yaml").read_text()
        assert f"# Expect {100 * means[arm, 10_000]:.1f} % on Fashion-MNIST: mean of 6 seeds" in header


def of(difference: Difference, pair: Pair) -> bool:
    return (difference.first, difference.second) == (pair.first, pair.second)


def test_train_step_against_timm() -> None:
    for record in records("train_step_vs_timm"):
        low, high = record["interval95"]
        assert f"{record['ratio']:.3f} ({low:.3f} to {high:.3f}) in {record['precision']}" in README


def test_no_record_names_a_local_path() -> None:
    for path in (ROOT / "results").rglob("*.jsonl"):
        assert not re.search(r'"(/|\.\./|~)', path.read_text()), path.name
