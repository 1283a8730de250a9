"""What is said and kept of a step that was not finite: which samples had part in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch

from vit.data.listing import shown
from vit.data.module import Images
from vit.files import extend
from vit.tasks.checkpoint import is_smoke_run

NONFINITE = "nonfinite.json"
NAMED = 5
"""Samples that a message names."""


class Fault(NamedTuple):
    """A step that was not finite.

    ``what`` is its loss, or its gradient where the losses were finite; ``samples`` are positions in the train split: of
    the micro-batches whose loss is at fault, or of all where only the gradient is.
    """

    step: int
    what: str
    samples: Sequence[int]


def report(fault: Fault, trainer: L.Trainer, data: Images) -> str:
    """One line that names some of the samples; all of them join ``nonfinite.json`` in the run's folder.

    With several processes each has its own samples, and all of them have to come here: they say the same.
    """
    found = _of_all(fault, trainer.world_size)
    what = "loss" if any(one.what == "loss" for one in found) else "gradient"
    names = data.splits.names([sample for one in found if one.what == what for sample in one.samples])
    said = f"the {what} of step {fault.step} is not finite in {len(names)} training samples: {shown(names, NAMED)}"
    if is_smoke_run(trainer):
        return said
    path = Path(trainer.default_root_dir) / NONFINITE
    if trainer.is_global_zero:
        extend(path, [{"step": fault.step, "what": what, "samples": names}])
    return f"{said} ({path} lists all)"


def _of_all(fault: Fault, processes: int) -> list[Fault]:
    if processes == 1:
        return [fault]
    found = [fault] * processes
    torch.distributed.all_gather_object(found, fault)
    return found
