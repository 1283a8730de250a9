"""Which weights of a net are trained: all, the head's, the attention's, or low-rank updates of some."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn
from typing_extensions import override

from vit.layers import LowRankLinear, Residual
from vit.models.parts import attention_of, head_of


class Tuning(ABC):
    """Prepares a net before its first step: freezes weights, or puts parts in that are trained in their place."""

    @abstractmethod
    def prepare(self, net: nn.Module) -> None:
        """Raises ValueError for a net that has nothing of what is to be trained."""


@final
@dataclass(frozen=True)
class Full(Tuning):
    """All weights are trained."""

    @override
    def prepare(self, net: nn.Module) -> None:
        pass


@final
@dataclass(frozen=True)
class LinearProbe(Tuning):
    """Only the head is trained: the linear map, and a pool that has weights of its own."""

    @override
    def prepare(self, net: nn.Module) -> None:
        _train_only(net, [])


@final
@dataclass(frozen=True)
class AttentionOnly(Tuning):
    """Self-attention and the head are trained.  Touvron et al. 2022 (Three things everyone should know), section 4."""

    @override
    def prepare(self, net: nn.Module) -> None:
        attention = attention_of(net)
        if not attention:
            raise ValueError(f"training attention only expects self-attention, a {type(net).__name__} has none")
        _train_only(net, attention)


@final
@dataclass(frozen=True)
class LoRA(Tuning):
    """Low-rank updates of linear maps in the blocks, and the head.  Hu et al. 2021.

    `LowRankLinear` and not the library peft, which renames the weights and knows nothing of a net's spec: here a run
    releases plain weights, with the updates merged, and needs no further dependency.

    Args:
        rank: of each update; ``qkv`` is one matrix.
        alpha: updates count alpha / rank.
        maps: names of the maps: ``qkv`` and ``proj`` of the attention, ``fc1`` and ``fc2`` of the MLPs.
    """

    rank: int = 8
    alpha: float = 16.0
    maps: Sequence[str] = ("qkv", "proj")

    @override
    def prepare(self, net: nn.Module) -> None:
        _train_only(net, [])
        found = {
            path: module
            for path, module in net.named_modules()
            if isinstance(module, nn.Linear) and ".blocks." in path and path.rpartition(".")[2] in self.maps
        }
        absent = [name for name in self.maps if name not in {path.rpartition(".")[2] for path in found}]
        if absent or not found:
            raise ValueError(f"no linear map {' or '.join(absent)} in the blocks of the {type(net).__name__} to update")
        for path, module in found.items():
            net.set_submodule(path, LowRankLinear(module, self.rank, self.alpha))


def rest(net: nn.Module) -> None:
    """Put frozen parts in eval mode: their running statistics stay, and nothing is dropped in them.

    A block that trains in part keeps its drop path. What has no parameters, such as a mechanism, goes with what it is
    part of.
    """
    parameters = list(net.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        net.eval()
        return
    for part in net.children():
        if not isinstance(part, Residual):
            rest(part)


def _train_only(net: nn.Module, parts: Sequence[str]) -> None:
    """Freeze all but these parts and the head, whose last entry is the whole of it."""
    net.requires_grad_(False)
    for part in (*parts, head_of(net)[-1]):
        net.get_submodule(part).requires_grad_(True)
