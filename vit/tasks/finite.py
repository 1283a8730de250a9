"""What is done when a loss or a gradient is no finite number: the weights never see it."""

from collections.abc import Callable
from typing import Literal, final, get_args

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from vit.tasks.faults import Fault

Policy = Literal["stop", "skip"]
LIMIT = 10
"""Steps skipped in a row after which the run stops all the same."""


@final
class Finite:
    """Looks at the losses and the gradient norm of each optimiser step, before the weights move.

    Costs one look at the device per step. Buffers of a skipped step's forward pass (running statistics) are put back.

    Args:
        policy: ``stop`` the run, or ``skip`` the step and go on.

    Raises:
        ValueError: another policy.
    """

    def __init__(self, policy: Policy = "stop") -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"nonfinite must be one of {', '.join(get_args(Policy))}, got {policy!r}")
        self.policy: Policy = policy
        self.skipped, self._in_a_row = 0, 0
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def begin(self, net: nn.Module) -> None:
        """Before the forward pass of a micro-batch."""
        if self.policy == "skip" and not self._seen:
            self._buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]

    def see(self, samples: Tensor, loss: Tensor) -> None:
        """A micro-batch: positions of its samples in their source (b,), and its loss."""
        self._seen.append((samples, loss.detach()))

    @torch.no_grad()
    def admits(
        self,
        norm: Tensor | None,
        step: int,
        everywhere: Callable[[bool], bool],
        report: Callable[[Fault], str],
    ) -> bool:
        """Whether the step may be taken; says what was wrong otherwise.

        Args:
            norm: of the gradient; None where inf is in order, because a scaler looks for it.
            step: named in the report.
            everywhere: whether all processes of the run say true.
            report: words for what was wrong; called by all processes.

        Raises:
            FloatingPointError: by the policy, or after `LIMIT` skips in a row.
        """
        seen, self._seen = self._seen, []
        values = [loss for _, loss in seen] + ([] if norm is None else [norm])
        if everywhere(bool(torch.stack([value.isfinite() for value in values]).all())):
            self._in_a_row = 0
            return True
        said = report(_fault(seen, step))
        if self.policy == "stop":
            raise FloatingPointError(f"{said}; --model.nonfinite skip leaves such steps out")
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row == LIMIT:
            raise FloatingPointError(f"{said}; {LIMIT} steps in a row were not finite")
        rank_zero_only(print)(f"{said}; skipped, {self.skipped} so far")
        for buffer, before in self._buffers:
            buffer.copy_(before)
        return False


def _fault(seen: list[tuple[Tensor, Tensor]], step: int) -> Fault:
    bad = [samples for samples, loss in seen if not loss.isfinite()]
    samples = torch.cat(bad or [samples for samples, _ in seen]).tolist()
    return Fault(step, "loss" if bad else "gradient", samples)
