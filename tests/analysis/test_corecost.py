"""Costs of cores."""

from functools import partial

import pytest

from vit.analysis.corecost import core_macs, core_seconds
from vit.analysis.cost import reordered_macs, scores_macs, slope
from vit.attention import (
    RFA,
    Dense,
    Efficient,
    EfficientScaling,
    General,
    Linear,
    Linformer,
    Longformer,
    Mechanism,
    Nystrom,
    Performer,
    RandomSynthesizer,
    Routing,
    Softmax,
    Sparse,
    Window,
)


def test_multiply_adds_are_those_of_the_formulas():
    found = core_macs({"softmax": Softmax, "efficient": Efficient, "learned": RandomSynthesizer}, [2, 5], width=7)
    assert found["softmax"] == [scores_macs(n, 7, 7) for n in (4, 25)]
    assert found["efficient"] == [reordered_macs(n, 7, 7) for n in (4, 25)]
    assert found["learned"] == [7 * n * n for n in (4, 25)]  # no queries meet keys


def test_multiply_adds_grow_with_the_tokens_or_with_their_square_as_said():
    linear = {"linear": Linear, "efficient": Efficient, "scaling": EfficientScaling, "performer": Performer, "rfa": RFA}
    linear |= {
        "linformer": Linformer,
        "nystrom": partial(Nystrom, landmarks=4),
        "window": partial(Sparse, pattern=Window),
    }
    square = {"softmax": Softmax, "general": General, "learned": RandomSynthesizer, "routing": Routing}
    square |= {"window, dense": partial(Sparse, pattern=Window, engine=Dense)}
    for power, mechanisms in ((1, linear), (2, square)):
        for name, macs in core_macs(mechanisms, [16, 32], width=16).items():
            assert slope([256, 1024], macs) == pytest.approx(power, abs=0.1), name


def test_every_mechanism_and_size_is_timed():
    found = core_seconds({"softmax": Softmax, "longformer": Longformer}, [2, 3, 5], repeats=1)
    assert list(found) == ["softmax", "longformer"]
    assert all(len(row) == 3 and min(row) > 0 for row in found.values())


def test_a_mechanism_is_given_what_it_takes_and_no_more():
    class Values(Mechanism):
        inputs = ("v",)

        def __init__(self, heads, head_dim, grid):
            super().__init__()

        def forward(self, q, k, v, layout):
            assert q is None and k is None
            return v @ v.mT @ v

    assert core_macs({"values": Values}, [3], width=7)["values"] == [2 * 9 * 9 * 7]
