"""Our train step against timm's at the same shape, in alternation: `python tests/bench/train_step_vs_timm.py [pairs]`.

Prints the ratio of times (ours / timm's, below 1 is faster) with a 95 % interval, and adds a line to results/.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import timm
import torch
from torch.nn.functional import cross_entropy

from vit.environment import environment
from vit.models import plain_vit

RESULTS = Path(__file__).parents[2] / "results" / "train_step_vs_timm.jsonl"
SEED, WARM_UP, SHAPE = 0, 3, {"variant": "tiny", "img_size": 32, "patch_size": 4, "num_classes": 10, "batch_size": 64}


def seconds(net: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: tuple, bf16: bool) -> float:
    images, labels = batch
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main(pairs: int) -> None:
    torch.manual_seed(SEED)
    variant, img_size, patch_size, num_classes, batch_size = SHAPE.values()
    theirs = timm.create_model(
        f"vit_{variant}_patch16_224", img_size=img_size, patch_size=patch_size, num_classes=num_classes
    )
    nets = [plain_vit(variant, img_size, 3, num_classes, patch_size).train(), theirs.train()]
    arms = [(net, torch.optim.AdamW(net.parameters(), 1e-4, fused=True)) for net in nets]
    batch = torch.randn(batch_size, 3, img_size, img_size), torch.randint(num_classes, (batch_size,))
    for bf16 in (False, True):
        times = np.empty((WARM_UP + pairs, 2))
        for pair in range(len(times)):  # who goes first alternates, so that drift in the machine's load cancels
            for arm in (0, 1) if pair % 2 else (1, 0):
                times[pair, arm] = seconds(*arms[arm], batch, bf16)
        logs = np.log(times[WARM_UP:, 0] / times[WARM_UP:, 1])
        draws = np.median(np.random.default_rng(SEED).choice(logs, (10_000, pairs)), axis=1)
        ratio, low, high = np.exp([np.median(logs), *np.quantile(draws, (0.025, 0.975))]).round(4).tolist()
        precision, ms = "bf16" if bf16 else "fp32", np.median(times[WARM_UP:], axis=0).round(5).tolist()
        print(f"{precision}: ours/timm {ratio:.3f} [{low:.3f}, {high:.3f}], {pairs} pairs, {1e3 * ms[0]:.0f} ms ours")
        found = {"precision": precision, "pairs": pairs, "ratio": ratio, "interval95": [low, high], "seconds": ms}
        command = f"python tests/bench/train_step_vs_timm.py {pairs}"
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"command": command, "seed": SEED, **SHAPE, **found, **environment()}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
