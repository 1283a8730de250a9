"""From what a user asks of ``vit study mechanisms`` to the grid it means: who takes part in which host, and who not."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from torch import nn

from vit.analysis.cost import parameters
from vit.commandline.arguments import BACKBONE
from vit.commandline.options import VitCLI, choose_accelerator, default_precision
from vit.data.labels import require_labels
from vit.data.module import Images
from vit.experiments import axes
from vit.experiments.arms import TOLERANCE, Candidate, Goal, arm, turned
from vit.experiments.comparison import Comparison, Entry, Mechanisms, Refused
from vit.experiments.grid import Arm, Study
from vit.experiments.recipe import (
    OWNED,
    Plan,
    check_size,
    facts,
    leave_to_the_grid,
    net_of,
    parse,
    recipe_hash,
    shape_of,
)
from vit.layers import patch_grid

PATCH, MLP = f"{BACKBONE}.patch_size", f"{BACKBONE}.block.init_args.mlp.init_args.mlp_ratio"
MOST = 1.10  # of the host's parameters. Tay et al. 2020 (Long Range Arena), section 3.1
OF_THE_GRID = OWNED | {"data.train_size": "train_size", "model.net.backbone.patch_size": "patch"}


class Admitted(NamedTuple):
    """Arms and what each is, in the same order; and those that take no part."""

    arms: list[Arm]
    entries: list[Entry]
    refused: list[Refused]


def compare(settings: Mechanisms, configs: Sequence[str], options: Sequence[str]) -> tuple[Comparison, Plan]:
    """The study that these settings describe.

    Args:
        settings: of the study.
        configs: overlays of ``vit fit`` that all runs share.
        options: of ``vit fit``, as ``--name=value``, that all runs share.

    Raises:
        ValueError: an unknown arm, two that are one, a patch that does not divide the pictures, a host that cannot be
            built, or an option that the grid sets.
    """
    leave_to_the_grid(OF_THE_GRID, settings.fit, configs, options)
    reference = settings.references[settings.vary]
    names = axes.select(settings.vary, settings.arms, reference)
    first = parse([*settings.host, reference], settings.fit, configs, options)
    data: Images = first.parser.instantiate(first.config).data
    require_labels(data.description, "a study")
    size = settings.train_size or len(data.nested_order)
    check_size(size, data)
    grids = {patch: _grid(shape_of(data), patch) for patch in (*settings.patch, *settings.timed_patch)}
    parsed, refusals = _parsed(names[1:], settings, configs, options)
    parsed = {reference: first, **parsed}
    recipes = _distinct({name: recipe_hash(cli) for name, cli in parsed.items()}, refusals, settings.arms is None)
    admitted = Admitted([], [], [])
    for patch, tokens in grids.items():
        _Host(settings, parsed, shape_of(data), patch).admit(names, tokens, refusals, admitted)
    grid = Study(
        arms=tuple(admitted.arms),
        sizes=(size,),
        seeds=tuple(range(settings.seeds)),
        budget=settings.budget,
        amount=settings.amount,
        match="none",
        precision=settings.precision or default_precision(choose_accelerator(first.config.trainer.accelerator)),
        compare_precision=None,
        tune_size=size,
        trials=(),
        fit=settings.fit,
        configs=tuple(configs),
        recipes=recipes,
        data=facts(data),
        batch_size=data.batch_size,
    )
    patches = tuple(dict.fromkeys(settings.patch))
    timed = tuple(patch for patch in dict.fromkeys(settings.timed_patch) if patch not in patches)
    study = Comparison(
        grid=grid,
        entries=tuple(admitted.entries),
        vary=settings.vary,
        host=tuple(settings.host),
        reference=reference,
        patch=patches,
        timed_patch=timed,
        timed_batch=settings.timed_batch,
        embed_dim=first.config[f"{BACKBONE}.embed_dim"],
        refused=tuple(admitted.refused),
    )
    return study, Plan(grid, {entry.name: parsed[entry.overlay] for entry in study.entries})


def _parsed(
    names: Sequence[str], settings: Mechanisms, configs: Sequence[str], options: Sequence[str]
) -> tuple[dict[str, VitCLI], dict[str, str]]:
    """The host with each overlay; and why others cannot be put into it."""
    parsed: dict[str, VitCLI] = {}
    refusals: dict[str, str] = {}
    for name in names:
        try:
            parsed[name] = parse([*settings.host, name], settings.fit, configs, options)
        except ValueError as error:
            refusals[name] = str(error)
    return parsed, refusals


def _grid(shape: tuple[int, ...], patch: int) -> int:
    """Patches of a picture."""
    try:
        height, width = patch_grid(shape[1], shape[2], (patch, patch))
    except ValueError as error:
        raise ValueError(f"--patch {patch}: {error}") from error
    return height * width


def _distinct(recipes: dict[str, str], refusals: dict[str, str], by_default: bool) -> dict[str, str]:
    """Each recipe once: two overlays that say the same are an error where both were asked for by name."""
    kept: dict[str, str] = {}
    for name, recipe in recipes.items():
        twin = next((other for other, theirs in kept.items() if theirs == recipe), None)
        if twin is None:
            kept[name] = recipe
        elif by_default:
            refusals[name] = f"the same configuration as {twin}"
        else:
            raise ValueError(f"{name} makes the same configuration as {twin}: leave one of them out")
    return kept


class _Host(NamedTuple):
    """The host at one patch size, and what may take its part's place."""

    settings: Mechanisms
    parsed: Mapping[str, VitCLI]
    shape: tuple[int, ...]
    patch: int

    def admit(self, names: Sequence[str], tokens: int, refusals: Mapping[str, str], admitted: Admitted) -> None:
        """Of the overlays, the reference first, those whose nets this host can be."""
        host = self._arm(names[0], tokens, {})

        def add(arm: Arm, overlay: str, widened: bool = False) -> None:
            admitted.arms.append(arm)
            admitted.entries.append(Entry(arm.name, overlay, self.patch, tokens, widened))

        add(host, names[0])
        for name in names[1:]:
            try:
                if name in refusals:
                    raise ValueError(refusals[name])
                add(own := self._own(name, tokens, host), name)
                trained = self.patch in self.settings.patch  # what is only timed shows the growth of a mixer as it is
                if trained and self.settings.widen and own.parameters < (1 - TOLERANCE) * host.parameters:
                    add(self._widened(name, tokens, host), name, widened=True)
            except ValueError as error:
                admitted.refused.append(Refused(name, self.patch, tokens, str(error)))

    def _own(self, overlay: str, tokens: int, host: Arm) -> Arm:
        own = self._arm(overlay, tokens, {})
        if (share := own.parameters / host.parameters) > MOST:
            raise ValueError(f"{own.parameters:,} parameters are {share:.2f} times the host's: expected at most {MOST}")
        return own

    def _widened(self, overlay: str, tokens: int, host: Arm) -> Arm:
        if self.parsed[overlay].config.get(MLP) is None:
            raise ValueError("its MLP, which would be widened to the host's parameters, has no mlp_ratio")
        goal = Goal(f"{host.parameters:,} parameters of the host", host.parameters)
        build = partial(_net, self.parsed[overlay], self.patch)
        return self._arm(
            overlay, tokens, turned(f"{overlay}, MLP widened,", Candidate([], MLP), build, parameters, goal)
        )

    def _arm(self, overlay: str, tokens: int, options: Mapping[str, float]) -> Arm:
        name = f"{overlay.replace('/', '.')}@{tokens}{'-wide' if options else ''}"
        build = partial(_net, self.parsed[overlay], self.patch)
        counted = arm(name, [*self.settings.host, overlay], build, self.shape, options)
        return Arm(name, counted.configs, {PATCH: self.patch, **options}, counted.parameters, counted.macs)


def _net(cli: VitCLI, patch: int, options: Mapping[str, float]) -> nn.Module:
    return net_of(cli, {PATCH: patch, **options})
