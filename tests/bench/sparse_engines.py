"""Sparse patterns against full attention, one thread: `python tests/bench/sparse_engines.py [side] [rounds]`.

Forward and backward of the attention core (batch 1, 3 heads of width 64, side x side patches), full softmax and each
pattern by block-gather and by dense mask, in changing order. Prints the ratio of the minima of times, full over sparse
(above 1 is faster than full), and as a line of JSON what a record would hold.
"""

import json
import sys
from functools import partial

import torch

from vit.analysis.cost import alternately
from vit.attention import (
    BigBird,
    BlockGather,
    Dense,
    GlobalTokens,
    GridGraph,
    Local,
    Mechanism,
    Neighborhood,
    PerHead,
    ShiftedWindow,
    Softmax,
    Sparse,
    Strided,
    Window,
)
from vit.environment import environment
from vit.tokens import Grid, Layout

SEED, BATCH, HEADS, WIDTH, WARM_UP = 0, 1, 3, 64, 1
PATTERNS = {
    "bigbird": partial(BigBird, block_size=64),
    "global_tokens": GlobalTokens,
    "grid_graph": GridGraph,
    "local": partial(Local, width=32),
    "neighborhood": partial(Neighborhood, kernel_size=7),
    "per_head": partial(PerHead, patterns=[Local, Strided, Window]),
    "shifted_window": partial(ShiftedWindow, size=8),
    "strided": Strided,
    "window": partial(Window, size=8),
}


def core(mechanism: Mechanism, parts: tuple[torch.Tensor, ...], grid: Grid) -> None:
    mechanism(*parts, Layout(grid)).sum().backward()


def main(side: int, rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    grid = Grid(side, side)
    parts = tuple(torch.randn(BATCH, HEADS, grid.tokens, WIDTH, requires_grad=True) for _ in range(3))
    arms: dict[str, Mechanism] = {"full": Softmax(HEADS, WIDTH, grid)}
    for name, pattern in PATTERNS.items():
        arms[name] = Sparse(HEADS, WIDTH, grid, pattern, BlockGather)
    arms["neighborhood, dense mask"] = Sparse(HEADS, WIDTH, grid, PATTERNS["neighborhood"], Dense)
    works = [partial(core, mechanism, parts, grid) for mechanism in arms.values()]
    times = alternately(works, rounds, WARM_UP)
    best = dict(zip(arms, times.min(axis=0).round(5).tolist(), strict=True))
    ratios = {name: round(best["full"] / value, 2) for name, value in best.items() if name != "full"}
    for name, ratio in ratios.items():
        print(f"{name}: {1e3 * best[name]:.1f} ms, {ratio:.1f} times as fast as full attention")
    command = f"python tests/bench/sparse_engines.py {side} {rounds}"
    shape = {"batch_size": BATCH, "heads": HEADS, "head_dim": WIDTH, "tokens": grid.tokens, "rounds": rounds}
    print(json.dumps({"command": command, "seed": SEED, **shape, "seconds": best, "ratio": ratios, **environment()}))


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:], *["64", "7"][len(sys.argv) - 1 :]]))
