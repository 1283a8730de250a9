"""The numbers of a data-size study as CSV: a line per cell, difference, crossing and power law; shares, not percent."""

from collections.abc import Callable, Iterable

from vit.experiments.findings import Findings
from vit.experiments.frame import Line, table


def tables(found: Findings) -> dict[str, str]:
    """Text of each file by its name; nothing between two commas where there is no number."""
    return {f"{name}.csv": table(names.split(), lines(found)) for name, (names, lines) in TABLES.items()}


def _summary(found: Findings) -> Iterable[Line]:
    sizes = {arm["name"]: (arm.get("parameters"), arm.get("macs")) for arm in found.study["arms"]}
    for cell in found.cells:
        low, high = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
        counts = len(cell.accuracies), cell.failed, cell.missing
        cost = cell.images_per_s, cell.minutes
        yield cell.arm, cell.size, *counts, cell.mean, low, high, *cost, *sizes[cell.arm]


def _differences(found: Findings) -> Iterable[Line]:
    for difference in found.differences:
        seeds = len(difference.by_seed)
        p = difference.p, difference.adjusted
        yield difference.first, difference.second, difference.size, seeds, *difference.interval, *p


def _crossings(found: Findings) -> Iterable[Line]:
    for pair in found.pairs:
        yield pair.first, pair.second, len(pair.seeds), *pair.crossing


def _power_laws(found: Findings) -> Iterable[Line]:
    for arm, fit in found.fits.items():
        yield arm, *([None] * 9 if fit is None else (*fit.a, *fit.b, *fit.c))


TABLES: dict[str, tuple[str, Callable[[Findings], Iterable[Line]]]] = {
    "summary": ("arm size seeds failed missing accuracy low high images_per_s minutes parameters macs", _summary),
    "differences": ("first second size seeds difference low high p p_holm", _differences),
    "crossings": ("first second seeds verdict low value high", _crossings),
    "power_laws": ("arm a a_low a_high b b_low b_high c c_low c_high", _power_laws),
}
