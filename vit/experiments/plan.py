"""From what a user asks of ``vit study data-size`` to the grid it means."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import yaml
from torch import nn

from vit.commandline.options import VitCLI, choose_accelerator, default_precision
from vit.commandline.overlays import resolve
from vit.commandline.quiet import quiet
from vit.data import catalog
from vit.data.module import Images
from vit.experiments import arms
from vit.experiments.arms import Candidate, Match
from vit.experiments.grid import Arm, Budget, Study

LADDER = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
PLACES = ("root", "num_workers")  # of the data, that change no result
PER_CLASS = 2  # pictures of the smallest size, at least
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
    "data.train_size": "sizes",
    "data.seed": "seeds",
    "seed_everything": "seeds",
    "model.optimizer.lr": "trials",
    "model.optimizer.weight_decay": "trials",
}
"""Options of ``vit fit`` that the grid sets, and the study's option for them."""


@dataclass(frozen=True)
class DataSize:
    """Compare architectures across data-set sizes: same data, subsets, augmentation, tuning effort and budget.

    Attributes:
        candidates: architectures by name.
        arms: names of those that are compared. All are matched to the first that has no dial.
        sizes: training pictures (default: 100, 300, 1000, ... up to all there are).
        seeds: runs of each arm and size. No claim is made from fewer than 6.
        budget: whether amount counts optimiser steps or epochs.
        amount: length of every run.
        match: make the arms equal in parameters or in compute; none takes them as they are.
        tune_size: training pictures of the tuning runs (default: the middle one of sizes when the study began).
        trials: learning rate and weight decay of each tuning run, the same for every arm.
        precision: of all runs (default: bf16-mixed where the device supports it well, else 32-true).
        compare_precision: repeat the runs at tune_size in this precision.
        fit: configuration all runs share, as in a YAML overlay of vit fit.
        size: how many pictures of your own the recommendation is for (default: the largest of sizes).
        workers: runs at once (default: one per core; 2 on CUDA).
        out: folder of the study; the same command continues there (default: runs/data-size-<data>).
        dry_run: print the grid and an estimate of its time, and stop.
        retry_failed: take failed runs up again.
    """

    candidates: dict[str, Candidate]
    trials: list[dict[str, float]]
    amount: int
    arms: list[str] = field(default_factory=lambda: ["vit", "hybrid", "cnn"])
    sizes: list[int] | None = None
    seeds: int = 6
    budget: Budget = "steps"
    match: Match = "parameters"
    tune_size: int | None = None
    precision: str | None = None
    compare_precision: str | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    workers: int | None = None
    out: str | None = None
    dry_run: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        at_least_one = {"seeds": self.seeds, "amount": self.amount, "workers": self.workers, "size": self.size}
        for name, value in at_least_one.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.trials or any(set(trial) != {"lr", "weight_decay"} for trial in self.trials):
            raise ValueError(f"expected trials of lr and weight_decay, got {self.trials}")


class Plan(NamedTuple):
    """A study and what it was made of: the command line of each arm, taken apart."""

    study: Study
    parsed: Mapping[str, VitCLI]

    def data(self, seed: int) -> Images:
        """The data as the runs of this seed see them."""
        cli = next(iter(self.parsed.values()))
        config = cli.config.clone()
        config["data.seed"] = seed
        return cli.parser.instantiate(config).data

    def net(self, arm: Arm) -> nn.Module:
        """A fresh net of an arm."""
        return _net(self.parsed[arm.name], arm.options)


