"""Signals that end a run wait for a state that is whole: Ctrl-C, and SIGTERM of several processes."""

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, final

import lightning as L
from typing_extensions import override

from vit.tasks.checkpoint import Checkpoints


@final
class Termination(L.Callback):
    """A run of several processes stops as one does: a signal to any of them is noted, and agreed on after each batch.

    In place of Lightning's handler, which communicates from within the signal: its message meets another one of a
    process that is elsewhere. Of one process Lightning's own is left.

    Ctrl-C of one process acts at once where the newest step can be saved, or nothing is new; within a step, and in
    several processes, it is noted and answered as SIGTERM is. A second one acts at once everywhere.

    Attributes:
        interrupted: Ctrl-C was noted, so that a SIGTERMException means it.
    """

    def __init__(self) -> None:
        self.interrupted = self._asked = False

    @override
    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen(trainer)
        handler = signal.getsignal(signal.SIGINT)
        if in_main_thread() and callable(handler):  # some parents have it ignored
            signal.signal(signal.SIGINT, partial(self._interrupt, trainer, handler))

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
        if trainer.world_size > 1 and in_main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _interrupt(self, trainer: L.Trainer, act: Callable[[int, Any], object], signum: int, frame: Any) -> None:
        several, keeper = trainer.world_size > 1, trainer.checkpoint_callback
        waits = several or (isinstance(keeper, Checkpoints) and keeper.would_lose(trainer))
        if self.interrupted or not waits:
            act(signum, frame)
            return
        self.interrupted = True
        if several:
            self._asked = True
        else:
            trainer._signal_connector.received_sigterm = True

    def _note(self, signum: int, frame: Any) -> None:
        self._asked = True

    def _agree(self, trainer: L.Trainer) -> None:
        """Lightning raises SIGTERMException where it looks next, which is at the same place in all processes."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer._signal_connector.received_sigterm = True


def in_main_thread() -> bool:
    """The only one that may set a signal's handler."""
    return threading.current_thread() is threading.main_thread()
