"""Findings and advice: planted studies come out with the numbers planted, and no more is said than the seeds allow."""

import json
from pathlib import Path

import pytest

from tests.experiments import planted
from vit.experiments.advice import crossing_sentence, recommendation
from vit.experiments.findings import findings

GAINS = (0.01, 0.02, 0.03, 0.02, 0.01, 0.03)  # mean 0.02, deviation 0.008944, t(5) = 2.5706: half width 0.009387


def _two_arms(folder: Path, gains=GAINS, sizes=(100,)) -> Path:
    """vit at 0.80 + 0.01 seed, cnn above it by the gains."""
    rows = []
    for size in sizes:
        for seed, gain in enumerate(gains):
            rows += [planted.run("vit", size, seed, 0.8 + 0.01 * seed)]
            rows += [planted.run("cnn", size, seed, 0.8 + 0.01 * seed + gain, seconds=60 + seed)]
    return planted.write(folder, planted.study(["vit", "cnn"], sizes, range(len(gains))), rows)


def test_paired_difference_by_hand(tmp_path):
    found = findings(_two_arms(tmp_path))
    (difference,) = found.differences
    assert (difference.first, difference.second, difference.size) == ("vit", "cnn", 100)
    assert difference.interval == pytest.approx((-0.02, -0.029387, -0.010613), abs=1e-6)
    assert difference.p == difference.adjusted == 2 / 2**6
    cell = found.cell("cnn", 100)
    assert cell.mean == pytest.approx(0.845)
    assert cell.minutes == pytest.approx(62.5 / 60)
    assert cell.images_per_s == pytest.approx((54_000 / 62 + 54_000 / 63) / 2)


def test_times_are_of_one_machine(tmp_path):
    other = {"hardware": {"cpu": "16 x planted", "threads": 1, "gpus": ["fast"]}}
    described = planted.pretrained(planted.study(["vit", "cnn"], [100, 300], range(6)), "vit")
    rows = [planted.run("vit", 100, seed, 0.8, seconds=90) | (other if seed < 2 else {}) for seed in range(6)]
    rows += [planted.run("cnn", 100, 0, 0.8) | other, *(planted.pretrain("vit", seed, 3) | other for seed in range(6))]
    described |= {"compare_precision": "bf16-mixed", "tune_size": 100}
    for seed, where in enumerate((other, {}, {}, other)):  # the same machine twice: seeds 0 and 2
        rows += [planted.run("vit", 100, seed, 0.8, "bf16-mixed", seconds=(9, 1, 45, 1)[seed]) | where]
    found = findings(planted.write(tmp_path, described, rows))
    assert found.cell("vit", 100).minutes == 1.5 and found.cell("vit", 100).images_per_s == 600
    assert found.cell("cnn", 100).minutes is None and found.cell("cnn", 100).images_per_s is None
    assert found.pretraining_minutes("vit") is None
    assert found.precisions[0].speed == (10 + 2) / 2
    assert len(found.cell("vit", 100).accuracies) == 6, "accuracies are of all"


def test_holm_is_over_the_whole_table(tmp_path):
    found = findings(_two_arms(tmp_path, sizes=(100, 300)))
    assert [difference.adjusted for difference in found.differences] == [4 / 2**6] * 2


def test_planted_curves_give_their_crossing_and_laws(tmp_path):
    found = findings(planted.write(tmp_path, *planted.power_laws()))
    sentences = [crossing_sentence(pair, found.differences) for pair in found.pairs]
    crossing = found.pairs[0].crossing
    assert crossing.low and crossing.high and crossing.low < 1000 < crossing.high
    assert sentences[0] == f"hybrid overtakes cnn between {crossing.low:,.0f} and {crossing.high:,.0f} images."
    assert sentences[1] == "vit does not overtake cnn by 10,000 images: it is behind at every measured size."
    fit = found.fits["cnn"]
    assert fit is not None and fit.b.low < 0.4 < fit.b.high
    assert recommendation(found, 100).arms == ("cnn",)
    best = recommendation(found)
    assert (best.size, best.arms, best.headline) == (10_000, ("hybrid",), "Train hybrid on 10,000 images.")
    law = found.fits["hybrid"]
    assert law is not None
    doubled = f"Twice the images (20,000) would bring hybrid to about {100 * (1 - law.error(20_000)):.1f} %"
    assert any(sentence.startswith(doubled) for sentence in best.sentences)


