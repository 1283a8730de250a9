"""``vit bench model``: a net of this project beside timm's of the same name and shape, step by step in turn."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from vit.analysis import cost
from vit.commandline.arguments import BACKBONE, NET
from vit.commandline.quiet import quiet
from vit.environment import environment
from vit.experiments import bench_options
from vit.experiments.recipe import net_of, parse
from vit.models.choice import answer
from vit.models.cnn import timm_config

WARM_UP = 5
RECORD = "models.jsonl"


@dataclass(frozen=True)
class Settings:
    """A whole net's images per second, memory and multiply-adds; beside timm's where a name is given.

    Attributes:
        net: overlays of vit fit that make the net.
        timm: name of timm's net to compare with (default: none).
        img_size: side of the pictures.
        patch_size: side of the patches of both.
        classes: of the head.
        batch_size: pictures of a step.
        rounds: timed steps of each, after 5 to warm up.
        precision: 32-true or bf16-mixed.
        out: folder to which a line of models.jsonl is written (default: none).

    Raises:
        ValueError: a size, a number of classes or of rounds below 1.
    """

    lists: ClassVar[tuple[str, ...]] = ("net",)

    net: list[str] = field(default_factory=lambda: ["model/vit_tiny"])
    timm: str | None = None
    img_size: int = 224
    patch_size: int = 16
    classes: int = 1000
    batch_size: int = 32
    rounds: int = 20
    precision: str = "32-true"
    out: str | None = None

    def __post_init__(self) -> None:
        numbers = (self.img_size, self.patch_size, self.classes, self.batch_size, self.rounds)
        if min(numbers) < 1:
            raise ValueError(f"expected sizes, classes and rounds of 1 or more, got {numbers}")


def main(args: list[str]) -> int:
    """``vit bench model [options]``: print a table, and with ``--out DIR`` add a record.

    Raises:
        ValueError: one line for what cannot be.
    """
    settings = bench_options.parse("model", Settings, args)
    with quiet():
        rows = measure(settings)
    print("\n".join(lines(rows)))
    if settings.out:
        path = Path(settings.out) / RECORD
        bench_options.append(path, "model", args, {**asdict(settings), "nets": rows, **environment()})
        print(path)
    return 0


def measure(settings: Settings) -> list[dict[str, Any]]:
    """A row for each net; the second also as a factor on the first, with its interval."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape, batch, precision = (3, settings.img_size, settings.img_size), settings.batch_size, settings.precision
    nets = {"+".join(settings.net): _ours(settings)}
    if settings.timm:
        nets[f"timm {settings.timm}"] = _theirs(settings, settings.timm)
    rows: list[dict[str, Any]] = []
    for name, net in nets.items():
        counted = {"parameters": cost.parameters(net), "macs": cost.macs(net, shape)}
        net.to(device)
        rows.append({"name": name, **counted, "memory_bytes": _memory(net, shape, settings, device)})
        net.to("cpu")  # so that the other's peak is its own
    for name, make in (("train", cost.training), ("infer", cost.inference)):
        works = [make(net.to(device), shape, batch, device, precision) for net in nets.values()]
        times = cost.alternately(works, settings.rounds, WARM_UP, device)
        for place, row in enumerate(rows):
            row[f"{name}_images_per_s"] = round(batch / float(torch.tensor(times[:, place]).median()), 2)
            row[f"{name}_times_as_fast"] = cost.times_as_fast(times[:, 0], times[:, place]) if place else None
    return rows


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table; the factor is the first net's speed over the second's."""
    wide = max(len(row["name"]) for row in rows) + 1
    yield f"{'net':<{wide}}{'parameters':>12}{'multiply-adds':>16}{'train img/s':>13}{'infer img/s':>13}{'MiB':>9}"
    for row in rows:
        counts = f"{row['parameters']:>12,}{row['macs']:>16,}"
        speeds = f"{row['train_images_per_s']:>13,.1f}{row['infer_images_per_s']:>13,.1f}"
        yield f"{row['name']:<{wide}}{counts}{speeds}{row['memory_bytes'] / 2**20:>9,.1f}"
    for row in rows[1:]:
        for name in ("train", "infer"):
            value, low, high = row[f"{name}_times_as_fast"]
            yield f"{name}: {rows[0]['name']} is {value:.3f} ({low:.3f} to {high:.3f}) times as fast as {row['name']}"


def _ours(settings: Settings) -> nn.Module:
    cli = parse(settings.net, {}, (), ["--data.dataset=cifar10"])
    sizes: dict[str, Any] = {f"{NET}.img_size": (settings.img_size,) * 2, f"{NET}.num_classes": settings.classes}
    if cli.config.get(f"{NET}.backbone") is not None:
        sizes[f"{BACKBONE}.patch_size"] = settings.patch_size
    return net_of(cli, sizes)


def _theirs(settings: Settings, name: str) -> nn.Module:
    timm_config(name)  # which names the nearest where there is no such net
    import timm

    sizes: dict[str, Any] = {"img_size": settings.img_size, "patch_size": settings.patch_size}
    try:
        return timm.create_model(name, num_classes=settings.classes, **sizes)
    except TypeError:  # a convolutional net takes any size
        return timm.create_model(name, num_classes=settings.classes)


def _memory(net: nn.Module, shape: tuple[int, ...], settings: Settings, device: str) -> int:
    """Of a training step: its peak on CUDA, on a CPU what autograd keeps."""
    if device == "cuda":
        step = cost.training(net, shape, settings.batch_size, device, settings.precision)
        step()
        return cost.peak_bytes(step)
    images = torch.randn(settings.batch_size, *shape)
    return cost.saved_bytes(lambda: answer(net.train(), images), net)
