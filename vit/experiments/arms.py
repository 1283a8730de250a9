"""Arms made comparable: each has one dial, turned until its net has the first arm's parameters or computation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

from torch import nn

from vit.analysis.cost import macs, parameters
from vit.experiments.grid import Arm
from vit.names import did_you_mean

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
        pretrain: overlays of ``vit fit`` that make a pretraining task of it, done once for each seed on all training
            pictures, labels ignored; its runs start from there.
        pretrain_amount: steps of pretraining.
        pretrain_options: further options of pretraining, such as model.optimizer.lr.

    Raises:
        ValueError: overlays of pretraining without steps of it, or steps without overlays.
    """

    configs: list[str]
    dial: str | None = None
    low: float = 0.05
    high: float = 8.0
    pretrain: list[str] = field(default_factory=list)
    pretrain_amount: int = 0
    pretrain_options: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.pretrain) != (self.pretrain_amount > 0):
            raise ValueError(
                f"a candidate is pretrained by overlays and for steps, got {self.pretrain} and {self.pretrain_amount}"
            )


def select(names: Sequence[str], candidates: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """The candidates of these names, in this order.

    Raises:
        ValueError: a name that is not there, or twice.
    """
    for name in names:
        if name not in candidates:
            hint = did_you_mean(name, candidates)
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
        candidate, build = candidates[name], builds[name]
        reference = next(iter(arms.values()), None)
        options: Mapping[str, float] = {}
        if reference is not None and match != "none":
            count = parameters if match == "parameters" else partial(macs, shape=shape)
            options = turned(name, candidate, build, count, Goal.of(reference, match))
        arms[name] = replace(
            arm(name, candidate.configs, build, shape, options),
            pretrain=tuple(candidate.pretrain),
            pretrain_amount=candidate.pretrain_amount,
            pretrain_options=candidate.pretrain_options,
        )
    return tuple(arms[name] for name in candidates)


def arm(name: str, configs: Sequence[str], build: Build, shape: tuple[int, ...], options: Mapping[str, float]) -> Arm:
    """An arm with its parameters and multiply-adds counted."""
    net = build(options)
    return Arm(name, tuple(configs), options, parameters(net), macs(net, shape))


class Goal(NamedTuple):
    """What another arm has, in words and as a number."""

    what: str
    number: int

    @classmethod
    def of(cls, reference: Arm, match: Match) -> "Goal":
        number = reference.parameters if match == "parameters" else reference.macs
        return cls(
            f"{number:,} {'parameters' if match == 'parameters' else 'multiply-adds'} of {reference.name}", number
        )


def turned(
    name: str, candidate: Candidate, build: Build, count: Callable[[nn.Module], int], goal: Goal
) -> Mapping[str, float]:
    """The dial's option with which the net's count is the goal's, none where it is so by itself, to within 2 %.

    Raises:
        ValueError: there is no dial, or none of its values will do.
    """

    def far(number: int) -> float:
        return abs(number / goal.number - 1)

    own = count(build({}))
    if far(own) <= TOLERANCE:
        return {}
    if candidate.dial is None:
        raise ValueError(f"arm {name} has {own:,} where it should match the {goal.what}, and no dial")
    low, high, best, options = candidate.low, candidate.high, own, {}
    for _ in range(30):  # bisection: both counts grow with the dial
        value = float(f"{math.sqrt(low * high):.4g}")
        number = count(build({candidate.dial: value}))
        if far(number) < far(best):
            best, options = number, {candidate.dial: value}
        if far(best) <= TOLERANCE / 4 or value in (low, high):
            break
        low, high = (value, high) if number < goal.number else (low, value)
    if far(best) > TOLERANCE:
        raise ValueError(
            f"arm {name} cannot match the {goal.what}: {candidate.dial} between {candidate.low} and {candidate.high} "
            f"comes to {best:,} at best"
        )
    return options
