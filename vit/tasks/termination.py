"""SIGTERM to one process of several ends them all, after the same batch."""

import signal
import threading
from typing import Any, final

import lightning as L
from typing_extensions import override


@final
class Termination(L.Callback):
    """A run of several processes stops as one does: SIGTERM to any of them is noted, and agreed on after each batch.

    In place of Lightning's handler, which communicates from within the signal: its message meets another one of a
    process that is elsewhere. Of one process Lightning's own is left.
    """

    def __init__(self) -> None:
        self._asked = False

    @override
    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._agree(trainer)

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._agree(trainer)

    def _listen(self, trainer: L.Trainer) -> None:
        """Lightning puts the handler of before back in the end, whatever it is now."""
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum: int, frame: Any) -> None:
        self._asked = True

    def _agree(self, trainer: L.Trainer) -> None:
        """Lightning raises SIGTERMException where it looks next, which is at the same place in all processes."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer._signal_connector.received_sigterm = True
