"""Where an interrupted run can be continued from: its last optimiser step, or the start of a validation."""

from typing import Any, NamedTuple

import lightning as L
from torch import Tensor


class Moment(NamedTuple):
    """What changes between two optimiser steps: the counters of the loops, and the net's running statistics."""

    loops: dict[str, Any]
    buffers: dict[str, Tensor]

    @classmethod
    def of(cls, trainer: L.Trainer, module: L.LightningModule) -> "Moment":
        stored = module.state_dict()
        buffers = {name: tensor.clone() for name, tensor in module.named_buffers() if name in stored}
        return cls(trainer.fit_loop.state_dict(), buffers)

    def put_back(self, checkpoint: dict[str, Any]) -> None:
        """Make it the moment of ``checkpoint``, whose weights and optimiser have not moved since."""
        checkpoint["loops"]["fit_loop"] = self.loops
        checkpoint["state_dict"].update(self.buffers)


def put_before_validation(checkpoint: dict[str, Any]) -> None:
    """Let the run continue with the validation that was cut short, all of it; Lightning takes the batches left."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    before = progress["total"]["completed"] - progress["current"]["completed"]
    for name, count in (("total", before), ("current", 0)):
        progress[name].update(ready=count + 1, started=count + 1, processed=count, completed=count)
    progress["is_last_batch"] = False
