"""`vit probe`: what a trained net's frozen features tell of classes, from a few pictures of each to all."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jsonargparse import ArgumentError, ArgumentParser
from rich.console import Console
from rich.table import Table

from vit.analysis.features import gathered
from vit.analysis.fewshot import Row, probed
from vit.commandline import record
from vit.commandline.arguments import take, with_configs
from vit.commandline.errors import one_line
from vit.commandline.options import integers_first
from vit.commandline.quiet import quiet
from vit.commandline.trained import Trained, open_trained, refuse_other_scale
from vit.data.labels import require_labels
from vit.data.module import Images
from vit.environment import environment
from vit.files import write_atomically

SHOTS, DRAWS = (1, 5, 10, 25), 10
USAGE = "vit probe MODEL [-c data/NAME] [--data.root DIR] [--shots 1,5,10,25] [--draws 10] [--on test|val] [options]"
Split = Literal["test", "val"]


def main(args: list[str]) -> int:
    """The command; prints a table."""
    if {"-h", "--help"} & set(args):
        _parser().print_help()
        return 0
    (out,), args = take(args, "--out")
    found = probe(args)
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(_table(found))
    if out is not None:
        write_atomically(Path(out), lambda part: part.write_text(json.dumps(found, indent=2), encoding="utf-8"))
    return 0


def probe(args: list[str]) -> dict[str, Any]:
    """Accuracy of kNN, ridge and logistic regression on the frozen features of ``--load MODEL``, as plain data.

    Fitted to the training pictures, judged on the test split, or with ``--on val`` on validation: for choosing among
    models. Data are the run's own unless others are named; their classes need not be the model's. With ``--record
    FILE`` the result joins FILE as one line, with how the model was trained.

    Raises:
        ValueError: anything the user can put right, in one line.
    """
    (model, shots, draws, split, recorded), args = take(args, "--load", "--shots", "--draws", "--on", "--record")
    if model is None:
        raise ValueError(f"vit probe expects a model: {USAGE}")
    counts, draws, split = _shots(shots), _count("--draws", draws, DRAWS), _split(split)
    with quiet():
        trained = open_trained(model)
        data = _data(trained, args)
        net = trained.net.to("cuda" if torch.cuda.is_available() else "cpu")
        require_labels(data.description, "vit probe")
        data.setup("fit")
        _check_shots(max(counts), data)
        train, labels = gathered(net, data.excerpt("train", data.num_train))
        if split == "test":
            data.setup("test")
        test, truth = gathered(net, data.test_dataloader() if split == "test" else data.val_dataloader())
        rows = [
            {"features": name, **_plain(row)}
            for name in train
            for row in probed((train[name], labels), (test[name], truth), counts, draws, data.seed)
        ]
    result = {
        "data": data.description.name,
        "manifest_hash": data.manifest_hash,
        "split": split,
        "n_train": len(labels),
        "n": len(truth),
        "draws": draws,
        "seed": data.seed,
        "weights": "released" if trained.checkpoint is None else trained.checkpoint.name,
        "features": {name: values.shape[1] for name, values in train.items()},
        "rows": rows,
        "environment": environment(),
    }
    if recorded is not None:
        record.append(Path(recorded), trained.folder, "probe", result)
    return result


def _data(trained: Trained, args: Sequence[str]) -> Images:
    """The run's data, or what is named in its place, seen as the model sees pictures."""
    kept = {name: value for name, value in trained.config.get("data", {}).items() if value is not None}
    given = [argument.partition("=")[0] for argument in args]
    if {"--data.root", "--data.dataset", "-c", "--config"} & set(given):
        kept = {name: value for name, value in kept.items() if name in ("batch_size", "num_workers", "cache_gb")}
    elif not kept:
        raise ValueError("the model does not say what it was trained on: name the data, -c data/digits for instance")
    kept = {"seed": trained.config.get("seed_everything", 0), "batch_size": 256, **kept}
    expanded = with_configs([f"--data={json.dumps(kept)}", *args])[0]
    parser = _parser()
    try:
        config = parser.parse_args(expanded)
        refuse_other_scale(trained, config.data)
        data: Images = parser.instantiate(config).data
    except (ArgumentError, ValueError) as error:
        options = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
        raise ValueError(one_line(error, options)) from error
    asked = data.preprocessing
    resized = any(argument == "--data.img_size" for argument in given)
    if "--data.channels" in given and asked.channels != trained.preprocessing.channels:
        raise ValueError(f"the model takes pictures of {trained.preprocessing.channels} channels, got {asked.channels}")
    size = asked.img_size if resized else trained.preprocessing.img_size
    data.preprocessing = replace(trained.preprocessing, img_size=size)
    return data


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="vit probe", usage=USAGE, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML with a part `data`; -c NAME takes a packaged one")
    parser.add_class_arguments(Images, "data")
    integers_first(parser)
    return parser


def _check_shots(most: int, data: Images) -> None:
    """Before the features are computed, and by the class's name."""
    smallest = int(data.class_counts.argmin())
    there = int(data.class_counts[smallest])
    if there < most:
        name = data.classes[smallest]
        raise ValueError(
            f"{most} shots of each class: expected as many of class {name}, got {there}; --shots takes fewer"
        )


def _shots(given: str | None) -> tuple[int, ...]:
    words = [] if given is None else given.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ValueError(f"--shots expects numbers of pictures of each class, such as 1,5,10,25; got {given!r}")
    return tuple(sorted({int(word) for word in words})) or SHOTS


def _count(option: str, given: str | None, default: int) -> int:
    if given is not None and not given.isdecimal():
        raise ValueError(f"{option} expects a number, got {given!r}")
    return default if given is None else int(given)


def _split(given: str | None) -> Split:
    if given not in (None, "test", "val"):
        raise ValueError(f"--on expects test or val, got {given!r}")
    return cast(Split, given or "test")


def _plain(row: Row) -> dict[str, Any]:
    value, low, high = row.interval
    return {"method": row.method, "shots": row.shots, "acc": value, "acc_95": [low, high], "values": list(row.values)}


def _table(found: Mapping[str, Any]) -> Table:
    """Methods down, shots across; accuracies in percent with their 95 % intervals."""
    shots = list(dict.fromkeys(row["shots"] for row in found["rows"]))
    title = (
        f"{found['data']}: accuracy in % on {found['n']:,} pictures ({found['split']}) from frozen features, 95 % "
        f"intervals: over {found['draws']} draws, of all {found['n_train']:,} by the pictures tested"
    )
    table = Table("features", "classifier", title=title, title_justify="left")
    for count in shots:
        table.add_column("all" if count is None else f"{count} shot{'s' if count > 1 else ''}", justify="right")
    cells = {(row["features"], row["method"], row["shots"]): _cell(row) for row in found["rows"]}
    for name, method in dict.fromkeys((row["features"], row["method"]) for row in found["rows"]):
        label = f"{name} ({found['features'][name]})"
        table.add_row(label, method, *(cells[name, method, count] for count in shots))
    return table


def _cell(row: Mapping[str, Any]) -> str:
    low, high = row["acc_95"]
    return f"{100 * row['acc']:.1f} ({100 * max(low, 0):.1f} to {100 * min(high, 1):.1f})"
