"""What is done when a loss or a gradient is no finite number: the weights never see it."""

from collections.abc import Callable
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

Policy = Literal["stop", "skip"]
LIMIT = 10
"""Steps skipped in a row after which the run stops all the same."""


@final
class Finite:
    """Looks at the losses and the gradient norm of each optimiser step, before the weights move.

    Costs one look at the device per step. Buffers of a skipped step's forward pass (running statistics) are put back.

    Args:
        policy: ``stop`` the run, or ``skip`` the step and go on.
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
    def admits(self, norm: Tensor | None, step: int, everywhere: Callable[[bool], bool]) -> bool:
        """Whether the step may be taken; says what was wrong otherwise.

        Args:
            norm: of the gradient; None where inf is in order, because a scaler looks for it.
            step: named in the report.
            everywhere: whether all processes of the run say true.

        Raises:
            FloatingPointError: by the policy, or after `LIMIT` skips in a row.
        """
        seen, self._seen = self._seen, []
        values = [loss for _, loss in seen] + ([] if norm is None else [norm])
        if everywhere(bool(torch.stack([value.isfinite() for value in values]).all())):
            self._in_a_row = 0
            return True
        report = _report(seen, step)
        if self.policy == "stop":
            raise FloatingPointError(f"{report}; --model.nonfinite skip leaves such steps out")
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row == LIMIT:
            raise FloatingPointError(f"{report}; {LIMIT} steps in a row were not finite")
        print(f"{report}; skipped, {self.skipped} so far")
        for buffer, before in self._buffers:
            buffer.copy_(before)
        return False


def _report(seen: list[tuple[Tensor, Tensor]], step: int) -> str:
    """Names the samples of the micro-batches whose loss is at fault, or of all where only the gradient is."""
    bad = [samples for samples, loss in seen if not loss.isfinite()]
    samples = torch.cat(bad or [samples for samples, _ in seen]).tolist()
    what = "loss" if bad else "gradient"
    return f"the {what} of step {step} is not finite; training samples {', '.join(map(str, samples))}"
