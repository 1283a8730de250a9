"""One timing of a mechanisms study: an arm's net beside the host's, step by step in turn, and the memory it takes."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vit.analysis import cost
from vit.commandline.quiet import quiet
from vit.environment import environment
from vit.experiments.comparison import Comparison
from vit.experiments.grid import Arm, Cell
from vit.experiments.recipe import net_of, parse, shape_of
from vit.experiments.runner import log_file
from vit.models.choice import answer

WARM_UP, ROUNDS = 5, 20


@dataclass(frozen=True)
class Timer:
    """Times cells of ``study``.

    Attributes:
        study: the grid, and what its arms are.
        folder: the study's.
        options: of the user, for every run.
    """

    study: Comparison
    folder: Path
    options: tuple[str, ...]

    def __call__(self, cell: Cell) -> dict[str, Any]:
        """Images per second of inference and of a training step, each also as a factor on the host's, and memory."""
        began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
        entry, device = self.study.entry(cell.arm), "cuda" if torch.cuda.is_available() else "cpu"
        arm, host = self.study.grid.arm(cell.arm), self.study.host_at(entry.patch)
        batch, precision = self.study.timed_batch, cell.precision
        net, shape = self._net(arm)
        net = net.to(device)
        step = cost.training(net, shape, batch, device, precision)
        memory = self._memory(net, shape, device, precision)  # before the host's weights lie beside it
        beside, _ = (net, shape) if arm is host else self._net(host)
        beside = beside.to(device)
        found: dict[str, Any] = {}
        for name, make in (("train", cost.training), ("infer", cost.inference)):
            mine = step if make is cost.training else make(net, shape, batch, device, precision)
            works = [mine, make(beside, shape, batch, device, precision)]
            times = cost.alternately(works, ROUNDS, WARM_UP, device)
            found[f"{name}_images_per_s"] = round(batch / float(torch.tensor(times[:, 0]).median()), 2)
            found[f"{name}_times_as_fast"] = None if arm is host else cost.times_as_fast(times[:, 0], times[:, 1])
        return {
            "key": cell.key,
            **cell._asdict(),
            "overlay": entry.overlay,
            "tokens": entry.tokens,
            "widened": entry.widened,
            "status": "done",
            "error": None,
            **found,
            **memory,
            "timed_batch": batch,
            "rounds": ROUNDS,
            "device": device,
            "parameters": arm.parameters,
            "macs": arm.macs,
            **environment(),
            "started": started,
            "seconds": round(time.monotonic() - began, 1),
        }

    def log(self, cell: Cell) -> Path:
        """Where a cell's terminal output goes; kept where it failed."""
        return log_file(self.folder, cell)

    def _net(self, arm: Arm) -> tuple[torch.nn.Module, tuple[int, ...]]:
        with quiet():
            cli = parse(arm.configs, self.study.grid.fit, self.study.grid.configs, self.options)
            return net_of(cli, arm.options), shape_of(cli.parser.instantiate(cli.config).data)

    def _memory(self, net: torch.nn.Module, shape: tuple[int, ...], device: str, precision: str) -> dict[str, Any]:
        """Of a training step: its peak on CUDA; on a CPU, where no such number is to be had, what autograd keeps."""
        step = cost.training(net, shape, self.study.timed_batch, device, precision)
        if device == "cuda":
            step()  # the first allocates what stays: gradients' and AdamW's
            return {"memory_bytes": cost.peak_bytes(step), "memory": "peak of a training step"}
        images = torch.randn(self.study.timed_batch, *shape)
        return {
            "memory_bytes": cost.saved_bytes(lambda: answer(net.train(), images), net),
            "memory": "tensors saved for the backward pass",
        }
