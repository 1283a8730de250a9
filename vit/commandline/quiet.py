"""Lightning's chatter, silenced by message: what is left on the terminal is ours, or is news."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch", "lightning.fabric")
MESSAGES = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '\w+_dataloader' does not have many workers",  # 0 workers is right for data kept in memory
    r"The number of training batches .* is smaller than the logging interval",
    r"Trying to infer the `batch_size` from an ambiguous collection",
    r"Checkpoint directory .* exists and is not empty",
    r"Precision bf16-mixed is not supported by the model summary",
    r"Grad strides do not match bucket view strides",  # of a 1-channel patch embedding, several processes
    r"You're resuming from a checkpoint that ended before the epoch ended",  # our loader knows its place
)


@contextmanager
def quiet() -> Iterator[None]:
    """Within: no informational lines from Lightning, none of the warnings in `MESSAGES`, one line for any other."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels, layout = [logger.level for logger in loggers], warnings.formatwarning
    with warnings.catch_warnings():
        for message in MESSAGES:
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        warnings.formatwarning = _line
        try:
            yield
        finally:
            warnings.formatwarning = layout
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    return f"vit: warning: {' '.join(str(message).split())}\n"