def plan(settings: DataSize, configs: Sequence[str], options: Sequence[str]) -> Plan:
    """The study that these settings describe.

    Args:
        settings: of the study.
        configs: overlays of ``vit fit`` that all runs share.
        options: of ``vit fit``, as ``--name=value``, that all runs share.

    Raises:
        ValueError: an unknown arm, a size that the data do not have, or an option that the grid sets.
    """
    shared = [settings.fit, *(yaml.safe_load(resolve(name).read_text(encoding="utf-8")) for name in configs)]
    _leave_to_the_grid([*options, *(f"--{name}" for content in shared for name in _names(content))])
    candidates = arms.select(settings.arms, settings.candidates)
    parsed = {name: _parse(candidate, settings.fit, configs, options) for name, candidate in candidates.items()}
    first = next(iter(parsed.values()))
    data: Images = first.parser.instantiate(first.config).data
    sizes = _sizes(settings.sizes, data)
    tune_size = settings.tune_size or sizes[(len(sizes) - 1) // 2]
    _check_size(tune_size, data)
    precision = settings.precision or default_precision(choose_accelerator(first.config.trainer.accelerator))
    if settings.compare_precision and tune_size not in sizes:
        raise ValueError(
            f"--compare_precision repeats the runs at tune_size {tune_size}: expected it among sizes {sizes}"
        )
    builds = {name: partial(_net, cli) for name, cli in parsed.items()}
    study = Study(
        arms=arms.matched(candidates, builds, shape_of(data), settings.match),
        sizes=sizes,
        seeds=tuple(range(settings.seeds)),
        budget=settings.budget,
        amount=settings.amount,
        match=settings.match,
        precision=precision,
        compare_precision=None if settings.compare_precision == precision else settings.compare_precision,
        tune_size=tune_size,
        trials=tuple(settings.trials),
        fit=settings.fit,
        configs=tuple(configs),
        recipes={name: _recipe(cli) for name, cli in parsed.items()},
        data=_facts(data),
        batch_size=data.batch_size,
    )
    return Plan(study, parsed)


def shape_of(data: Images) -> tuple[int, ...]:
    """Channels, height and width of a picture."""
    return data.preprocessing.channels, *data.preprocessing.img_size


def _recipe(cli: VitCLI) -> str:
    """SHA-256 of an arm's whole configuration, without what may differ from one sitting to the next."""
    config = yaml.safe_load(cli.saved_config())
    for name in PLACES:
        config["data"].pop(name, None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _facts(data: Images) -> dict[str, Any]:
    train, val, test = (catalog.load(data.dataset, data.root, split) for split in ("train", "val", "test"))
    assert train is not None and test is not None, "every set has them"
    there = len(data.nested_order)
    return {
        "name": data.description.name,
        "manifest_hash": data.manifest_hash,
        "classes": len(data.classes),
        "train": there,
        "validation": len(train) - there if val is None else len(val),
        "test": len(test),
    }


def _parse(candidate: Candidate, fit: dict[str, Any], configs: Sequence[str], options: Sequence[str]) -> VitCLI:
    overlays = [str(resolve(name)) for name in ("base", *candidate.configs)]
    shared = [json.dumps(fit), *(str(resolve(name)) for name in configs)]
    with quiet():
        return VitCLI("fit", [*(f"--config={config}" for config in (*overlays, *shared)), *options])


def _net(cli: VitCLI, options: Mapping[str, float]) -> nn.Module:
    config = cli.config.clone()
    for name, value in options.items():
        config[name] = value
    return cli.parser.instantiate(config).model.net


def _sizes(asked: Sequence[int] | None, data: Images) -> tuple[int, ...]:
    there = len(data.nested_order)
    if asked is None:  # steps of about three, and all there are
        asked = [size for size in LADDER if PER_CLASS * len(data.classes) <= size <= there]
        asked = [*asked, there] if not asked or there >= 1.5 * asked[-1] else asked
    if not asked:
        raise ValueError("sizes: expected at least one number of training pictures, got none")
    for size in asked:
        _check_size(size, data)
    return tuple(sorted(set(asked)))


def _check_size(size: int, data: Images) -> None:
    there, classes = len(data.nested_order), len(data.classes)
    if size > there:
        raise ValueError(f"size {size} is more than the {there} pictures there are to train on")
    if size < classes:
        raise ValueError(
            f"size {size} leaves some of the {classes} classes without a picture: expected {classes} or more"
        )


def _names(content: Any, before: str = "") -> Iterator[str]:
    """Of the options that an overlay sets."""
    for name, value in content.items() if isinstance(content, dict) else ():
        yield before + name
        yield from _names(value, f"{before}{name}.")


def _leave_to_the_grid(options: Sequence[str]) -> None:
    for option in options:
        name = option.lstrip("-").partition("=")[0].replace(".init_args", "")
        if name in OWNED:
            raise ValueError(f"--{name} is set by the study, for every run: see --{OWNED[name]}")
