"""What the benchmarks of this folder share: a training step, a ratio of times with its interval, a line of results/."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vit.analysis.cost import Work, alternately, times_as_fast
from vit.environment import environment

SEED, WARM_UP = 0, 3
TINY = {"variant": "tiny", "img_size": 32, "patch_size": 4, "num_classes": 10, "batch_size": 64}


def step(net: nn.Module, loss: Callable[[], Tensor], lr: float = 1e-4, bf16: bool = False) -> Work:
    """Forward, loss, backward and AdamW, as training does them."""
    optimizer = torch.optim.AdamW(net.train().parameters(), lr, fused=True)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def ratio(mine: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Median of mine / others seconds, round by round (below 1 is faster), with its bootstrap interval."""
    value, low, high = (round(bound, 4) for bound in times_as_fast(others, mine))
    return {"ratio": value, "interval95": [low, high]}


def compare(name: str, steps: Callable[[bool], Sequence[Work]], pairs: int) -> None:
    """Time the first of two steps against the second, in fp32 and in bf16; a line in results/ for each."""
    for precision in ("fp32", "bf16"):
        times = alternately(steps(precision == "bf16"), pairs, WARM_UP)
        found = ratio(times[:, 0], times[:, 1]) | {"seconds": np.median(times, axis=0).round(5).tolist()}
        print(f"{name}, {precision}: {found['ratio']} {found['interval95']}, {pairs} pairs, {found['seconds']} s")
        command = {"command": f"python tests/bench/{name}.py {pairs}", "seed": SEED}
        add(name, command | TINY | {"precision": precision, "pairs": pairs} | found)


def add(name: str, line: dict[str, Any]) -> None:
    """A line of JSON in results/, with where it was measured."""
    path = Path(__file__).parents[2] / "results" / f"{name}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(line | environment()) + "\n")
