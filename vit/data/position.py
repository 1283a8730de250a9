"""Where a trainer stands, as `order.Plan` counts it."""

import lightning as L

from vit.data.order import Position


def peer(trainer: L.Trainer | None) -> Position:
    """Which process this is; evaluation always starts at the beginning."""
    return Position() if trainer is None else Position(rank=trainer.global_rank, world=trainer.world_size)


def position(trainer: L.Trainer | None) -> Position:
    """Where training goes on.  An overfitting run stays in one epoch, so that it sees the same few batches again."""
    if trainer is None:
        return Position()
    done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    overfitting = trainer.overfit_batches > 0  # pyright: ignore[reportAttributeAccessIssue]
    return peer(trainer)._replace(epoch=0 if overfitting else trainer.current_epoch, batch=done)
