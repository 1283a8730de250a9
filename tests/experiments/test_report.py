"""The report: complete, escaped, in one file, and there at any state of a study."""

import base64
import csv
import re
from html.parser import HTMLParser

import pytest

from tests.experiments import planted
from vit.experiments import report
from vit.experiments.findings import findings

VOID = {"meta", "br", "img"}


class Reader(HTMLParser):
    """Text, tags and the references of a page; a tag closed out of turn is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " ".join(data.split()) + " "


def test_page_table_and_figure_of_a_study(tmp_path):
    described, rows = planted.power_laws()
    rows.remove(next(row for row in rows if row["key"] == "run-vit-300-9-32-true"))
    rows.append(planted.failed("vit", 300, 9, "ValueError: <script>alert(1)</script> & more"))
    path = report.write(planted.write(tmp_path, described, rows))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "crossings.csv",
        "curves.png",
        "differences.csv",
        "power_laws.csv",
        "report.html",
        "runs.jsonl",
        "study.json",
        "summary.csv",
    ]
    reader = Reader(path.read_text(encoding="utf-8"))
    assert "script" not in reader.tags and "link" not in reader.tags
    (source,) = reader.sources
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == (tmp_path / "curves.png").read_bytes()
    expected = ["Train hybrid on 10,000 images.", "hybrid overtakes cnn between", "190,007 parameters", "c0ffee"]
    expected += ["0123456789ab", "2 x planted", "torch 2.15.0", "ValueError: <script>alert(1)</script> & more"]
    for words in [*expected, "0 runs of the grid are missing and 1 failed", "600 steps", "inside the grid"]:
        assert words in reader.text
    assert reader.text.index("Train hybrid") < reader.text.index("Where one overtakes")
    with (tmp_path / "summary.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 5
    vit = next(line for line in table if (line["arm"], line["size"]) == ("vit", "300"))
    assert (vit["seeds"], vit["failed"], vit["missing"], vit["parameters"]) == ("9", "1", "0", "190014")
    accuracies = [row["acc"] for row in rows if row.get("acc") and (row["arm"], row["size"]) == ("vit", 300)]
    assert float(vit["accuracy"]) == pytest.approx(sum(accuracies) / 9)
    assert float(vit["low"]) < float(vit["accuracy"]) < float(vit["high"])


def test_a_pretrained_arm_is_a_row_a_curve_and_what_it_cost_before(tmp_path):
    described, rows = planted.power_laws(seeds=6)
    described = planted.pretrained(described, "hybrid")
    before = [planted.pretrain("hybrid", seed, minutes) for seed, minutes in ((1000, 9), (0, 11), (1, 30))]
    failed = {"kind": "pretrain", "key": "pretrain-hybrid-2", "seed": 2}
    folder = planted.write(tmp_path, described, [*before, planted.failed("hybrid", 54_000, 2, "lost") | failed, *rows])
    reader = Reader(report.write(folder).read_text(encoding="utf-8"))
    assert "pretrain/mae : 2,000 steps on all 54,000 images, labels ignored, once for each seed; 11.0 minutes each" in (
        reader.text
    )
    assert reader.text.count("minutes each") == 1  # of the others nothing
    assert "0 runs of the grid are missing and 1 failed" in reader.text and "lost" in reader.text
    found = findings(folder)
    curves = [line.get_label() for line in report.figure(found).axes[-1].lines]
    assert len([line for line in report.figure(found).axes[-1].lines if len(line.get_xdata()) == 5]) == 3, curves
    with (tmp_path / "summary.csv").open(newline="") as file:
        table = [line for line in csv.DictReader(file) if line["arm"] == "hybrid"]
    assert [line["size"] for line in table] == ["100", "300", "1000", "3000", "10000"]  # of pretraining none
    own = [row["acc"] for row in rows if (row["kind"], row["arm"], row["size"]) == ("run", "hybrid", 100)]
    assert (table[0]["seeds"], float(table[0]["accuracy"])) == ("6", pytest.approx(sum(own) / 6))
    with pytest.raises(ValueError, match="arm is 'resnet', not in"):
        report.write(planted.write(tmp_path, described, [planted.pretrain("resnet", 0, 1.0)]))


@pytest.mark.parametrize("done", [0, 1, 4, 14])
def test_a_study_that_has_only_begun(tmp_path, done):
    described, rows = planted.power_laws(seeds=3)
    runs = [row for row in rows if row["kind"] == "run"]
    reader = Reader(report.write(planted.write(tmp_path, described, runs[:done])).read_text(encoding="utf-8"))
    assert f"{45 - done} runs of the grid are missing" in reader.text
    assert "No claim yet for 10,000 images." in reader.text
    assert ("img" in reader.tags) == (tmp_path / "curves.png").exists() == (done > 0)


def test_names_from_the_records_are_text(tmp_path):
    arm = "<i>$x_1$</i>"
    described = planted.study([arm], [100], [0, 1])
    described["data"]["name"] = "<script>"
    rows = [planted.run(arm, 100, seed, 0.5 + 0.1 * seed) | {"commit": "<b>"} for seed in (0, 1)]
    page = report.write(planted.write(tmp_path, described, rows)).read_text(encoding="utf-8")
    assert not re.search(r"<(i|b|script)>", page)
    assert arm in Reader(page).text


def test_few_seeds_cannot_reach_a_small_p_and_the_page_says_so(tmp_path):
    page = report.write(planted.write(tmp_path, *planted.power_laws(seeds=6))).read_text(encoding="utf-8")
    assert "over 15 comparisons cannot fall below 0.47" in page  # 15 * 2 / 2^6
    page = report.write(planted.write(tmp_path, *planted.power_laws(seeds=10))).read_text(encoding="utf-8")
    assert "cannot fall below" not in page


def test_a_refused_folder_is_left_as_it_was(tmp_path):
    described, rows = planted.power_laws(seeds=2)
    planted.write(tmp_path, described | {"version": 7}, rows)
    with pytest.raises(ValueError, match="version 1"):
        report.write(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["runs.jsonl", "study.json"]
