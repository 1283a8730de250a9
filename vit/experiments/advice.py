"""What a data-size study found, in plain words: which arm for how many images, how sure, and where arms cross.

The recommendation compares all arms at one size, so its intervals are 95 % together (Bonferroni over the pairs). Below
`MIN_SEEDS` seeds there is no claim, only what is missing for one.
"""

from dataclasses import dataclass
from itertools import combinations
from math import log
from typing import NamedTuple

from vit.analysis.scaling import PowerLaw
from vit.analysis.statistics import MIN_SEEDS, Interval, mean_interval
from vit.experiments.findings import Cell, Difference, Findings, Pair
from vit.experiments.records import paired

NOTHING = "-"
"""Where there is no number."""


@dataclass(frozen=True)
class Recommendation:
    """``arms``: those no other is shown to beat, best mean first; none where there is no claim."""

    size: int
    arms: tuple[str, ...]
    headline: str
    sentences: tuple[str, ...]


def recommendation(found: Findings, size: int | None = None) -> Recommendation:
    """For ``size`` images of one's own (default: the largest measured), from the measured size nearest in ratio.

    Raises:
        ValueError: ``size`` is not positive.
    """
    sizes = found.study["sizes"]
    asked = sizes[-1] if size is None else size
    if asked < 1:
        raise ValueError(f"expected a number of images, got {asked}")
    near = min(sizes, key=lambda measured: abs(log(measured / asked)))
    where = [] if near == asked else [_nearest(asked, near, sizes)]
    answer = _Answer.at(found, near)
    ready, late, arms = answer.ready, answer.late, answer.arms
    if not ready:
        return Recommendation(near, (), f"No claim yet for {near:,} images.", (*where, _needed(late), *_so_far(late)))
    best = ready[0]
    sentences = [
        *where,
        f"{best.arm} reaches {accuracy(best.interval)} (mean of {len(best.accuracies)} seeds).",
        *(_compared(best, cell, answer.against[cell.arm]) for cell in ready[1:]),
    ]
    if late:
        sentences.append(_needed(late))
    elif len(ready) > 1:
        sentences.append(_with_more(found, arms, near))
    sentences += [_doubled(found.fits[best.arm], best, asked), _costs(ready)]
    headline = _headline(arms, near, late, len(found.arms))
    return Recommendation(near, () if late else tuple(arms), headline, tuple(filter(None, sentences)))


class _Answer(NamedTuple):
    """At one size: arms with enough seeds, best mean first, and those without; those that none is shown to beat."""

    ready: list[Cell]
    late: list[Cell]
    against: dict[str, Interval | None]
    arms: list[str]

    @classmethod
    def at(cls, found: Findings, size: int) -> "_Answer":
        cells = [found.cell(arm, size) for arm in found.arms]
        ready = sorted(
            (cell for cell in cells if len(cell.accuracies) >= MIN_SEEDS), key=lambda cell: -(cell.mean or 0)
        )
        late = [cell for cell in cells if cell not in ready]
        against = _against(found, ready) if ready else {}
        level = [arm for arm, gain in against.items() if gain is None or gain.low <= 0]
        return cls(ready, late, against, [ready[0].arm, *level] if ready else [])


def crossing_sentence(pair: Pair, differences: tuple[Difference, ...]) -> str:
    """Where one arm of the pair overtakes the other, and no more than the seeds say."""
    first, second, (verdict, low, _, high) = pair.first, pair.second, pair.crossing
    if len(pair.seeds) < MIN_SEEDS:
        more = MIN_SEEDS - len(pair.seeds)
        return f"{first} and {second}: no claim from {count(len(pair.seeds), 'paired seed')}, it takes {more} more."
    if verdict in ("falls behind", "ahead throughout"):
        first, second = second, first
    if verdict in ("overtakes", "falls behind"):
        between = f"between {low:,.0f} and {high:,.0f} images" if low and high else "within the measured sizes"
        return f"{first} overtakes {second} {between}."
    if verdict != "undecided":
        return f"{first} does not overtake {second} by {pair.sizes[-1]:,} images: it is behind at every measured size."
    by_size = {d.size: d.interval.value for d in differences if (d.first, d.second) == (pair.first, pair.second)}
    parts = []
    if low is not None:
        parts.append(f"{_leader(pair, by_size[pair.sizes[0]])} is ahead up to {low:,.0f} images")
    if high is not None:
        parts.append(f"{_leader(pair, by_size[pair.sizes[-1]])} is ahead from {high:,.0f} images on")
    rest = "for the other sizes no order can be told" if parts else "at no size can an order be told for sure"
    return f"{first} and {second}: {'; '.join([*parts, rest])}."


def _leader(pair: Pair, difference: float) -> str:
    return pair.first if difference > 0 else pair.second


def _nearest(asked: int, near: int, sizes: list[int]) -> str:
    beyond = "" if sizes[0] <= asked <= sizes[-1] else f"; {asked:,} lies outside what was measured"
    return f"Read at {near:,} images, the measured size nearest to {asked:,}{beyond}."


