"""From what a user asks of ``vit study transfer`` to the study it means: which starts each target can have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from vit.analysis.cost import macs, parameters
from vit.commandline.options import VitCLI, choose_accelerator, default_precision
from vit.data import catalog
from vit.data.labels import require_labels
from vit.data.merging import is_coarser
from vit.data.module import Images
from vit.experiments.recipe import (
    OWNED,
    check_size,
    data_of,
    facts,
    leave_to_the_grid,
    net_of,
    parse,
    recipe_hash,
    shape_of,
)
from vit.experiments.stages import Entry, Origin, Stages, Transfer
from vit.experiments.starts import LONG, Place, Start, places, starts

OF_THE_GRID = OWNED | {
    "data.train_size": "labels",
    "data.subset": "labels",
    "data.dataset": "targets and --sources",
    "data.root": "targets and --sources",
    "data.merge_classes": "targets and --sources",
    "model.init_from": "rows",
}
UNLABELLED = "vit.tasks.pretrain.Pretrainer"


class Opened(NamedTuple):
    """A command line taken apart, and its data."""

    cli: VitCLI
    data: Images
    facts: Mapping[str, Any]

    @property
    def labelled(self) -> bool:
        """Whether it learns from labels."""
        return self.cli.config.model.class_path != UNLABELLED

    def tells_labels_of(self, target: "Opened") -> bool:
        """Whether it learns from the target's own labels: those of the same pictures, unless they are coarser."""
        ours, theirs = (opened.facts.get("coarse_of", opened.facts["manifest_hash"]) for opened in (self, target))
        own = catalog.describe(target.data.dataset, target.data.root).classes
        coarser = ours == theirs and is_coarser(own, self.data.merge_classes, target.data.merge_classes)
        return self.labelled and ours == theirs and not coarser

    def net(self) -> nn.Module:
        """Raises ValueError in one line where the method refuses the host."""
        return net_of(self.cli, {})


class TransferPlan(NamedTuple):
    """A study, where its data lie, and each target as its runs will read it."""

    study: Stages
    places: Mapping[str, Place]
    targets: Mapping[str, Opened]

    def data(self, target: str, seed: int) -> Images:
        """A target as the runs of this seed see it."""
        return data_of(self.targets[target].cli, seed)


class _Desk:
    """What may start where.

    Args:
        settings: of the study.
        known: data sets by name.
        configs: overlays that all runs share.
        options: of ``vit fit`` that all runs share, the shape of pictures among them.
    """

    def __init__(
        self, settings: Transfer, known: Mapping[str, Place], configs: Sequence[str], options: Sequence[str]
    ) -> None:
        self.settings, self.known, self.configs, self.options = settings, known, configs, options
        self.targets: dict[str, Opened] = {}
        self.pretrained: dict[str, tuple[Origin, Opened]] = {}
        self.entries: list[Entry] = []
        self.refused: list[dict[str, str]] = []

    def book(self, target: str, asked: Sequence[Start]) -> None:
        """The rows of a target.

        Raises:
            ValueError: too few pictures for the labels asked for, or a host that a method refuses.
        """
        opened = self.targets[target] = self._open(target, self.settings.host, self.settings.fit)
        require_labels(opened.data.description, "a target")
        check_size(self.settings.labels, opened.data)
        net = opened.net()
        counts = parameters(net), macs(net, shape_of(opened.data))
        for start in asked:
            origin, steps = None, self.settings.amount
            if start.method is not None:
                origin = self._origin(start.method, start.source or target)
                _, source = self.pretrained[origin]
                if source.tells_labels_of(opened):
                    self.refused.append({"target": target, "row": start.row, "reason": _own_labels(start.row, target)})
                    continue
            if start.row == LONG:
                steps += self._steps_of_pretraining(opened.data.batch_size)
            self.entries.append(Entry(f"{target}.{start.row}", start.row, target, origin, steps, *counts))

    def _origin(self, method: str, source: str) -> str:
        name = f"{method}@{source}"
        if name not in self.pretrained:
            overlays = [*self.settings.host, *self.settings.methods[method]]
            opened = self._open(source, overlays, merged(self.settings.fit, self.settings.pretrain))
            if opened.labelled:
                require_labels(opened.data.description, f"row {name!r}")
            opened.net()
            self.pretrained[name] = Origin(name, method, source, opened.data.batch_size), opened
        return name

    def _open(self, place: str, overlays: Sequence[str], fit: Mapping[str, Any]) -> Opened:
        cli = parse(overlays, fit, self.configs, (*self.options, *self.known[place].options))
        data: Images = cli.parser.instantiate(cli.config.clone()).data
        return Opened(cli, data, facts(data))

    def _steps_of_pretraining(self, batch_size: int) -> int:
        """As many pictures as pretraining takes, in steps of finetuning; of the largest batch, where they differ."""
        batches = [opened.data.batch_size for _, opened in self.pretrained.values()]
        if not batches:
            data = merged(self.settings.fit, self.settings.pretrain).get("data", {})
            batches = [data.get("batch_size", batch_size)]
        return math.ceil(self.settings.pretrain_amount * max(batches) / batch_size)


