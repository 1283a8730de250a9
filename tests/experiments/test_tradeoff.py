"""Accuracy, speed and memory: planted studies come out as planted, and no order is claimed from too few seeds."""

import base64
import csv
import json
from pathlib import Path

import pytest

from tests.experiments import planted
from tests.experiments.planted_mechanisms import arm, failed, run, study, time
from tests.experiments.test_report import Reader
from vit.experiments import report, tradeoff_report
from vit.experiments.tradeoff import Tradeoff, sentences, tradeoff

SOFTMAX, LINEAR, WIDE = arm("attention/softmax", 4), arm("attention/linear", 4), arm("attention/linear", 4, True)
GAINS = (0.01, 0.02, 0.03, 0.02, 0.01, 0.03)  # mean 0.02, deviation 0.008944; t(5) at 97.5 %: 3.1634 -> 0.011551


def planted_study(folder: Path, seeds: int = 6) -> Path:
    """linear ahead by `GAINS`, linear (wide) behind by the same."""
    rows = [time(SOFTMAX, 100.0, 32 * 2**20), time(LINEAR, 150.0, 16 * 2**20), time(WIDE, 120.0, 8 * 2**20)]
    for seed in range(seeds):
        base = 0.8 + 0.01 * (seed % 3)
        rows += [run(SOFTMAX, seed, base), run(LINEAR, seed, base + GAINS[seed]), run(WIDE, seed, base - GAINS[seed])]
    return planted.write(folder, study([SOFTMAX, LINEAR, WIDE], seeds), rows)


def point(found: Tradeoff, name: str):
    (one,) = (point for point in found.points if point.name == name)
    return one


def test_gains_over_the_reference_are_paired_and_hold_together(tmp_path: Path):
    found = tradeoff(planted_study(tmp_path))
    linear = point(found, "attention/linear")
    assert linear.gain == pytest.approx((0.02, 0.02 - 0.011551, 0.02 + 0.011551), abs=1e-5) and linear.pairs == 6
    assert point(found, "attention/softmax").gain is None
    assert linear.mean == pytest.approx(0.83) and linear.measured("memory_bytes") == 16 * 2**20
    assert sentences(found)[1] == "at 64 tokens ahead: attention/linear; behind: attention/linear (wide)"


def test_no_order_is_claimed_from_five_seeds(tmp_path: Path):
    found = tradeoff(planted_study(tmp_path, seeds=5))
    said = sentences(found)
    assert said[0] == "No order of the arms is claimed: some have 5 of the 6 seeds that a claim takes."
    assert not any("ahead" in sentence for sentence in said)
    reader = Reader(tradeoff_report.write(tmp_path).read_text(encoding="utf-8"))
    assert "+1.8" not in reader.text  # the mean of five gains


def test_the_most_a_mixer_can_save_is_said(tmp_path: Path):
    """N / (N + 6C) of the multiply-adds: 64 of 640."""
    assert (
        "at N = 6C = 576; their share is 10% at 64 tokens (at most 1.11 times"
        in sentences(tradeoff(planted_study(tmp_path)))[-1]
    )


def test_speeds_are_factors_on_one_timing_of_the_reference(tmp_path: Path):
    """The arm's own 7 images/s were measured beside other work, as the reference was then."""
    rows = [time(SOFTMAX, 100, 2**20), time(LINEAR, 7, 2**20)]
    found = tradeoff(planted.write(tmp_path, study([SOFTMAX, LINEAR], 1), rows))
    assert point(found, "attention/softmax").measured("train_images_per_s") == 100
    assert point(found, "attention/linear").measured("train_images_per_s") == 150
    assert point(found, "attention/linear").measured("infer_images_per_s") == 450
    alone = tradeoff(planted.write(tmp_path, study([SOFTMAX, LINEAR], 1), rows[1:]))
    assert point(alone, "attention/linear").measured("train_images_per_s") == 7


