"""Drawing `scenes` against training on them: `python tests/bench/scenes_vs_step.py [rounds]`, one thread.

Each round draws one batch of every task and takes one training step of study/cpu's ViT and of its CNN, the fastest arm,
in changing order. Prints pictures/s and the time of drawing over that of a step, and adds a line to results/ for each
task and model.
"""

import sys
from itertools import count, product
from typing import get_args

import numpy as np
import torch
from paired import SEED, add, ratio, step
from torch import Tensor
from torch.nn.functional import cross_entropy

from vit.analysis.cost import Work, alternately
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.data.scenes import SIDE, VERSION, Scenes, Task

WARM_UP, BATCH, MODELS = 5, 64, ("model/vit_pico", "model/resnet_pico")  # the batch size of study/cpu


def training(model: str) -> Work:
    """A training step on one batch that stays."""
    with quiet():
        cli = VitCLI("fit", [f"--config={resolve(name)}" for name in ("base", model, "data/scenes_shape")])
        net = cli.parser.instantiate(cli.config).model.net
    images, labels = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(4, (BATCH,))

    def loss() -> Tensor:
        return cross_entropy(net(images), labels)

    return step(net, loss, lr=1e-3)


def drawing(task: Task, turns: int) -> Work:
    """Another batch of pictures at every turn."""
    scenes, turn = Scenes(task, SEED, BATCH * turns), count()
    _ = scenes.labels

    def run() -> None:
        start = BATCH * next(turn)
        scenes.pictures(np.arange(start, start + BATCH))

    return run


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tasks = get_args(Task)
    works = [*(drawing(task, WARM_UP + rounds) for task in tasks), *map(training, MODELS)]
    times = alternately(works, rounds, WARM_UP)
    speeds = np.rint(BATCH / np.median(times, axis=0)).astype(int).tolist()
    common = {"command": f"python tests/bench/scenes_vs_step.py {rounds}", "seed": SEED, "rounds": rounds}
    common |= {"batch_size": BATCH, "img_size": SIDE, "generator": VERSION}
    for (i, task), (j, model) in product(enumerate(tasks), enumerate(MODELS, len(tasks))):
        found = ratio(times[:, i], times[:, j]) | {"drawn_per_s": speeds[i], "trained_per_s": speeds[j]}
        print(f"{task}, {model}: {found}")
        add("scenes_vs_step", common | {"task": task, "model": model} | found)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
