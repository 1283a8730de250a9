"""Resume checkpoints: written atomically, sealed by a hash, read without unpickling code."""

from pathlib import Path
from typing import Any, Literal, cast, final

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

from vit.data.order import Loader
from vit.files import commit, intact, keep, local, seal, write_part
from vit.tasks.moment import Moment, put_before_validation

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


@final
class AtomicCheckpointIO(CheckpointIO):
    """A checkpoint file is the old one or the new one at any moment; loading runs no code and fetches nothing.

    The ``last.ckpt`` that a new one replaces stays beside it as ``previous.ckpt``.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        write_part(path, lambda part: _write(checkpoint, part))
        if path.name == LAST:
            keep(path, PREVIOUS)
        commit(path)

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return load_checkpoint(path, map_location)

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint's content: tensors and plain data, never anything else.

    Raises:
        ValueError: a URL, no such file, other bytes than were written, or not a checkpoint that loads without running
            code.
    """
    if not local(path).is_file():
        raise ValueError(f"no checkpoint at {path}")
    if not intact(Path(path)):
        raise ValueError(f"{path} is damaged: its bytes do not have the hash they were written with")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises its own, zip's and pickle's errors for damaged files
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path} is damaged or not a checkpoint of plain tensors: {reason[0]}") from error


def _write(checkpoint: dict[str, Any], part: Path) -> None:
    with part.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # torch hides what the disk said behind its own error
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    seal(part)


def is_smoke_run(trainer: L.Trainer) -> bool:
    """Whether the run only tries the code out (``fast_dev_run``): it leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def validated(trainer: L.Trainer) -> int | None:
    """How many pictures the last validation looked at; None where it was a part of them."""
    loader = cast(Loader, trainer.val_dataloaders)
    return len(loader.plan.index) if sum(trainer.num_val_batches) == len(loader) else None


@final
class Checkpoints(Checkpoint):
    """``last.ckpt``, the newest step, and ``best.ckpt``, the best validation score, in ``checkpoints/`` of the run.

    Both hold raw and averaged weights and can be resumed. ``last`` is written at the end of every epoch, whatever the
    metric does; only on optimiser steps, because a part-accumulated gradient is in no checkpoint. A run that breaks off
    writes it too: as of its last step, wherever it stands. The one before is kept until training ends, in case ``last``
    is damaged.

    Args:
        monitor: logged metric that ranks; the first of equal scores is kept.
        mode: whether larger or smaller is better.
        every_n_steps: also write ``last`` each so many optimiser steps, except right before a validation; None for
            epoch ends only.

    Raises:
        ValueError: ``every_n_steps`` below 1.
    """

    def __init__(
        self, monitor: str = "val/acc", mode: Literal["max", "min"] = "max", every_n_steps: int | None = None
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.monitor, self.mode, self.every_n_steps = monitor, mode, every_n_steps
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.best_of: int | None = None  # pictures that the score is of, where they were all
        self._folder = Path("checkpoints")
        self._last_step = 0
        self._moment: Moment | None = None
        self._moving = self._ending = self._breaking_off = False

    @property
    def best_model_path(self) -> str:
        """Lightning's name, so that ``trainer.test(ckpt_path="best")`` finds it; empty before the first validation."""
        return "" if self.best_score is None else str(self._folder / BEST)

    def would_lose(self, trainer: L.Trainer) -> bool:
        """Whether a run that broke off right now could not save its newest step, but can a little later."""
        return self._moving or (self._ending and not trainer.validating)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._folder = Path(trainer.default_root_dir) / "checkpoints"
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_step, self._moment = trainer.global_step, None
        self._moving = self._ending = False

    @override
    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._moving = True

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._last_step:
            return
        self._last_step, self._ending = trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        # none after the last batch: Lightning would go on with the next epoch, without validation
        self._moment = None if self._ending else Moment.of(trainer, pl_module)
        self._moving = False  # not sooner: the new weights and the moment before would make no whole state
        if self._ending or self.every_n_steps is None:
            return
        if trainer.global_step % self.every_n_steps == 0:
            self._save_last(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _ = trainer.callback_metrics  # reduced by all processes now: the first, which shows them, would wait in saving
        self._save_last(trainer)
        self._ending = False

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or is_smoke_run(trainer):
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"Checkpoints monitors {self.monitor!r}, which is not logged; logged are {known}")
        score = float(trainer.callback_metrics[self.monitor])
        if self._improves(score):
            before = self.state_dict()
            try:
                self.best_score, self.best_step, self.best_of = score, trainer.global_step, validated(trainer)
                _save(trainer, self._folder / BEST)
            except BaseException:  # else a resumed run would find its best no better, and never write it
                self.load_state_dict(before)
                raise

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Not where the disk is at fault, the weights are half moved, or other processes would be waited for.

        SIGTERM reaches all processes at once, see `Termination`.
        """
        alone = trainer.world_size > 1 and not isinstance(exception, SIGTERMException)
        moved = self._moving and not isinstance(exception, FloatingPointError)
        known = trainer.state.fn == "fit" and (self._moment is not None or trainer.validating)
        if alone or isinstance(exception, OSError) or moved or not known:
            return
        if not trainer.strategy.reduce_boolean_decision(not _spoiled(pl_module)):
            return
        self._breaking_off = True
        self._save_last(trainer)
        self._breaking_off = False

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._breaking_off and self._moment is not None:
            self._moment.put_back(checkpoint)
        elif self._breaking_off:
            put_before_validation(checkpoint)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            (self._folder / PREVIOUS).unlink(missing_ok=True)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step, "best_of": self.best_of}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]
        self.best_of = state_dict.get("best_of")

    def _improves(self, score: float) -> bool:
        if score != score:  # not a number: never the best
            return False
        if self.best_score is None:
            return True
        return score > self.best_score if self.mode == "max" else score < self.best_score

    def _save_last(self, trainer: L.Trainer) -> None:
        if not is_smoke_run(trainer):
            _save(trainer, self._folder / LAST)


def _save(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint, unless its weights are spoiled: then the one before it is worth more (FloatingPointError)."""
    if spoiled := _spoiled(trainer.lightning_module):
        raise FloatingPointError(f"{spoiled} is not finite at step {trainer.global_step}: {path} stays as it was")
    trainer.save_checkpoint(path, weights_only=False)


def _spoiled(module: L.LightningModule) -> str:
    """The first weight or running statistic that is not finite; empty where all are."""
    floating = ((name, tensor) for name, tensor in module.state_dict().items() if tensor.is_floating_point())
    return next((name for name, tensor in floating if not tensor.isfinite().all()), "")
