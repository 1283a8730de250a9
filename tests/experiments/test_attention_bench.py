"""Parts of a block against their closed forms; what is said, recorded and drawn. No time is asserted."""

import json
from pathlib import Path

import pytest

from vit.experiments import bench
from vit.experiments.attention_bench import Measured, Settings, lines, measure

C, B = 48, 3
SMALL = Settings(["attention/softmax"], [9, 26], [1, 2], [1, 2, 5, 12], 9, ["model/vit_pico"], B, 1)


@pytest.fixture(scope="module")
def found() -> Measured:
    return measure(SMALL)


def test_multiply_adds_of_the_parts_by_their_formulas(found: Measured):
    macs = {(part.name, part.tokens, part.depth): part.macs for part in found.parts}
    for n in (9, 26):
        for depth in (1, 2):
            assert macs["attention core", n, depth] == depth * 2 * n * n * C
            assert macs["projections", n, depth] == depth * 4 * n * C * C
            assert macs["MLP", n, depth] == depth * 8 * n * C * C
            assert macs["rest", n, depth] == n * C + 10 * C  # patches of one pixel, ten classes
    assert len(macs) == 4 * 2 * 2 and found.embed_dim == C


def test_heads_share_one_width_and_change_no_multiply_adds(found: Measured):
    assert [row.heads for row in found.heads] == [1, 2, 12]  # 5 does not divide 48
    assert {row.macs for row in found.heads} == {2 * 9 * 9 * C}
    assert all(row.seconds > 0 for row in found.heads)


def test_cores_are_measured_at_every_number_of_tokens(found: Measured):
    cores = {(core.overlay, core.tokens): core for core in found.cores}
    assert cores.keys() == {(name, n) for name in ("softmax, unfused", "attention/softmax") for n in (9, 26)}
    for (name, n), core in cores.items():
        assert core.macs == 2 * n * n * C
        matrices = 2 * n * n if "unfused" in name else 0  # one of each head
        assert core.saved_bytes >= 4 * (3 * n * C + matrices)
        assert "unfused" not in name or core.saved_bytes == 4 * (3 * n * C + matrices)


def test_a_pattern_is_measured_by_both_engines():
    few = Settings(["attention/window"], [64], [1], [], 64, ["model/vit_pico"], 1, 1)
    cores = {core.overlay: core for core in measure(few).cores}
    assert cores.keys() >= {"attention/softmax", "attention/window", "attention/window, dense mask"}
    full = 2 * 64 * 64 * C
    assert cores["attention/window, dense mask"].macs == full and cores["attention/window"].macs < full


def test_the_record_and_the_figure_are_written_and_name_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = "attention --tokens 4,9 --depth 1 --heads 2 --heads_at 4 --repeats 1 --batch_size 1 --host [model/vit_pico]"
    args = [*args.split(), "--arms", "attention/softmax", "--out", str(tmp_path / "bench")]
    assert bench.main(args) == bench.main(args) == 0
    records = [json.loads(line) for line in (tmp_path / "bench" / "attention.jsonl").read_text().splitlines()]
    assert len(records) == 2 and records[0]["tokens"] == [4, 9] and records[0]["versions"]["torch"]
    assert records[0]["hardware"]["threads"] == 1 and str(tmp_path) not in json.dumps(records)
    assert records[0]["cores"][0].keys() == {"overlay", "tokens", "macs", "seconds", "saved_bytes"}
    assert (tmp_path / "bench" / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert "N = 6C =\n288 tokens" in capsys.readouterr().out


def test_tables_say_what_was_measured(found: Measured):
    text = "\n".join(lines(found))
    share = 2 * 26 / (2 * 26 + 12 * C)  # of a block's multiply-adds; patches and head are few
    assert f"{share:.0%}" in next(line for line in text.splitlines() if line.split()[:2] == ["26", "1"])
    assert "attention/softmax" in text and "softmax, unfused" in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["atention"], "unknown bench 'atention'; did you mean 'attention'?"),
        (["attention", "--arms", "attention/sotfmax"], "did you mean 'attention/softmax'"),
        (["attention", "--token", "4"], "--token: no such option; did you mean '--tokens'"),
        (["attention", "--tokens", "0"], "all numbers 1 or more"),
    ],
)
def test_what_cannot_be_is_one_line(args: list[str], words: str):
    with pytest.raises(ValueError) as error:
        bench.main(args)
    assert words in str(error.value) and "\n" not in str(error.value)