def _against(found: Findings, ready: list[Cell]) -> dict[str, Interval | None]:
    """Accuracy of the best less each other's, 95 % over all pairs together; None below `MIN_SEEDS` paired seeds."""
    best, pairs = ready[0], len(list(combinations(ready, 2)))
    intervals: dict[str, Interval | None] = {}
    for cell in ready[1:]:
        gains = paired(best.accuracies, cell.accuracies)
        intervals[cell.arm] = mean_interval(gains, 1 - 0.05 / pairs) if len(gains) >= MIN_SEEDS else None
    return intervals


def _compared(best: Cell, other: Cell, gain: Interval | None) -> str:
    if gain is None:
        return f"It cannot be compared with {other.arm}: fewer than {MIN_SEEDS} seeds were run with both."
    if gain.low > 0:
        return f"It is {points(gain)} points ahead of {other.arm}."
    return (
        f"No difference from {other.arm} can be told ({points(gain, sign=True)} points): "
        f"one larger than {100 * max(-gain.low, gain.high):.1f} points is ruled out."
    )


def _headline(arms: list[str], size: int, late: list[Cell], in_all: int) -> str:
    if late:
        return f"No claim yet for {size:,} images: not every arm has {MIN_SEEDS} seeds."
    if len(arms) > 1:
        return f"{', '.join(arms[:-1])} or {arms[-1]}: at {size:,} images no difference can be told."
    return f"Train {arms[0]} on {size:,} images." if in_all > 1 else f"Only {arms[0]} was studied."


def _needed(cells: list[Cell]) -> str:
    parts = [
        f"{cell.arm} {MIN_SEEDS - len(cell.accuracies)} more (has {len(cell.accuracies)})"
        for cell in cells
        if len(cell.accuracies) < MIN_SEEDS
    ]
    return f"A claim takes {MIN_SEEDS} seeds at {cells[0].size:,} images: {', '.join(parts)}."


def _so_far(cells: list[Cell]) -> list[str]:
    means = [f"{cell.arm} {percent(cell.mean)}" for cell in cells if cell.mean is not None]
    return [f"Means so far: {', '.join(means)}."] if means else []


def _with_more(found: Findings, arms: list[str], size: int) -> str:
    """Whether the answer is another one at the largest size measured."""
    last = found.study["sizes"][-1]
    if size == last:
        return f"No more than {last:,} images were studied: whether more would change the answer is not known."
    answer = _Answer.at(found, last)
    if answer.late:
        return f"Whether more images would change the answer is not known yet: at {last:,} runs are missing."
    if set(answer.arms) == set(arms):
        same = "it is the same" if len(arms) == 1 else "no difference can be told, either"
        return f"More images do not change the answer: at {last:,} {same}."
    if set(answer.arms) & set(arms):
        return f"More images may change the answer: at {last:,} it is {' or '.join(answer.arms)}."
    ours = [pair for pair in found.pairs if pair.first in answer.arms + arms and pair.second in answer.arms + arms]
    crossed = [pair for pair in ours if pair.crossing.verdict in ("overtakes", "falls behind")]
    where = " ".join(crossing_sentence(pair, found.differences) for pair in crossed)
    return f"More images change the answer: at {last:,} it is {' or '.join(answer.arms)}. {where}".rstrip()


def _doubled(fit: PowerLaw | None, best: Cell, asked: int) -> str:
    """What twice ``asked`` images would bring, where the power law may say it."""
    start = f"What twice the images ({2 * asked:,}) would bring is not known"
    if fit is None:
        return f"{start}: no power law could be told from {best.arm}'s sizes."
    if not min(fit.sizes) <= asked <= max(fit.sizes):
        return f"{start}: the power law is read from {min(fit.sizes):,} to {2 * max(fit.sizes):,} only."
    now, then = fit.error(asked), fit.band(2 * asked)
    band = f"{100 * (1 - then.high):.1f} to {100 * (1 - then.low):.1f}"
    return (
        f"Twice the images ({2 * asked:,}) would bring {best.arm} to about {percent(1 - then.value)} ({band}), "
        f"{100 * (now - then.value):+.1f} points by its power law."
    )


def _costs(cells: list[Cell]) -> str:
    parts = [
        f"{cell.arm} {cell.minutes:.1f} minutes"
        + (f" ({cell.images_per_s:,.0f} images/s)" if cell.images_per_s is not None else "")
        for cell in cells
        if cell.minutes is not None
    ]
    return f"A run takes: {', '.join(parts)} (medians)." if parts else ""


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f} %"


def accuracy(interval: Interval | None) -> str:
    """As 91.2 % (90.8 to 91.6)."""
    if interval is None:
        return NOTHING
    return f"{percent(interval.value)} ({100 * interval.low:.1f} to {100 * min(interval.high, 1.0):.1f})"


def points(interval: Interval, sign: bool = False) -> str:
    """As 1.3 (0.7 to 1.9), in percentage points."""
    form = "+.1f" if sign else ".1f"
    value, low, high = (format(100 * number, form) for number in interval)
    return f"{value} ({low} to {high})"


def count(number: int, what: str) -> str:
    """As 1 seed, 2 seeds."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
