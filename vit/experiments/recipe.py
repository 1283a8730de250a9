"""What the runs of an arm share: its overlays and options as one configuration, and the net and data it makes."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentError
from torch import nn

from vit.commandline.errors import one_line
from vit.commandline.options import VitCLI
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.data import catalog
from vit.data.module import Images
from vit.experiments.grid import Arm, Study

PLACES = ("root", "num_workers")  # of the data, that change no result
LATER = {"merge_classes": None, "act_layer": {"class_path": "torch.nn.GELU", "init_args": {"approximate": "none"}}}
"""Options that are younger than some studies, as they are when nobody sets them: those studies go on."""
OWNED = {
    "trainer.max_epochs": "amount",
    "trainer.max_steps": "amount",
    "trainer.precision": "precision",
    "trainer.min_epochs": "amount",
    "trainer.min_steps": "amount",
    "trainer.max_time": "amount",
    "trainer.accumulate_grad_batches": "amount",
    "trainer.limit_train_batches": "amount",
    "trainer.overfit_batches": "amount",
    "trainer.fast_dev_run": "amount",
    "trainer.devices": "workers",
    "trainer.num_nodes": "workers",
    "trainer.strategy": "workers",
    "trainer.check_val_every_n_epoch": "amount",
    "trainer.val_check_interval": "amount",
    "model.optimizer.warmup_epochs": "amount",
    "data.seed": "seeds",
    "seed_everything": "seeds",
}
"""Options of ``vit fit`` that every study's grid sets, and the study's option for them."""


class Plan(NamedTuple):
    """A study and what it was made of: the command line of each arm, taken apart."""

    study: Study
    parsed: Mapping[str, VitCLI]

    def data(self, seed: int) -> Images:
        """The data as the runs of this seed see them."""
        return data_of(next(iter(self.parsed.values())), seed)

    def net(self, arm: Arm) -> nn.Module:
        """A fresh net of an arm."""
        return net_of(self.parsed[arm.name], arm.options)


def shape_of(data: Images) -> tuple[int, ...]:
    """Channels, height and width of a picture."""
    return data.preprocessing.channels, *data.preprocessing.img_size


def parse(overlays: Sequence[str], fit: Mapping[str, Any], configs: Sequence[str], options: Sequence[str]) -> VitCLI:
    """The configuration of an arm's runs: base, its overlays, what all runs share, and the user's options.

    Raises:
        ValueError: an unknown overlay, or what ``vit fit`` would refuse.
    """
    overlays = [str(resolve(name)) for name in ("base", *overlays)]
    shared = [json.dumps(dict(fit)), *(str(resolve(name)) for name in configs)]
    with quiet():
        return VitCLI("fit", [*(f"--config={config}" for config in (*overlays, *shared)), *options])


def data_of(cli: VitCLI, seed: int) -> Images:
    """The data as the runs of this seed see them."""
    config = cli.config.clone()
    config["data.seed"] = seed
    return cli.parser.instantiate(config).data


def net_of(cli: VitCLI, options: Mapping[str, float]) -> nn.Module:
    """A fresh net of the arm, with further options.

    Raises:
        ValueError: one line for what a part refuses.
    """
    config = cli.config.clone()
    for name, value in options.items():
        config[name] = value
    try:
        return cli.parser.instantiate(config).model.net
    except (ArgumentError, ValueError) as error:
        raise ValueError(one_line(error)) from error


def recipe_hash(cli: VitCLI) -> str:
    """SHA-256 of an arm's whole configuration, without what may differ from one sitting to the next."""
    config = yaml.safe_load(cli.saved_config())
    for name in PLACES:
        config["data"].pop(name, None)
    return hashlib.sha256(json.dumps(_as_ever(config), sort_keys=True).encode()).hexdigest()


def facts(data: Images) -> dict[str, Any]:
    """What a study says of its data."""
    train, val, test = (catalog.load(data.dataset, data.root, split) for split in ("train", "val", "test"))
    assert train is not None, "every set has one to train on"
    there = len(data.nested_order)
    coarse = {"coarse_of": catalog.manifest(data.dataset, data.root), "merged": data.merge_classes}
    return {
        "name": data.description.name,
        "manifest_hash": data.manifest_hash,
        "classes": len(data.classes),
        "train": there,
        "validation": len(train) - there if val is None else len(val),
        "test": 0 if test is None else len(test),
        **(coarse if data.merge_classes else {}),
    }


def check_size(size: int, data: Images) -> None:
    """Raises ValueError where the data have no such subset with a picture of every class."""
    there, classes = len(data.nested_order), len(data.classes)
    if size > there:
        raise ValueError(f"size {size} is more than the {there} pictures there are to train on")
    if size < classes:
        raise ValueError(
            f"size {size} leaves some of the {classes} classes without a picture: expected {classes} or more"
        )


def leave_to_the_grid(
    owned: Mapping[str, str], fit: Mapping[str, Any], configs: Sequence[str], options: Sequence[str]
) -> None:
    """Raises ValueError where what all runs share sets one of the ``owned`` options."""
    shared = [fit, *(yaml.safe_load(resolve(name).read_text(encoding="utf-8")) for name in configs)]
    for option in [*options, *(f"--{name}" for content in shared for name in _names(content))]:
        name = option.lstrip("-").partition("=")[0].replace(".init_args", "")
        if name in owned:
            raise ValueError(f"--{name} is set by the study, for every run: see --{owned[name]}")


def _as_ever(value: Any) -> Any:
    """A configuration without the options of `LATER` that are not set."""
    if isinstance(value, list):
        return [_as_ever(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if name not in LATER or item != LATER[name]}
    return {name: _as_ever(item) for name, item in kept.items()}


def _names(content: Any, before: str = "") -> Iterator[str]:
    """Of the options that an overlay sets."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        yield before + name
        yield from _names(value, f"{before}{name}.")
