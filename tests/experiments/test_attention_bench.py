"""Parts of a block against their closed forms; what is said, recorded and drawn. No time is asserted."""

import json
from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vit.analysis import cost
from vit.commandline.options import VitCLI
from vit.experiments import bench
from vit.experiments.attention_bench import Measured, Settings, lines, measure
from vit.experiments.blockcost import Bench, Core, Part, _both_passes, _sides

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


def test_each_number_of_heads_is_that_of_what_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bench, "_cost", lambda _, work, inputs: (inputs[0].shape[1], 1.0))  # heads of the queries
    bench = Bench(("model/vit_pico",), 1, 1, "cpu")
    assert list(bench.heads(bench.cli("attention/softmax"), 4, [1, 3, 5])) == [(1, 4, 1, 1.0), (3, 4, 3, 1.0)]


@pytest.mark.parametrize(("tokens", "sides"), [(1, (1, 1)), (7, (1, 7)), (24, (4, 6)), (64, (8, 8)), (72, (8, 9))])
def test_tokens_lie_on_the_grid_nearest_to_a_square(tokens: int, sides: tuple[int, int]):
    assert _sides(tokens) == sides


def test_cores_are_measured_at_every_number_of_tokens(found: Measured):
    cores = {(core.overlay, core.tokens): core for core in found.cores}
    assert cores.keys() == {(name, n) for name in ("softmax, unfused", "attention/softmax") for n in (9, 26)}
    for (name, n), core in cores.items():
        assert core.macs == 2 * n * n * C
        matrices = 2 * n * n if "unfused" in name else 0  # one of each head
        assert core.saved_bytes >= 4 * (3 * n * C + matrices)
        assert "unfused" not in name or core.saved_bytes == 4 * (3 * n * C + matrices)


def test_seconds_are_the_least_after_the_first_for_one_image_and_all_blocks(monkeypatch: pytest.MonkeyPatch):
    clock = cycle([0.1, 6, 3, 9])
    monkeypatch.setattr(cost, "seconds", lambda work, device: next(clock))
    timed = measure(Settings(["attention/softmax"], [4], [1, 2], [2], 4, ["model/vit_pico"], B, 3))
    for part in timed.parts:
        whole = 1 - 3 * part.depth if part.name == "rest" else part.depth
        assert part.seconds == pytest.approx(whole)
    assert [row.seconds for row in (*timed.heads, *timed.cores)] == pytest.approx([1, 1, 1])


def test_a_step_is_both_passes_to_inputs_and_parameters():
    class Watched(nn.Linear):
        def forward(self, x: Tensor, scale: int) -> Tensor:
            for name, leaf in (("input", x), ("weight", self.weight)):
                leaf.register_hook(lambda _, name=name: reached.append(name))
            return super().forward(x) * scale

    reached: list[str] = []
    _both_passes(Watched(3, 5), [torch.randn(2, 3), 7])()
    assert sorted(reached) == ["input", "weight"]


def test_what_cannot_be_measured_is_kept_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    plain, parsed = Bench.core, Bench.cli

    def cli(bench: Bench, overlay: str, *options: str) -> VitCLI:
        if overlay == "attention/window":
            raise ValueError("no such part")
        return parsed(bench, overlay, *options)

    def core(bench: Bench, overlay: str, cli: VitCLI, tokens: int) -> Core:
        if tokens == 9 and overlay == "attention/softmax":
            raise ValueError("too many")
        return plain(bench, overlay, cli, tokens)

    monkeypatch.setattr(Bench, "core", core)
    monkeypatch.setattr(Bench, "cli", cli)
    arms = ["attention/softmax", "attention/window"]
    found = measure(Settings(arms, [4, 9], [1], [], 4, ["model/vit_pico"], 1, 1))
    unbuilt = [("attention/window", n, "no such part") for n in (4, 9)]
    assert found.refused == (("attention/softmax", 9, "too many"), *unbuilt)
    assert [(core.overlay, core.tokens) for core in found.cores][2:] == [("attention/softmax", 4)]


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


def test_exponents_are_of_the_long_sequences_and_factors_of_the_longest():
    costs = {"attention/softmax": ((1, 1, 4, 64), (1, 1, 2, 4)), "attention/linear": ((9, 1, 2, 4), (1, 3, 6, 12))}
    cores = [
        Core(name, n, 1, s, b * 2**20)
        for name, (seconds, kept) in costs.items()
        for n, s, b in zip((64, 1024, 2048, 4096), seconds, kept, strict=True)
    ]
    made = ((1, "core", 30, 0.1), (1, "MLP", 70, 0.3), (2, "core", 20, 0.5), (2, "MLP", 20, 0.5))
    parts = tuple(Part(name, 64, depth, macs, seconds) for depth, name, macs, seconds in made)
    rows = [line.split() for line in lines(Measured(C, parts, (), tuple(cores), (("attention/odd", 64, "too few"),)))]
    assert ["64", "1", "30%", "25%", "100.00ms", "70%", "75%", "300.00ms"] in rows
    assert ["64", "2", "50%", "50%", "500.00ms", "50%", "50%", "500.00ms"] in rows
    ends = {row[0]: row[-3:] for row in rows if row and row[0] in costs}
    assert ends == {"attention/softmax": ["3.00", "1.00", "1.00"], "attention/linear": ["1.00", "1.00", "0.06"]}
    assert ["attention/odd", "at", "64", "tokens:", "too", "few"] in rows


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
