"""The optimiser recipe: AdamW, decay on matrices only, per-step linear warm-up and cosine."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vit.models.backbone import parameters_without_decay
from vit.models.parts import depths


@dataclass(frozen=True)
class AdamW:
    """AdamW with warm-up and cosine.  Loshchilov and Hutter 2019; decay, betas and warm-up as in Touvron et al. 2021.

    Not marked final: the command line then takes it as a plain group of options that can have a default.

    Args:
        lr: peak learning rate.
        weight_decay: decoupled decay of weight matrices; norms, biases, tokens and positions are spared.
        betas: running-average factors of gradient and square.
        warmup_epochs: epochs of linear warm-up, fractions allowed; at most half the run.
        min_lr_ratio: final learning rate as a share of the peak.
        layer_decay: each layer learns at this share of the rate of the one above; the head at ``lr``. Clark et al. 2020
            (ELECTRA), for ViTs Bao et al. 2022 (BEiT).

    Raises:
        ValueError: ``lr`` not above 0, decay or warm-up below 0, ``min_lr_ratio`` outside [0, 1] or ``layer_decay``
            outside (0, 1].
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 5.0
    min_lr_ratio: float = 0.01
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if self.lr <= 0 or self.weight_decay < 0 or self.warmup_epochs < 0 or not 0 <= self.min_lr_ratio <= 1:
            raise ValueError(f"expected lr > 0, weight_decay and warmup_epochs >= 0, min_lr_ratio in 0..1, got {self}")

    def build(self, net: nn.Module, fused: bool = True) -> torch.optim.AdamW:
        """The torch optimiser over ``net``'s trainable parameters.

        Args:
            fused: use torch's one-kernel step; it unscales fp16 gradients itself, which rules out clipping there.
        """
        return torch.optim.AdamW(self._groups(net), lr=self.lr, betas=self.betas, fused=fused)

    def schedule(self, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
        """Share of the peak learning rate for the step of this index, from 0 to ``total_steps``.

        A closure and not an object: LambdaLR would store an object's numbers in the checkpoint and bring them back
        over the new ones when a run is resumed with other epochs.
        """
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total_steps // 2)

        def share(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
            return self.min_lr_ratio + (1 - self.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))

        return share

    def _groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """By depth, the head first: the learning rate that is logged is the first group's."""
        spared = parameters_without_decay(net)
        trainable = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
        depth = dict.fromkeys(trainable, 0) if self.layer_decay == 1 else depths(net)
        top, groups = max(depth.values()), []
        for layer in sorted({depth[name] for name in trainable}, reverse=True):
            inside = {name: parameter for name, parameter in trainable.items() if depth[name] == layer}
            decayed = [parameter for name, parameter in inside.items() if name not in spared]
            rest = [parameter for name, parameter in inside.items() if name in spared]
            lr = self.lr * self.layer_decay ** (top - layer)
            groups += [
                {"params": parameters, "weight_decay": decay, "lr": lr}
                for parameters, decay in ((decayed, self.weight_decay), (rest, 0.0))
                if parameters
            ]
        return groups


def steps(batches: int, limit: int | float | None, accumulate: int) -> int:
    """Optimiser steps of one epoch: Lightning takes ``limit`` of the batches and steps on the last one in any case."""
    if isinstance(limit, int):
        batches = min(batches, limit)
    elif limit is not None:
        batches = int(batches * limit)
    return math.ceil(batches / accumulate)


def total_steps(steps_per_epoch: int, max_epochs: int | None, max_steps: int) -> int:
    """Optimiser steps the schedule spans: that of ``max_epochs``; ``max_steps`` stops a run early, resumable, and
    spans the schedule only when epochs are unbounded (-1).

    From the size of the data and not from Lightning's estimate, whose question makes a resumed loader lose its place.

    Raises:
        ValueError: neither is bounded.
    """
    if max_epochs is not None and max_epochs >= 0:
        return steps_per_epoch * max_epochs
    if max_steps >= 0:
        return max_steps
    raise ValueError("the learning-rate schedule needs an end: set trainer.max_epochs (or trainer.max_steps)")
