"""Whether data may test a model: they have its classes, and none of them it was trained or validated on."""

from typing import Any

from vit.commandline import record
from vit.commandline.options import VitCLI
from vit.commandline.trained import Trained
from vit.data import catalog
from vit.data.listing import shown
from vit.data.module import Images
from vit.data.prints import Prints, joined


def check_splits(trained: Trained, cli: VitCLI) -> None:
    """Refuse splits drawn anew from the data the model was trained on: they would hold pictures it has seen."""
    fit_data = trained.config.get("data", {})
    drawn_by = {
        "seed_everything": (trained.config.get("seed_everything"), cli.config.seed_everything),
        "data.val_fraction": (fit_data.get("val_fraction"), cli.config.data.val_fraction),
    }
    for option, (then, now) in drawn_by.items():
        if cli.command == "validate" and then is not None and then != now:
            raise ValueError(f"{option} {now} would draw another validation split than the run's {then}")
    if trained.manifest_hash not in (None, cli.datamodule.manifest_hash):
        name = cli.datamodule.description.name
        raise ValueError(
            f"the data {name!r} changed since the model was trained on it: splits drawn anew would hold pictures it "
            "has seen; put the data back as it was, or name other pictures with --data.root"
        )


def check_other(trained: Trained, data: Images) -> None:
    """Of data without splits, which the model was not trained on, all is tested; of no data what it has seen.

    Which files it has seen a run's folder knows, a bundle does not: then it is said that this is not known.

    Raises:
        ValueError: pictures that the model was trained or validated on, or nothing to test on but a split drawn anew.
    """
    source = catalog.load(data.dataset, data.root, "test")
    if source is not None and source.drawn:
        if catalog.load(data.dataset, data.root, "val") is not None:
            raise ValueError(
                f"{data.root} is not the data the model was trained on and has no test split of its own, but others: "
                "name the pictures to test on by a folder test/ beside train/ (test_images in npz, a split in csv)"
            )
        data.whole = True
    seen, prints = record.seen_by(trained.folder), data.identity.prints
    tested = joined([prints["train"], prints["test"]]) if data.whole else prints.get("test")
    told = "whether it has seen some of them is not known"
    if seen is not None and tested is not None and seen.kind == tested.kind:
        _refuse_seen(tested, seen, data)
        told = "none of them is among its training or validation data"
        if any(_started_from(trained.config)):
            told += "; what its start or its teacher has seen is not known"
    if data.whole:
        print(f"{data.root} is not the data the model was trained on, and has no splits: all is tested; {told}")


def _started_from(config: dict[str, Any]) -> list[Any]:
    options = config.get("model", {}).get("init_args", {})
    return [options.get("init_from"), options.get("teacher")]


def _refuse_seen(tested: Prints, seen: Prints, data: Images) -> None:
    if len(places := tested.among(seen)):
        names = shown(data.splits.names(places, "test"), 3)
        raise ValueError(
            f"{len(places)} of the {len(tested.values)} pictures to test on of {data.root or data.dataset} are among "
            f"the model's training and validation data: {names}; take them out"
        )


def check_classes(expected: tuple[str, ...], came: tuple[str, ...]) -> None:
    """Raises ValueError where the data have other classes than the model, or in another order."""
    if expected == came:
        return
    unknown = [name for name in came if name not in expected]
    absent = [name for name in expected if name not in came]
    differing = "they come in another order"
    if unknown or absent:
        differing = f"the model does not know {unknown[0]!r}" if unknown else f"the data lacks {absent[0]!r}"
    raise ValueError(f"the data's {len(came)} classes are not the model's {len(expected)}: {differing}")
