"""``vit bench attention``: is self-attention really the bottleneck, are heads really free, and which core grows how?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import torch

from vit.analysis import cost
from vit.analysis.plots.blockcost import block_cost
from vit.analysis.plots.tradeoff import Line
from vit.commandline.quiet import quiet
from vit.environment import environment
from vit.experiments import axes, bench_options, frame
from vit.experiments.blockcost import BACKBONE, Bench, Core, Heads, Part
from vit.files import write_atomically

LONG = 1024  # tokens from which exponents are read: below, costs that do not grow hide them
DENSE = "--model.net.backbone.block.mixer.mechanism.engine=vit.attention.Dense"
RECORD, FIGURE = "attention.jsonl", "attention.png"


@dataclass(frozen=True)
class Settings:
    """Time, multiply-adds and memory of a block's parts, of numbers of heads, and of every mixer's core.

    Attributes:
        arms: packaged overlays of attention/ and mixer/ (default: all there are).
        tokens: numbers of tokens.
        depth: numbers of blocks.
        heads: numbers of heads, at the host's width.
        heads_at: tokens at which heads are compared.
        host: overlays of vit fit that make the model whose parts are measured.
        batch_size: images at once.
        repeats: of each measurement; the least counts.
        threads: of the CPU.
        out: folder to which a line of attention.jsonl and the figure are written (default: none).

    Raises:
        ValueError: no tokens or depths, or a number below 1.
    """

    lists: ClassVar[tuple[str, ...]] = ("arms", "tokens", "depth", "heads")

    arms: list[str] | None = None
    tokens: list[int] = field(default_factory=lambda: [64, 256, 1024, 4096])
    depth: list[int] = field(default_factory=lambda: [1, 4])
    heads: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 6, 8, 12, 16])
    heads_at: int = 1024
    host: list[str] = field(default_factory=lambda: ["model/vit_tiny", "pool/mean", "position/sincos2d"])
    batch_size: int = 8
    repeats: int = 7
    threads: int = 1
    out: str | None = None

    def __post_init__(self) -> None:
        numbers = [*self.tokens, *self.depth, *self.heads, self.heads_at, self.batch_size, self.repeats, self.threads]
        if not self.tokens or not self.depth or min(numbers) < 1:
            raise ValueError(f"expected tokens and depths, and all numbers 1 or more, got {numbers}")


@dataclass(frozen=True)
class Measured:
    """All that one call measured. ``refused``: what cannot be built, with the reason."""

    embed_dim: int
    parts: tuple[Part, ...]
    heads: tuple[Heads, ...]
    cores: tuple[Core, ...]
    refused: tuple[tuple[str, int, str], ...]


def main(args: list[str]) -> int:
    """``vit bench attention [options]``: print tables, and with ``--out DIR`` add a record and draw a figure.

    Raises:
        ValueError: one line for what cannot be.
    """
    settings = bench_options.parse("attention", Settings, args)
    with quiet(), cost.threads(settings.threads):
        found = measure(settings)
        where = environment()
    print("\n".join(lines(found)))
    if settings.out:
        folder = Path(settings.out)
        bench_options.append(folder / RECORD, "attention", args, {**asdict(settings), **_record(found), **where})
        picture = frame.png(block_cost(found.embed_dim, found.parts, found.heads, list(_drawn(found.cores))))
        write_atomically(folder / FIGURE, lambda part: part.write_bytes(picture))
        print(f"{folder / RECORD} and {folder / FIGURE}")
    return 0


def measure(settings: Settings) -> Measured:
    """Do all the measuring; names are checked first."""
    reference = "attention/softmax"
    names = axes.select("mixer", settings.arms, reference)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bench = Bench(tuple(settings.host), settings.batch_size, settings.repeats, device)
    host = bench.cli(reference)
    parts = [p for depth in settings.depth for n in settings.tokens for p in bench.split(host, n, depth)]
    heads = tuple(bench.heads(host, settings.heads_at, settings.heads))
    cores = [bench.unfused(host, n) for n in settings.tokens]
    refused: list[tuple[str, int, str]] = []
    for name in names:
        try:
            built = {name: host if name == reference else bench.cli(name)}
            if bench.is_sparse(built[name]):  # the same pattern as a mask of N x N
                built[f"{name}, dense mask"] = bench.cli(name, DENSE)
        except ValueError as error:
            refused += [(name, n, str(error)) for n in settings.tokens]
            continue
        for (variant, cli), n in product(built.items(), settings.tokens):
            try:
                cores.append(bench.core(variant, cli, n))
            except ValueError as error:
                refused.append((variant, n, str(error)))
    width = host.config[f"{BACKBONE}.embed_dim"]
    return Measured(width, tuple(parts), heads, tuple(cores), tuple(refused))


def lines(found: Measured) -> Iterator[str]:
    """The tables. Milliseconds and multiply-adds are of one image, forward and backward and forward."""
    yield f"A block's parts, {found.embed_dim} channels; attention's core costs as much as the rest at N = 6C ="
    yield f"{6 * found.embed_dim:,} tokens by multiply-adds. Share of multiply-adds and of time, ms of both passes:"
    yield f"{'tokens':>7}{'depth':>6}  " + "".join(f"{name:>26}" for name in dict.fromkeys(p.name for p in found.parts))
    for tokens, depth in dict.fromkeys((part.tokens, part.depth) for part in found.parts):
        mine = [part for part in found.parts if (part.tokens, part.depth) == (tokens, depth)]
        macs, seconds = sum(part.macs for part in mine), sum(part.seconds for part in mine)
        cells = (f"{p.macs / macs:>8.0%}{p.seconds / seconds:>7.0%}{1e3 * p.seconds:>9.2f}ms" for p in mine)
        yield f"{tokens:>7,}{depth:>6}  " + "".join(cells)
    if found.heads:
        yield f"\nHeads at one width, {found.heads[0].tokens:,} tokens: ms of softmax's core, times that of the fewest"
        for row in found.heads:
            yield f"{row.heads:>7}{1e3 * row.seconds:>9.2f}ms{row.seconds / found.heads[0].seconds:>7.2f}"
    yield "\nCores: ms of both passes and MiB kept for the backward pass, at each number of tokens; exponents of both"
    yield f"from {LONG:,} tokens on; time at the most tokens, in softmax's"
    wide = max(len(core.overlay) for core in found.cores) + 1
    tokens = sorted({core.tokens for core in found.cores})
    yield "tokens".ljust(wide) + "".join(f"{n:>11,}{'':>8}" for n in tokens) + f"{'exponents':>13}{'factor':>8}"
    softmax = {core.tokens: core.seconds for core in found.cores if core.overlay == "attention/softmax"}
    for drawn in _drawn(found.cores):
        cells = (f"{1e3 * s:>9.2f}ms{b / 2**20:>8.2f}" for s, b in zip(drawn.seconds, drawn.memory, strict=True))
        slopes = "".join(f"{value:>6.2f}" for value in (drawn.time_slope, drawn.memory_slope) if value is not None)
        yield f"{drawn.name:<{wide}}{''.join(cells)}{slopes:>13}{drawn.seconds[-1] / softmax[drawn.tokens[-1]]:>8.2f}"
    for name, tokens, reason in found.refused:
        yield f"{name} at {tokens:,} tokens: {reason}"


def _drawn(cores: Iterable[Core]) -> Iterator[Line]:
    """One of each overlay, over its numbers of tokens."""
    cores = list(cores)
    for name in dict.fromkeys(core.overlay for core in cores):
        mine = sorted((core for core in cores if core.overlay == name), key=lambda core: core.tokens)
        tokens = [core.tokens for core in mine]
        seconds, memory = [core.seconds for core in mine], [core.saved_bytes for core in mine]
        yield Line(name, tokens, seconds, memory, _slope(tokens, seconds), _slope(tokens, memory))


def _slope(tokens: Sequence[int], costs: Sequence[float]) -> float | None:
    """From the long ones, or the last two where there are not two of those."""
    start = min(sum(n < LONG for n in tokens), max(0, len(tokens) - 2))
    long, cost_of_long = tokens[start:], costs[start:]
    return cost.slope(long, cost_of_long) if len(set(long)) > 1 and min(cost_of_long) > 0 else None


def _record(found: Measured) -> dict[str, Any]:
    return {
        "embed_dim": found.embed_dim,
        "parts": [part._asdict() for part in found.parts],
        "cut_into_heads": [row._asdict() for row in found.heads],
        "cores": [core._asdict() for core in found.cores],
        "refused": found.refused,
    }
