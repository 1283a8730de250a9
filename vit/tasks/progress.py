"""What a person watching sees: one live bar for the whole run on a terminal, one line per epoch elsewhere."""

import time
from typing import Any, final

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from typing_extensions import override

REFRESH = 0.25
"""Seconds between looks at the metrics: each look waits for the device."""


@final
class Progress(ProgressBar):
    """Epoch, share done, elapsed and remaining time of the whole run, and the newest metrics."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Bar | None = None
        self._console = Console()
        self._looked = self._epoch_start = time.monotonic()

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        self._start("train", batches * epochs if epochs is not None and epochs > 0 else None)

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_start = time.monotonic()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.current_epoch * trainer.num_training_batches + batch_idx + 1
        self._advance(trainer, done, _epoch(trainer))

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._enabled and not self._console.is_terminal:
            seconds = time.monotonic() - self._epoch_start
            metrics = _text({**trainer.callback_metrics}, skip=("train/loss_step", "lr"))
            self._console.print(f"{_epoch(trainer)}  {metrics}  {seconds:.1f} s", highlight=False, soft_wrap=True)

    @override
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start("test", int(sum(trainer.num_test_batches)))

    @override
    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(trainer, batch_idx + 1)

    @override
    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start("predict", int(sum(trainer.num_predict_batches)))

    on_predict_batch_end = on_test_batch_end

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], metrics=_text(trainer.progress_bar_metrics))

    @override
    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _start(self, description: str, total: float | None) -> None:
        self._stop()
        if self._enabled and self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=self._console,
            )
            self._bar.add_task(description, total=total, metrics="")
            self._bar.start()

    def _advance(self, trainer: L.Trainer, done: float, description: str | None = None) -> None:
        if self._bar is None:
            return
        task = self._bar.task_ids[0]
        self._bar.update(task, description=description, completed=done)
        if time.monotonic() - self._looked > REFRESH:
            self._looked = time.monotonic()
            self._bar.update(task, metrics=_text(trainer.progress_bar_metrics))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _epoch(trainer: L.Trainer) -> str:
    bounded = trainer.max_epochs is not None and trainer.max_epochs > 0
    return f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if bounded else "")


def _text(metrics: dict[str, Any], skip: tuple[str, ...] = ()) -> str:
    return "  ".join(f"{name} {float(value):.4g}" for name, value in metrics.items() if name not in skip)
