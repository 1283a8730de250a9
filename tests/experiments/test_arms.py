"""Arms are chosen by name and matched in size."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import nn

from vit.analysis.cost import macs, parameters
from vit.experiments.arms import Candidate, matched, select
from vit.models import plain_vit

CANDIDATES = {name: Candidate([f"model/{name}"], "width", 0.1, 10.0) for name in ("vit", "hybrid", "cnn")}
SHAPE = (1, 7, 11)


def mlp(hidden: float, options: Mapping[str, float]) -> nn.Module:
    """7 * 11 inputs, ``hidden`` * width in between, 3 outputs."""
    width = round(hidden * options.get("width", 1.0))
    return nn.Sequential(nn.Flatten(), nn.Linear(77, width), nn.Linear(width, 3))


def size(width: int) -> int:
    return 77 * width + width + 3 * width + 3


def test_arms_come_in_the_order_asked_for():
    assert list(select(["cnn", "vit"], CANDIDATES)) == ["cnn", "vit"]
    with pytest.raises(ValueError, match="unknown arm 'vti': expected some of vit, hybrid, cnn; did you mean 'vit'"):
        select(["vti"], CANDIDATES)
    for names in (["vit", "vit"], []):
        with pytest.raises(ValueError, match="at least one arm and each once"):
            select(names, CANDIDATES)


@pytest.mark.parametrize("match", ["parameters", "compute"])
def test_the_others_are_matched_to_the_first(match):
    builds = {"vit": partial(mlp, 200), "hybrid": partial(mlp, 201), "cnn": partial(mlp, 90)}
    first, near, turned = matched(CANDIDATES, builds, SHAPE, match)
    assert first.options == near.options == {} and first.parameters == size(200) and first.macs == 80 * 200
    assert near.parameters == size(201)  # within 2 %: left as its config has it
    assert turned.options.keys() == {"width"} and 196 <= turned.macs / 80 <= 204
    assert turned.parameters == parameters(mlp(90, turned.options)) and turned.configs == ("model/cnn",)


def test_the_first_without_a_dial_sets_the_size_wherever_it_stands():
    candidates = {"cnn": CANDIDATES["cnn"], "vit": Candidate(["model/vit"])}
    turned, fixed = matched(candidates, {"cnn": partial(mlp, 90), "vit": partial(mlp, 200)}, SHAPE, "parameters")
    assert (turned.name, fixed.name, fixed.options) == ("cnn", "vit", {})
    assert turned.options.keys() == {"width"} and abs(turned.parameters / size(200) - 1) <= 0.02


def test_arms_can_be_left_as_they_are():
    builds = dict.fromkeys(CANDIDATES, partial(mlp, 90)) | {"vit": partial(mlp, 200)}
    assert [arm.options for arm in matched(CANDIDATES, builds, SHAPE, "none")] == [{}, {}, {}]


def test_an_arm_that_cannot_match_is_refused():
    builds = {"vit": partial(mlp, 200), "cnn": partial(mlp, 10)}
    fixed = {"vit": Candidate(["model/vit"]), "cnn": Candidate(["model/cnn"])}
    with pytest.raises(ValueError, match=r"arm cnn has 813 where it should match the 16,203 parameters of vit, and no"):
        matched(fixed, builds, SHAPE, "parameters")
    narrow = {"vit": CANDIDATES["vit"], "cnn": Candidate(["model/cnn"], "width", 0.1, 2.0)}
    with pytest.raises(
        ValueError, match=r"cannot match the 16,203 parameters of vit: width between 0.1 and 2.0 comes to"
    ):
        matched(narrow, builds, SHAPE, "parameters")


def test_multiply_adds_of_a_vit_by_hand():
    """nano: 49 patches of 16 pixels and a class token, 6 blocks of 12 d^2 a token and attention, a head."""
    d, n = 96, 50
    block = n * 12 * d * d + 2 * n * n * d
    assert macs(plain_vit("nano", 28, 1, 10, patch_size=4), (1, 28, 28)) == 49 * 16 * d + 6 * block + 10 * d


def test_counting_leaves_no_gradients_and_counts_what_trains():
    net = mlp(5, {})
    next(net.parameters()).requires_grad_(False)
    assert parameters(net) == size(5) - 77 * 5
    macs(net, SHAPE)
    assert all(parameter.grad is None for parameter in net.parameters()) and torch.is_grad_enabled()