def test_whether_more_images_change_the_answer(tmp_path):
    found = findings(planted.write(tmp_path, *planted.power_laws()))
    crossing = found.pairs[0].crossing
    where = f"hybrid overtakes cnn between {crossing.low:,.0f} and {crossing.high:,.0f} images."
    at = {size: recommendation(found, size) for size in (100, 3000, 10_000)}
    assert f"More images change the answer: at 10,000 it is hybrid. {where}" in at[100].sentences
    assert at[3000].arms == ("hybrid",)
    assert "More images do not change the answer: at 10,000 it is the same." in at[3000].sentences
    unknown = "No more than 10,000 images were studied: whether more would change the answer is not known."
    assert unknown in at[10_000].sentences


def test_more_images_that_only_narrow_an_answer_may_change_it(tmp_path):
    """cnn and vit are level at 100 images, cnn is ahead at 300."""
    level, gains = (0.01, -0.01, 0.01, -0.01, 0.01, -0.01), GAINS
    rows = [planted.run("vit", size, seed, 0.8) for size in (100, 300) for seed in range(6)]
    rows += [planted.run("cnn", 100, seed, 0.8 + gain) for seed, gain in enumerate(level)]
    rows += [planted.run("cnn", 300, seed, 0.8 + gain) for seed, gain in enumerate(gains)]
    advice = recommendation(
        findings(planted.write(tmp_path, planted.study(["vit", "cnn"], [100, 300], range(6)), rows)), 100
    )
    assert len(advice.arms) == 2 and "More images may change the answer: at 300 it is cnn." in advice.sentences


def test_runs_missing_at_the_largest_size_leave_open_whether_more_change_the_answer(tmp_path):
    described, rows = planted.power_laws(seeds=6)
    rows = [row for row in rows if (row["size"], row["seed"]) != (10_000, 5)]
    advice = recommendation(findings(planted.write(tmp_path, described, rows)), 100)
    assert advice.arms == ("cnn",)
    assert "not known yet: at 10,000 runs are missing." in " ".join(advice.sentences)


def test_beyond_what_was_measured_nothing_is_known(tmp_path):
    found = findings(planted.write(tmp_path, *planted.power_laws()))
    words = " ".join(recommendation(found, 10_001).sentences)
    assert "10,001 lies outside what was measured" in words
    assert "twice the images (20,002) would bring is not known" in words


def test_without_a_fit_twice_the_data_is_not_known(tmp_path):
    best = recommendation(findings(_two_arms(tmp_path)))
    assert best.arms == ("cnn",)
    assert "It is 2.0 (1.1 to 2.9) points ahead of vit." in best.sentences
    assert any("is not known: no power law" in sentence for sentence in best.sentences)


def test_what_cannot_be_told_apart_is_said_with_its_size(tmp_path):
    gains = (0.01, -0.01, 0.01, -0.01, 0.01, -0.01)  # deviation 0.010954: half width 0.011496
    best = recommendation(findings(_two_arms(tmp_path, gains)))
    assert best.headline.endswith("at 100 images no difference can be told.") and len(best.arms) == 2
    assert any(sentence.endswith("one larger than 1.1 points is ruled out.") for sentence in best.sentences)


def test_no_claim_from_five_seeds(tmp_path):
    found = findings(_two_arms(tmp_path, GAINS[:5], sizes=(100, 300)))
    advice = recommendation(found, 100)
    assert (advice.arms, advice.headline) == ((), "No claim yet for 100 images.")
    assert advice.sentences[0] == "A claim takes 6 seeds at 100 images: vit 1 more (has 5), cnn 1 more (has 5)."
    (pair,) = found.pairs
    assert crossing_sentence(pair, ()) == "vit and cnn: no claim from 5 paired seeds, it takes 1 more."


def test_three_pairs_at_once_need_more_than_one(tmp_path):
    """An interval of one pair leaves 0 out, the three together do not: 3.5341 instead of 2.5706 standard errors."""
    gains = (0.0, 0.02, 0.03, 0.0, 0.01, 0.03)  # mean 0.015, standard error 0.005627
    rows = [planted.run("vit", 100, seed, 0.8) for seed in range(6)]
    rows += [planted.run("cnn", 100, seed, 0.8 + gain) for seed, gain in enumerate(gains)]
    rows += [planted.run("mlp", 100, seed, 0.3) for seed in range(6)]
    found = findings(planted.write(tmp_path, planted.study(["vit", "cnn", "mlp"], [100], range(6)), rows))
    assert found.differences[0].interval.high < 0
    assert recommendation(found).arms == ("cnn", "vit")


