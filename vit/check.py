"""``vit check DATA``: what a data set consists of and what is wrong with it, before anything is trained on it."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.lib.format import open_memmap
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from vit.analysis.plots.pictures import samples
from vit.commandline.arguments import take
from vit.commandline.overlays import data_options
from vit.data import catalog
from vit.data.images import Preprocessing, Range
from vit.data.listing import shown
from vit.data.merging import Merge, relabelled
from vit.data.survey import Seen, Survey, look_at, workers
from vit.files import write_atomically

SPLITS: tuple[catalog.Split, ...] = ("train", "val", "test")
MOST_ROWS = 40  # of the table of classes
LINES = 5  # of each kind of trouble on the terminal; the JSON file has all
PER_CLASS, SIDE, MOST_CLASSES = 6, 96, 20  # of the picture of samples
USAGE = "vit check DATA [--json FILE] [--picture FILE] [--value_range BLACK,WHITE] [--strict]"


def main(args: list[str]) -> int:
    """Print the report; 1 with ``--strict`` where a picture lies in two splits.

    Raises:
        ValueError: no data set there.
    """
    strict = "--strict" in args
    plain = [argument for argument in args if argument != "--strict"]
    (json_file, picture, given), rest = take(plain, "--json", "--picture", "--value_range")
    if len(rest) != 1:
        raise ValueError(f"expected {USAGE}, got {' '.join(rest) or 'nothing'}")
    value_range = None if given is None else _range(given)
    found = survey(rest[0], value_range)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
    _say(found, console)
    if json_file:
        text = json.dumps(found.to_dict(), indent=2)
        write_atomically(Path(json_file), lambda part: part.write_text(text, encoding="utf-8"))
    if picture:
        figure = _samples(rest[0], found, value_range)
        write_atomically(Path(picture), lambda part: figure.savefig(part, format="png"))
    return int(strict and bool(found.leaks))


def survey(data: str, value_range: Range | None = None) -> Survey:
    """Look at every picture of a data set: a known name, data/NAME, data/NAME=ROOT, or a place as ``--data.root``.

    With the same ``value_range`` training reads the same pictures.

    Raises:
        ValueError: no data set there, or one that is generated.
    """
    dataset, root, merge = _place(data)
    if dataset in catalog.SCENES:
        raise ValueError(f"{data} is generated, a million pictures without a file: expected a data set that is stored")
    own, description = catalog.describe(dataset, root), catalog.describe(dataset, root, merge_classes=merge)
    found = {split: catalog.load(dataset, root, split) for split in SPLITS}
    splits = {split: relabelled(source, own.classes, merge) for split, source in found.items() if source is not None}
    ignored = catalog.ignored(dataset, root)
    place = Path(root or ".")
    console = Console(file=sys.stderr)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with workers(splits) as pool, bar:  # in this order: the bar's thread is not to be forked
        task = bar.add_task("pictures", total=sum(map(len, splits.values())))
        named_from = place if place.is_dir() else place.parent
        seen = look_at(splits, named_from, lambda: bar.advance(task), pool, value_range)
    return Survey(description.name, description.classes, tuple(splits), seen, ignored)


def _range(text: str) -> Range:
    """As ``--data.value_range`` takes it, with or without brackets."""
    black, _, white = text.removeprefix("[").removesuffix("]").partition(",")
    try:
        found = float(black), float(white)
    except ValueError:
        raise ValueError(f"--value_range expects the values of black and white (0,4095), got {text!r}") from None
    Preprocessing((1, 1), 1, (0.0,), (1.0,), found)  # refuses what is no range
    return found


def _place(data: str) -> tuple[str | None, str | None, Merge | None]:
    """Data set and root, as `Images` takes them, and which classes are merged; what lies there comes first."""
    if Path(data).exists():
        return None, data, None
    if data in catalog.ENTRIES:
        return data, None, None
    options = data_options(data)
    return options.get("dataset"), options.get("root"), options.get("merge_classes")


def _say(found: Survey, console: Console) -> None:
    title = f"{escape(found.name)}: {len(found.seen):,} pictures"
    table = Table("class", *found.splits, title=title, title_justify="left")
    for label, name in enumerate(found.classes[:MOST_ROWS]):
        table.add_row(escape(name), *(f"{found.counts[split][label]:,}" for split in found.splits))
    if len(found.classes) > MOST_ROWS:
        table.add_row(f"and {len(found.classes) - MOST_ROWS:,} more classes")
    table.add_section()
    table.add_row("all", *(f"{sum(found.counts[split]):,}" for split in found.splits))
    console.print(table)
    for line in _facts(found):
        console.print(line, markup=False)
    for title, lines in _troubles(found).items():
        console.print(f"{title}: {len(lines):,}" if lines else f"{title}: none", markup=False)
        for line in lines[:LINES]:
            console.print(f"  {line}", markup=False)
        if len(lines) > LINES:
            console.print(f"  and {len(lines) - LINES:,} more (--json FILE lists all)", markup=False)


def _facts(found: Survey) -> Sequence[str]:
    sound = [picture for picture in found.seen if not picture.error]
    facts = [f"modes: {_counted(Counter(picture.mode for picture in sound))}"]
    if sound:
        sides = np.array([picture.size for picture in sound])
        (left, top), (right, bottom), middle = sides.min(axis=0), sides.max(axis=0), np.median(sides, axis=0)
        facts.append(f"width x height: {left}x{top} to {right}x{bottom}, median {middle[0]:.0f}x{middle[1]:.0f}")
    if len(found.classes) > 1:
        smallest = int(np.argmin(found.counts["train"]))
        facts.append(
            f"smallest class to train on: {found.classes[smallest]}, {found.counts['train'][smallest]:,}; "
            f"the largest has {found.imbalance:.1f} times as many"
        )
    if any(found.ignored.values()):
        facts.append(f"passed over: {_counted(Counter(found.ignored))}")
    return facts


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common() if count) or "none"


def _troubles(found: Survey) -> dict[str, list[str]]:
    def named(groups: list[tuple[Seen, ...]]) -> list[str]:
        return [shown([f"{picture.name} ({picture.split})" for picture in group]) for group in groups]

    return {
        "unreadable": [f"{picture.name}: {picture.error}" for picture in found.unreadable],
        "classes missing in a split": [f"{name} in {split}" for split, name in found.missing],
        "same picture more than once": named(found.duplicates),
        "same picture in several splits (leak)": named(found.leaks),
        "same picture twice in train, of which fit holds some out to validate on": named(found.divisible),
        "same picture in several classes": named(found.conflicts),
    }


def _samples(data: str, found: Survey, value_range: Range | None) -> Figure:
    """A row of training pictures for each class."""
    dataset, root, _ = _place(data)
    source = catalog.load(dataset, root, "train")
    assert source is not None, "every set has one to train on"
    bad = {picture.name for picture in found.unreadable if picture.split == "train"}
    train = [picture for picture in found.seen if picture.split == "train"]
    pictures, titles = [], []
    for label, name in enumerate(found.classes[:MOST_CLASSES]):
        places = [i for i, picture in enumerate(train) if picture.label == label and picture.name not in bad]
        for i in places[:: max(1, len(places) // PER_CLASS)][:PER_CLASS]:
            pictures.append(_drawn(source.pictures[i], value_range))  # pyright: ignore
            titles.append(name)
    return samples(pictures, titles, PER_CLASS)


def _drawn(picture: Path | np.ndarray, value_range: Range | None) -> np.ndarray:
    """At its final size; of an array with more than three channels the first are seen."""
    array = open_memmap(picture, mode="r") if isinstance(picture, Path) and picture.suffix == ".npy" else picture
    channels = max(3, array.shape[2]) if isinstance(array, np.ndarray) and array.ndim == 3 else 3
    return Preprocessing((SIDE, SIDE), channels, (0.0,) * channels, (1.0,) * channels, value_range).pixels(picture)