def test_growth_is_an_exponent_over_all_timed_numbers_of_tokens(tmp_path: Path):
    arms = [arm("attention/softmax", patch) for patch in (4, 2, 1)]
    rows = [time(a, 1e6 / a["tokens"] ** 2, 32 * 7 * a["tokens"]) for a in arms]
    found = tradeoff(planted.write(tmp_path, study(arms, 1, timed=(2, 1)), rows))
    (growth,) = found.growths
    assert growth.tokens == (64, 256, 1024) and growth.memory == pytest.approx([7 * n for n in growth.tokens])
    assert growth.time_slope == pytest.approx(2) and growth.memory_slope == pytest.approx(1)
    assert [p.missing for p in found.points] == [1, 0, 0] and [p.trained for p in found.points] == [True, False, False]
    assert tradeoff_report.write(tmp_path).is_file() and (tmp_path / "tradeoff.png").is_file()


def test_page_tables_and_figure(tmp_path: Path):
    planted_study(tmp_path)
    described = study([SOFTMAX, LINEAR, WIDE], 7)
    rows = [*read_rows(tmp_path), failed(LINEAR, 6, "ValueError: <script>alert(1)</script>")]
    planted.write(tmp_path, described, rows)
    assert report.main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader(page)
    assert "script" not in reader.tags and "link" not in reader.tags and "<b>too many</b>" not in page
    (source,) = reader.sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == (tmp_path / "tradeoff.png").read_bytes()
    expected = ["<b>too many</b> parameters", "<script>alert(1)</script>", "1.50 (1.25 to 1.75)", "+2.0 (+0.8 to +3.2)"]
    for words in [*expected, "2 runs and timings are missing and 1 failed", "2 x planted", "attention/linear (wide)"]:
        assert words in reader.text, words
    with (tmp_path / "summary.csv").open(newline="") as file:
        softmax, linear, wide = csv.DictReader(file)
    assert (linear["overlay"], linear["widened"], wide["widened"]) == ("attention/linear", "False", "True")
    assert (linear["seeds"], linear["failed"], linear["missing"], softmax["missing"]) == ("6", "1", "0", "1")
    assert float(linear["accuracy"]) == pytest.approx(0.83) and float(linear["train_times_as_fast"]) == 1.5
    assert softmax["train_times_as_fast"] == "" and float(softmax["train_images_per_s"]) == 100
    with (tmp_path / "refused.csv").open(newline="") as file:
        assert [line["reason"] for line in csv.DictReader(file)] == ["<b>too many</b> parameters"]


def read_rows(folder: Path) -> list[planted.Row]:
    """Without their study, which grows."""
    rows = json.loads("[" + ",".join((folder / "runs.jsonl").read_text().split("\n")[:-1]) + "]")
    return [{name: value for name, value in row.items() if name != "study"} for row in rows]


@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_a_study_that_has_only_begun(tmp_path: Path, done: int):
    rows = [time(SOFTMAX, 100.0, 2**20), time(LINEAR, 150.0, 2**20), run(SOFTMAX, 0, 0.8), run(LINEAR, 0, 0.7)][:done]
    reader = Reader(
        tradeoff_report.write(planted.write(tmp_path, study([SOFTMAX, LINEAR], 2), rows)).read_text(encoding="utf-8")
    )
    assert f"{6 - done} runs and timings are missing" in reader.text
    assert ("img" in reader.tags) == (tmp_path / "tradeoff.png").exists() == (done > 2)


def test_what_is_no_such_study_is_refused_and_left_as_it_was(tmp_path: Path):
    planted_study(tmp_path)
    with pytest.raises(ValueError, match="all of one size: leave --size out"):
        report.main([str(tmp_path), "--size", "100"])
    rows = [*read_rows(tmp_path), run(SOFTMAX, 9, 0.5)]
    planted.write(tmp_path, study([SOFTMAX, LINEAR, WIDE], 6), rows)
    with pytest.raises(ValueError, match="is not of this study: seed is 9"):
        tradeoff_report.write(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["runs.jsonl", "study.json"]