def test_the_last_finished_row_of_a_key_counts(tmp_path):
    rows = [planted.run("vit", 100, 0, 0.5), planted.run("vit", 100, 0, 0.75), planted.failed("vit", 100, 0, "late")]
    rows += [planted.failed("vit", 100, 1, "first"), planted.failed("vit", 100, 1, "second")]
    found = findings(planted.write(tmp_path, planted.study(["vit"], [100, 300], range(3)), rows))
    cell = found.cell("vit", 100)
    assert (cell.accuracies, cell.failed, cell.missing, cell.interval) == ({0: 0.75}, 1, 1, None)
    assert [row["error"] for row in found.failures] == ["second"]
    assert found.missing == 1 + 3


def test_precision_is_paired_by_seed(tmp_path):
    rows = [planted.run("vit", 100, seed, 0.5 + 0.01 * seed, seconds=90) for seed in range(6)]
    rows += [planted.run("vit", 100, s, 0.5 + 0.01 * s + GAINS[s], "bf16-mixed", seconds=60) for s in range(6)]
    described = planted.study(["vit"], [100], range(6)) | {"compare_precision": "bf16-mixed"}
    (row,) = findings(planted.write(tmp_path, described, rows)).precisions
    assert row.difference == pytest.approx((0.02, 0.010613, 0.029387), abs=1e-6)
    assert (row.seeds, row.speed) == (6, pytest.approx(1.5))


def test_runs_in_another_precision_are_missed_too(tmp_path):
    rows = [planted.run("vit", 100, seed, 0.5) for seed in range(2)]
    rows += [planted.run("vit", 100, 0, 0.5, "bf16-mixed")]
    described = planted.study(["vit", "cnn"], [100], range(2)) | {"compare_precision": "bf16-mixed"}
    found = findings(planted.write(tmp_path, described, rows))
    assert [(row.arm, row.missing) for row in found.precisions] == [("vit", 1), ("cnn", 2)]
    assert found.missing == 2 + 3


@pytest.mark.parametrize(("taken", "edges"), [(0, ("lr",)), (1, ()), (2, ("lr",))])
def test_tuning_says_what_was_taken_and_whether_at_the_edge(tmp_path, taken, edges):
    rows = [planted.tune("vit", 0, 0.5, 100), planted.tune("vit", 1, 0.6, 100)]
    rows += [planted.run("vit", 100, 0, 0.5) | {"options": planted.TRIALS[taken]}]
    (tuning,) = findings(planted.write(tmp_path, planted.study(["vit"], [100], [0]), rows)).tuning
    assert (tuning.val_accuracies, tuning.chosen, tuning.edges) == ((0.5, 0.6, None), taken, edges)


def test_a_torn_last_line_is_left_out(tmp_path):
    folder = _two_arms(tmp_path)
    whole = (folder / "runs.jsonl").read_text()
    (folder / "runs.jsonl").write_text(whole[:-9])
    found = findings(folder)
    assert found.torn and found.missing == 1 and len(found.cell("cnn", 100).accuracies) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 1, got"),
        ({"study": "mechanisms"}, "expected study 'data-size'"),
        ({"sizes": [300]}, "size is 100, not in"),
        ({"seeds": [0]}, "seed is 1, not in"),
        ({"data": {"manifest_hash": "other"}}, "is not of this study: study is "),
    ],
)
def test_a_foreign_folder_is_refused_in_one_line(tmp_path, change, message):
    folder = _two_arms(tmp_path)
    described = json.loads((folder / "study.json").read_text()) | change
    (folder / "study.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=message) as error:
        findings(folder)
    assert "\n" not in str(error.value)


def test_rows_that_cannot_be_are_refused(tmp_path):
    described, row = planted.study(["vit"], [100], range(2)), planted.run("vit", 100, 0, 0.5)
    cases = {
        "an accuracy from 0 to 1, got nan": [row | {"acc": float("nan")}],
        "a second one": [row, row | {"key": "another"}],
        "with one setting": [row, planted.run("vit", 100, 1, 0.5) | {"options": planted.TRIALS[2]}],
    }
    for message, rows in cases.items():
        with pytest.raises(ValueError, match=message):
            findings(planted.write(tmp_path, described, rows))
    (tmp_path / "runs.jsonl").write_text('{"key": "a"\n' + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl:1"):
        findings(tmp_path)
    with pytest.raises(ValueError, match=r"study\.json: expected the description"):
        findings(tmp_path / "nowhere")
