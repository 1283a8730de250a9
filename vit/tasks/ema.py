"""Averaged weights: kept in float32, used for validation and testing, stored beside the raw ones."""

from typing import Any, final

import lightning as L
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import override

from vit.checks import require_below_one


@final
class EMA(L.Callback):
    """Average <- d average + (1 - d) weights after each optimiser step, d = min(decay, (1 + t) / (10 + t)).

    Polyak and Juditsky 1992; the warm-up of the decay is Tensorflow's. Floating buffers (running statistics) are
    averaged, others copied. Lightning's own averaging callback counts micro-batches as steps.

    Args:
        decay: final d; the average reaches back about 1 / (1 - d) steps.

    Raises:
        ValueError: ``decay`` outside [0, 1).
    """

    def __init__(self, decay: float = 0.9998) -> None:
        self.decay = require_below_one(decay, "EMA decay")
        self.weights: dict[str, Tensor] = {}
        self.updates = 0
        self._raw: dict[str, Tensor] = {}
        self._step = 0

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = trainer.global_step
        if not self.weights:
            self.weights = {name: _widened(tensor) for name, tensor in pl_module.state_dict().items()}

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # a micro-batch: gradients were only accumulated
        self._step = trainer.global_step
        self.updates += 1
        self._average(pl_module.state_dict())

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_in(pl_module)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_in(pl_module)

    @override
    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_in(pl_module)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_out(pl_module)

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_out(pl_module)

    @override
    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_out(pl_module)

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._swap_out(pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "updates": self.updates}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.weights, self.updates = dict(state_dict["weights"]), state_dict["updates"]

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint taken while the average is swapped in still holds the raw weights as the model."""
        checkpoint["state_dict"].update(self._raw)

    @torch.no_grad()
    def _average(self, state: dict[str, Tensor]) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.weights = {name: self.weights[name].to(tensor.device) for name, tensor in state.items()}
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        averages = [self.weights[name] for name in floating]
        current = [state[name].to(average.dtype) for name, average in zip(floating, averages, strict=True)]
        get_ema_multi_avg_fn(decay)(averages, current, self.updates)
        for name in state.keys() - set(floating):
            self.weights[name].copy_(state[name])

    def _swap_in(self, pl_module: L.LightningModule) -> None:
        if self.weights and not self._raw:
            self._raw = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
            _copy(self.weights, pl_module.state_dict())

    def _swap_out(self, pl_module: L.LightningModule) -> None:
        if self._raw:
            _copy(self._raw, pl_module.state_dict())
            self._raw = {}


def _widened(tensor: Tensor) -> Tensor:
    dtype = torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype, copy=True)


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
