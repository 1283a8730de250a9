"""What a transfer study says of planted numbers."""

import csv
from pathlib import Path

import pytest

from tests.experiments import planted
from tests.experiments.planted_transfer import SHIFTS, entry, failed, pretrain, run, study
from vit.experiments import report, transfer_report
from vit.experiments.gains import Gain, gains, sentences

SCRATCH, LONG = entry("scratch"), entry("scratch-long", steps=140)
MAE, OTHER = entry("mae", origin="mae@planted"), entry("supervised@other", origin="supervised@other")
ENTRIES = [SCRATCH, LONG, MAE, OTHER]
ACCURACIES = {
    "planted.scratch": 0.70,
    "planted.scratch-long": 0.72,
    "planted.mae": 0.80,
    "planted.supervised@other": 0.69,
}
PROBES = {"planted.scratch": 0.5, "planted.mae": 0.6, "planted.supervised@other": 0.4}


def rows(seeds: int = 6) -> list[planted.Row]:
    runs = []
    for seed in range(seeds):
        for one in ENTRIES:
            own = 0.001 * (seed % 2) if one is MAE else 0.0
            runs.append(run(one, seed, ACCURACIES[one["name"]] + SHIFTS[seed] + own, PROBES.get(one["name"])))
    return [pretrain("mae@planted", 1000), *(pretrain("mae@planted", seed) for seed in range(seeds)), *runs]


def test_gains_are_paired_by_seed_over_both_fresh_starts(tmp_path: Path):
    found = gains(planted.write(tmp_path, study(ENTRIES), rows()))
    by = {(gain.row, gain.over): gain for gain in found.gains}
    assert set(by) == {
        *((row, "scratch") for row in ("scratch-long", "mae", "supervised@other")),
        *((row, "scratch-long") for row in ("mae", "supervised@other")),
    }
    mae: Gain = by["mae", "scratch"]
    assert mae.by_seed == pytest.approx([0.1, 0.101] * 3) and mae.interval.value == pytest.approx(0.1005)
    assert mae.interval.high - mae.interval.low < 0.003  # although seeds differ by 5 points
    assert mae.p == pytest.approx(2 / 64) and mae.adjusted == pytest.approx(5 * 2 / 64)
    assert by["mae", "scratch-long"].interval.value == pytest.approx(0.0805)
    result = found.at("mae", "planted")
    assert result is not None and (result.minutes, result.pretrain_minutes) == (2.0, 10.0)
    assert result.probes["logistic"] is not None and result.probes["logistic"].value == pytest.approx(0.605)
    fresh = found.at("scratch", "planted")
    assert fresh is not None and fresh.pretrain_minutes is None


def test_minutes_are_of_one_machine(tmp_path: Path):
    slow = {"hardware": {"cpu": "1 x <slow>"}, "fit_seconds": 6000.0}
    made = [row | slow if row["kind"] == "pretrain" or row["seed"] < 2 else row for row in rows()]
    found = gains(planted.write(tmp_path, study(ENTRIES), made))
    result = found.at("mae", "planted")
    assert result is not None and (result.minutes, result.pretrain_minutes) == (2.0, None)
    page = transfer_report.write(tmp_path).read_text(encoding="utf-8")
    assert "beside the other runs of the study, of those on cpu 2 x planted" in page


def test_what_is_said_follows_the_intervals_and_waits_for_six_seeds(tmp_path: Path):
    said = " ".join(sentences(gains(planted.write(tmp_path / "six", study(ENTRIES), rows()))))
    assert "same finetuning: ahead: scratch-long, mae; behind: supervised@other. Most: mae, +10.1" in said
    assert "as long as pretraining and finetuning together: ahead: mae; behind: supervised@other" in said
    assert "scratch 50.5 %" in said and "mae 60.5 %" in said
    said = " ".join(sentences(gains(planted.write(tmp_path / "five", study(ENTRIES), rows(5)))))
    assert said == "No gain is claimed: some rows have 5 of the 6 seeds that a claim takes."


def test_a_source_of_the_targets_own_pictures_is_not_called_another_data_set(tmp_path: Path):
    described = study(ENTRIES)
    own = {"classes": 2, "coarse_of": described["sets"]["planted"]["manifest_hash"]}
    described["sets"]["other"] |= own | {"merged": {"<odd>": ["1", "3"], "even": ["2"]}}
    said = "other is no other data set than planted: the same 640 pictures to train on, with labels of 2 classes in"
    for seeds in (5, 6):
        folder = planted.write(tmp_path / str(seeds), described, rows(seeds))
        told = sentences(gains(folder))
        assert told[1].startswith(said) and told[1].endswith("place of 10 (<odd>: 1, 3; even: 2).")
        page = transfer_report.write(folder).read_text(encoding="utf-8")
        assert said in page and "&lt;odd&gt;: 1, 3" in page and "on another set" not in page
    assert "no other data set" not in " ".join(sentences(gains(planted.write(tmp_path, study(ENTRIES), rows()))))


def test_the_page_escapes_shows_failures_and_the_tables_hold_its_numbers(tmp_path: Path):
    kept = [row for row in rows() if row["key"] != "run-planted.mae-5"]
    folder = planted.write(tmp_path, study(ENTRIES), [*kept, failed(MAE, 5)])
    assert report.main([str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page and "<b>own labels</b>" not in page
    assert "0 runs of the grid are missing and 1 failed" in page and "takes no part" not in page
    assert (folder / "transfer.png").is_file()
    with (folder / "summary.csv").open(newline="") as file:
        lines = {line["row"]: line for line in csv.DictReader(file)}
    assert (lines["mae"]["seeds"], lines["mae"]["failed"], lines["mae"]["origin"]) == ("5", "1", "mae@planted")
    assert lines["scratch-long"]["logistic"] == "" and lines["scratch-long"]["steps"] == "140"
    with (folder / "differences.csv").open(newline="") as file:
        assert {(line["row"], line["over"], line["seeds"]) for line in csv.DictReader(file)} >= {
            ("mae", "scratch", "5")
        }


def test_a_study_that_has_only_begun_or_is_another_is_said(tmp_path: Path):
    page = transfer_report.write(planted.write(tmp_path, study(ENTRIES), [pretrain("mae@planted", 0)]))
    assert "24 runs of the grid are missing" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "transfer.png").exists()
    with pytest.raises(ValueError, match="all of one size: leave --size out"):
        report.main([str(tmp_path), "--size", "100"])
    planted.write(tmp_path, study(ENTRIES), [run(SCRATCH, 9 % 6, 0.5) | {"seed": 9}])
    with pytest.raises(ValueError, match="is not of this study: seed is 9"):
        transfer_report.write(tmp_path)
