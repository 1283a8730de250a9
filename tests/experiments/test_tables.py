"""The tables hold what the findings hold, line by line."""

import csv
import io

import pytest

from tests.experiments import planted
from vit.experiments.findings import Findings, findings
from vit.experiments.tables import tables


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return findings(planted.write(tmp_path_factory.mktemp("study"), *planted.power_laws()))


def read(found: Findings, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(tables(found)[name])))


def test_differences(found: Findings):
    lines = read(found, "differences.csv")
    assert len(lines) == len(found.differences) == 15
    for line, difference in zip(lines, found.differences, strict=True):
        assert (line["first"], line["second"]) == (difference.first, difference.second)
        assert (int(line["size"]), int(line["seeds"])) == (difference.size, 10)
        assert [float(line[name]) for name in ("low", "difference", "high")] == sorted(difference.interval)
        assert (float(line["p"]), float(line["p_holm"])) == (difference.p, difference.adjusted)


def test_crossings(found: Findings):
    lines = {(line["first"], line["second"]): line for line in read(found, "crossings.csv")}
    crossed = lines["cnn", "hybrid"]
    assert crossed["verdict"] == "falls behind" and crossed["seeds"] == "10"
    assert float(crossed["low"]) < float(crossed["value"]) < float(crossed["high"])
    assert lines["hybrid", "vit"]["verdict"] == "ahead throughout" and lines["hybrid", "vit"]["value"] == ""


def test_power_laws(found: Findings):
    for line in read(found, "power_laws.csv"):
        fit = found.fits[line["arm"]]
        assert fit is not None
        for name, interval in (("a", fit.a), ("b", fit.b), ("c", fit.c)):
            assert float(line[name]) == interval.value
            assert (float(line[f"{name}_low"]), float(line[f"{name}_high"])) == (interval.low, interval.high)


def test_a_fit_that_cannot_be_told_is_empty(tmp_path):
    described, rows = planted.power_laws(seeds=2, sizes=(100, 300))
    lines = read(findings(planted.write(tmp_path, described, rows)), "power_laws.csv")
    assert [line["arm"] for line in lines] == ["cnn", "hybrid", "vit"]
    assert {value for line in lines for name, value in line.items() if name != "arm"} == {""}