def plan(settings: Transfer, configs: Sequence[str], options: Sequence[str]) -> TransferPlan:
    """The study that these settings describe.

    Args:
        settings: of the study.
        configs: overlays of ``vit fit`` that all runs share.
        options: of ``vit fit``, as ``--name=value``, that all runs share.

    Raises:
        ValueError: an unknown row or data set, labels that the data do not have, the target's own labels as a source,
            a host that a method refuses, or an option that the grid sets.
    """
    leave_to_the_grid(OF_THE_GRID | {"model.optimizer.lr": "trials"}, settings.fit, configs, options)
    leave_to_the_grid(OF_THE_GRID, settings.pretrain, (), ())
    targets, sources = places(settings.targets), places(settings.sources)
    known = places([*settings.targets, *settings.sources])
    asked = starts(settings.rows, settings.methods, list(sources))
    first = next(iter(targets))
    shape = parse(settings.host, settings.fit, configs, (*options, *known[first].options))
    seen = shape.parser.instantiate(shape.config.clone()).data.preprocessing
    size = list(seen.img_size)
    desk = _Desk(settings, known, configs, (*options, f"--data.img_size={size}", f"--data.channels={seen.channels}"))
    for target in targets:
        desk.book(target, asked)
    for start in asked:
        reasons = [refused["reason"] for refused in desk.refused if refused["row"] == start.row]
        if len(reasons) == len(targets):
            raise ValueError(reasons[0])
    used = dict.fromkeys(entry.origin for entry in desk.entries if entry.origin)
    opened = {name: desk.pretrained[name] for name in used}
    everyone = {**desk.targets, **{origin.source: source for origin, source in opened.values()}}
    cli, data, _ = desk.targets[first]
    study = Stages(
        host=tuple(settings.host),
        methods={name: tuple(overlays) for name, overlays in settings.methods.items()},
        origins=tuple(origin for origin, _ in opened.values()),
        entries=tuple(desk.entries),
        refused=tuple(desk.refused),
        sets={name: found.facts for name, found in everyone.items()},
        img_size=seen.img_size,
        channels=seen.channels,
        labels=settings.labels,
        seeds=tuple(range(settings.seeds)),
        amount=settings.amount,
        pretrain_amount=settings.pretrain_amount,
        trials=tuple(settings.trials),
        precision=settings.precision or default_precision(choose_accelerator(cli.config.trainer.accelerator)),
        fit=settings.fit,
        pretrain=settings.pretrain,
        configs=tuple(configs),
        recipes={name: recipe_hash(found.cli) for name, found in desk.targets.items()}
        | {name: recipe_hash(found.cli) for name, (_, found) in opened.items()},
        batch_size=data.batch_size,
    )
    return TransferPlan(study, known, desk.targets)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two configurations as one, the second winning."""
    both = {**first, **second}
    for name in first.keys() & second.keys():
        if isinstance(first[name], Mapping) and isinstance(second[name], Mapping):
            both[name] = merged(first[name], second[name])
    return both


def _own_labels(row: str, target: str) -> str:
    return (
        f"row {row!r} would learn from the labels of the target {target}, of which only a few are given: expected "
        "another data set or coarser labels, METHOD@SOURCE"
    )
