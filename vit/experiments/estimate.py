"""What a grid will cost, from a few steps of each net on this machine."""

from collections.abc import Callable, Sequence
from statistics import median

from torch import nn

from vit.analysis.cost import inference, training
from vit.analysis.cost import seconds as seconds_of
from vit.experiments.grid import Cell, Study
from vit.experiments.recipe import Plan, shape_of

PROBES = 3


def table(planned: Plan, cells: Sequence[Cell], workers: int, device: str) -> str:
    """The grid in words; of ``cells``, the time measured on ``device``, loading and augmentation come on top."""
    study, shape = planned.study, shape_of(planned.data(0))
    wide = max(10, *(len(arm.name) + 1 for arm in study.arms))
    lines = [
        f"{study.data['name']}: {study.data['train']:,} training pictures, {study.data['classes']} classes",
        f"sizes {', '.join(f'{size:,}' for size in study.sizes)}; seeds {len(study.seeds)}; {study.amount:,} "
        f"{study.budget} a run; precision {study.precision}",
        *([f"{len(study.trials)} trials of each arm at {study.tune_size:,} pictures"] if study.trials else []),
        f"{'arm':<{wide}}{'parameters':>12}{'multiply-adds':>15}{'ms/step':>9}{'runs':>6}{'minutes':>9}",
    ]
    total = 0.0
    for arm in study.arms:
        mine = [cell for cell in cells if cell.arm == arm.name]
        speed = {
            precision: seconds(planned.net(arm), shape, study.batch_size, precision, device)
            for precision in dict.fromkeys(cell.precision for cell in mine)  # none for what is only timed, or done
        }
        spent = sum(_run_seconds(study, cell, *speed[cell.precision]) for cell in mine)
        total += spent
        step = f"{1000 * next(iter(speed.values()))[0]:.0f}" if speed else "-"
        lines.append(f"{arm.name:<{wide}}{arm.parameters:>12,}{arm.macs:>15,}{step:>9}{len(mine):>6}{spent / 60:>9.0f}")
    cores = 1 if device == "cuda" else workers  # runs that share a GPU slow each other: how much is not known here
    most = "about" if device == "cpu" else "at most about"
    lines.append(f"{len(cells)} runs to do, {most} {total / cores / 60:.0f} minutes with {workers} at once on {device}")
    return "\n".join(lines)


def seconds(
    net: nn.Module, shape: tuple[int, ...], batch_size: int, precision: str, device: str
) -> tuple[float, float]:
    """Seconds of a training step and of one picture's evaluation, median of a few on random pictures."""
    net = net.to(device)
    step = training(net, shape, batch_size, device, precision)
    evaluate = inference(net, shape, batch_size, device, precision)
    return _time(step, device), _time(evaluate, device) / batch_size


def _time(work: Callable[[], None], device: str) -> float:
    return median([seconds_of(work, device) for _ in range(PROBES + 1)][1:])


def _run_seconds(study: Study, cell: Cell, step: float, picture: float) -> float:
    steps, _ = study.steps(cell)
    evaluated = study.data["validation"] + (study.data["test"] if cell.kind == "run" else 0)
    return steps * step + evaluated * picture
