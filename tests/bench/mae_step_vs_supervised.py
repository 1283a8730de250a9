"""A step of MAE against a supervised step of the same encoder: `python tests/bench/mae_step_vs_supervised.py [pairs]`.

75 % of 64 patches hidden, default decoder. In alternation; prints the ratio of times (MAE / supervised) with a 95 %
interval, and adds a line to results/.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from vit.environment import environment
from vit.layers import Block, SelfAttention
from vit.models import MAE, VARIANTS, Backbone, ViT

RESULTS = Path(__file__).parents[2] / "results" / "mae_step_vs_supervised.jsonl"
SEED, WARM_UP, SHAPE = 0, 3, {"variant": "tiny", "img_size": 32, "patch_size": 4, "num_classes": 10, "batch_size": 64}


def seconds(net: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: tuple, bf16: bool) -> float:
    images, labels = batch
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if isinstance(net, MAE):
            loss = net(images, torch.rand(len(images), net.num_patches(images))).loss.mean()
        else:
            loss = cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main(pairs: int) -> None:
    torch.manual_seed(SEED)
    variant, img_size, patch_size, num_classes, batch_size = SHAPE.values()
    embed_dim, depth, num_heads, _ = VARIANTS[variant]
    block = partial(Block, mixer=partial(SelfAttention, num_heads=num_heads))
    backbone = partial(Backbone, patch_size=patch_size, embed_dim=embed_dim, depth=depth, block=block)
    nets = [MAE(img_size, 3, backbone).train(), ViT(img_size, 3, num_classes, backbone).train()]
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
        print(
            f"{precision}: MAE/supervised {ratio:.3f} [{low:.3f}, {high:.3f}], {pairs} pairs, {1e3 * ms[0]:.0f} ms MAE"
        )
        found = {"precision": precision, "pairs": pairs, "ratio": ratio, "interval95": [low, high], "seconds": ms}
        command = f"python tests/bench/mae_step_vs_supervised.py {pairs}"
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"command": command, "seed": SEED, **SHAPE, **found, **environment()}) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
