"""Drawing `scenes` against training on them: `python tests/bench/scenes_vs_step.py [rounds]`, one thread.

Each round draws one batch of every task and takes one training step of study/cpu's ViT and of its CNN, the fastest arm,
in changing order. Prints pictures/s and the time of drawing over that of a step, and adds a line to results/ for each
task and model.
"""

import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.data.scenes import SIDE, VERSION, Scenes, Task
from vit.environment import environment

RESULTS = Path(__file__).parents[2] / "results" / "scenes_vs_step.jsonl"
SEED, WARM_UP, BATCH, MODELS = 0, 5, 64, ("model/vit_pico", "model/resnet_pico")  # the batch size of study/cpu


class Step:
    """Training steps on one batch that stays."""

    def __init__(self, model: str) -> None:
        with quiet():
            cli = VitCLI("fit", [f"--config={resolve(name)}" for name in ("base", model, "data/scenes_shape")])
            self.net = cli.parser.instantiate(cli.config).model.net.train()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3, fused=True)
        self.images, self.labels = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(4, (BATCH,))

    def __call__(self, turn: int) -> None:
        cross_entropy(self.net(self.images), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Draw:
    """Another batch of pictures at every turn."""

    def __init__(self, task: Task, turns: int) -> None:
        self.scenes = Scenes(task, SEED, BATCH * turns)
        _ = self.scenes.labels

    def __call__(self, turn: int) -> None:
        self.scenes.pictures(np.arange(BATCH * turn, BATCH * (turn + 1)))


def measured(rounds: int) -> np.ndarray:
    """Seconds (rounds, tasks and models)."""
    turns = WARM_UP + rounds
    work = [*(Draw(task, turns) for task in get_args(Task)), *map(Step, MODELS)]
    times = np.empty((turns, len(work)))
    for turn in range(turns):
        for place in np.roll(np.arange(len(work)), turn):  # who goes first changes, so that the machine's load cancels
            start = time.perf_counter()
            work[place](turn)
            times[turn, place] = time.perf_counter() - start
    return times[WARM_UP:]


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    times, rng = measured(rounds), np.random.default_rng(SEED)
    tasks, speeds = get_args(Task), np.rint(BATCH / np.median(times, axis=0)).astype(int).tolist()
    common = {"command": f"python tests/bench/scenes_vs_step.py {rounds}", "seed": SEED, "rounds": rounds}
    common |= {"batch_size": BATCH, "img_size": SIDE, "generator": VERSION}
    for (i, task), (j, model) in product(enumerate(tasks), enumerate(MODELS, len(tasks))):
        logs = np.log(times[:, i] / times[:, j])
        draws = np.median(rng.choice(logs, (10_000, rounds)), axis=1)
        ratio, low, high = np.exp([np.median(logs), *np.quantile(draws, (0.025, 0.975))]).round(4).tolist()
        print(f"{task}, {model}: {speeds[i]:,}/s drawn, {speeds[j]:,}/s trained; {ratio:.3f} [{low:.3f}, {high:.3f}]")
        found = {"task": task, "model": model, "ratio": ratio, "interval95": [low, high]}
        found |= {"drawn_per_s": speeds[i], "trained_per_s": speeds[j]}
        with RESULTS.open("a") as file:
            file.write(json.dumps(common | found | environment()) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
