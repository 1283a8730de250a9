"""Arms made comparable: each has one dial, turned until its net has the first arm's parameters or computation."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vit.experiments.grid import Arm

Match = Literal["parameters", "compute", "none"]
Build = Callable[[Mapping[str, float]], nn.Module]
TOLERANCE = 0.02


@dataclass(frozen=True)
class Candidate:
    """An architecture that a study may compare.

    Attributes:
        configs: overlays of ``vit fit`` that make it.
        dial: option that widens or narrows the net, None for a net that is taken as it is.
        low: smallest value of the dial.
        high: largest value of the dial.
    """

    configs: list[str]
    dial: str | None = None
    low: float = 0.05
    high: float = 8.0


def select(names: Sequence[str], candidates: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """The candidates of these names, in this order.

    Raises:
        ValueError: a name that is not there, or twice.
    """
    for name in names:
        if name not in candidates:
            near = difflib.get_close_matches(name, candidates, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown arm {name!r}: expected some of {', '.join(candidates)}{hint}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected at least one arm and each once, got {', '.join(names) or 'none'}")
    return {name: candidates[name] for name in names}


def matched(
    candidates: Mapping[str, Candidate],
    builds: Mapping[str, Build],
    shape: tuple[int, ...],
    match: Match,
) -> tuple[Arm, ...]:
    """Arms like the first one without a dial (or the first of all), which is the size its configs give it.

    Args:
        candidates: by name, in order.
        builds: each candidate's net, given further options.
        shape: channels, height and width of a picture.
        match: what is made equal, to within 2 %.

    Raises:
        ValueError: another arm without a dial, or whose dial reaches no such net.
    """
    arms: dict[str, Arm] = {}
    for name in sorted(candidates, key=lambda name: candidates[name].dial is not None):
        candidate = candidates[name]
        arm_at = partial(_arm, name, candidate, builds[name], shape)
        own, reference = arm_at({}), next(iter(arms.values()), None)
        arms[name] = own if reference is None or match == "none" else _turned(arm_at, own, reference, candidate, match)
    return tuple(arms[name] for name in candidates)


def parameters(net: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of one picture's forward pass: half of torch's count of matrix products and convolutions."""
    picture = torch.zeros(1, *shape)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        net.eval()(picture)
    return counter.get_total_flops() // 2


def _arm(
    name: str,
    candidate: Candidate,
    build: Build,
    shape: tuple[int, ...],
    options: Mapping[str, float],
) -> Arm:
    net = build(options)
    return Arm(name, tuple(candidate.configs), options, parameters(net), macs(net, shape))


def _turned(
    arm_at: Callable[[Mapping[str, float]], Arm], own: Arm, reference: Arm, candidate: Candidate, match: Match
) -> Arm:
    """Bisection: both counts grow with the dial."""

    def far(arm: Arm) -> float:
        return abs(_count(arm, match) / target - 1)

    target = _count(reference, match)
    if far(own) <= TOLERANCE:
        return own
    what = f"{target:,} {'parameters' if match == 'parameters' else 'multiply-adds'} of {reference.name}"
    if candidate.dial is None:
        raise ValueError(f"arm {own.name} has {_count(own, match):,} where it should match the {what}, and no dial")
    low, high, best = candidate.low, candidate.high, own
    for _ in range(30):
        value = float(f"{math.sqrt(low * high):.4g}")
        arm = arm_at({candidate.dial: value})
        best = min(best, arm, key=far)
        if far(best) <= TOLERANCE / 4 or value in (low, high):
            break
        low, high = (value, high) if _count(arm, match) < target else (low, value)
    if far(best) > TOLERANCE:
        raise ValueError(
            f"arm {own.name} cannot match the {what}: {candidate.dial} between {candidate.low} and {candidate.high} "
            f"comes to {_count(best, match):,} at best"
        )
    return best


def _count(arm: Arm, match: Match) -> int:
    return arm.parameters if match == "parameters" else arm.macs
