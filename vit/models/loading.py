"""Weights into a net of another image size, patch size, channel or class count, with an account of each of them."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, final

from torch import Tensor, nn

from vit.layers import ConvStem, LearnedPositions, PatchEmbed, Size, adapt_channels, resize_patches, resize_positions
from vit.models.cnn import CNN, stem_of
from vit.models.weights import Weights, compact
from vit.tokens import Grid


@final
@dataclass(frozen=True)
class Loaded:
    """What became of each weight, by name: ``str`` is one line, `table` all of it.

    Attributes:
        source: where they come from.
        loaded: those copied, resized ones among them.
        resized: what was done to a copied one.
        skipped: those of the source that have no place in the net.
        new: parts of the net that keep their fresh weights.
    """

    source: str
    loaded: tuple[str, ...]
    resized: Mapping[str, str]
    skipped: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} weights", *(f"resized {how}" for how in self.resized.values())]
        skipped = dict.fromkeys(name.partition(".")[0] for name in self.skipped)
        parts += [f"skipped: {', '.join(skipped)}"] if skipped else []
        parts += [f"new: {part}" for part in self.new]
        return f"{self.source}: {'; '.join(parts)}" if self.source else "; ".join(parts)

    def table(self) -> str:
        """What was done to each part, one line for those that differ in a number."""
        plain = [name for name in self.loaded if name not in self.resized]
        rows = [("loaded", part) for part in _parts(plain)]
        rows += [("resized", f"{name}: {how}") for name, how in self.resized.items()]
        rows += [("skipped", part) for part in _parts(self.skipped)]
        rows += [("new", part) for part in self.new]
        return "\n".join([str(self), *(f"  {what:<8} {part}" for what, part in rows)])


def _parts(names: Iterable[str]) -> list[str]:
    """Modules of the weights and biases, others by their own names."""
    parts = dict.fromkeys(re.sub(r"\.(weight|bias|running_\w+|num_batches_tracked)$", "", name) for name in names)
    return [line for line in compact(f"{part}." for part in parts).replace(".,", ",").rstrip(".").split(", ") if line]


def load_weights(
    net: nn.Module,
    weights: Weights,
    grid: Size | None = None,
    new: Sequence[str] = (),
    skip: Sequence[str] = (),
    source: str = "",
) -> Loaded:
    """Copy weights under our names into a net.

    Learned positions are resized to its grid, bicubic as timm does; a patch projection to its patch size by
    pseudo-inverse (`resize_patches`) and the first convolution to its channels (`adapt_channels`).

    Args:
        net: filled in place.
        weights: its state dict, or that of a net for other images.
        grid: (rows, columns) of the patches the weights were made for; None assumes a square or the net's own.
        new: parts (``"head"``) that keep their fresh weights, all of them, when what is given does not fit them; of
            parts one inside the other the inner one does where it is all that does not fit.
        skip: parts of what is given that are left out.
        source: where the weights come from, for the account.

    Raises:
        ValueError: missing, misshapen or unknown weights (each is named), or positions that fit no grid. The net is
            as it was then.
    """
    skipped = tuple(name for name in weights if _within(name, skip))
    given, resized = _fitted(net, {name: value for name, value in weights.items() if name not in skipped}, grid)
    wanted = net.state_dict()
    faults = {name: "missing" for name in wanted if name not in given}
    faults |= {name: "unknown" for name in given if name not in wanted}
    faults |= {
        name: f"{tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    }
    fresh = _fresh(faults, wanted, new)
    wrong = [f"{name} ({fault})" for name, fault in faults.items() if not _within(name, fresh)]
    if wrong:
        widest = [part for part in new if not any(_within(part, [other]) for other in new if other != part)]
        allowed = f"; only {', '.join(widest)} may start new" if new else ""
        raise ValueError(f"{source and f'{source}: '}weights do not fit the net: {compact(wrong)}{allowed}")
    fitting = {name: value for name, value in given.items() if not _within(name, fresh)}
    net.load_state_dict(fitting, strict=False)
    resized = {name: how for name, how in resized.items() if name in fitting}
    return Loaded(source, tuple(fitting), resized, skipped, fresh)


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _fresh(faults: Iterable[str], wanted: Mapping[str, Tensor], new: Sequence[str]) -> tuple[str, ...]:
    """The smallest of ``new`` that hold all faults; one that is left with no other weight gives way to its whole."""
    innermost = sorted(new, key=lambda part: -part.count("."))
    found = {next((part for part in innermost if _within(name, [part])), "") for name in faults} - {""}
    inside = {whole: [name for name in wanted if _within(name, [whole])] for whole in new}
    found |= {whole for whole, names in inside.items() if names and all(_within(name, [*found]) for name in names)}
    return tuple(part for part in dict.fromkeys(new) if part in found and not _within(part, [*found - {part}]))


def _fitted(net: nn.Module, weights: Weights, grid: Size | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights with those resized that depend on the size of pictures and patches, and what was done to them."""
    fitted, resized = dict(weights), {}
    for path, module in net.named_modules():
        name = f"{path}.embed"
        if isinstance(module, LearnedPositions) and name in fitted:
            old = Grid(*(grid or _grid_of(fitted[name].shape[1], module.grid)))
            if old.patches != fitted[name].shape[1]:
                raise ValueError(f"{name} has {fitted[name].shape[1]} positions, expected {old.patches} for {grid=}")
            if (old.height, old.width) != module.grid[:2]:
                fitted[name] = resize_positions(fitted[name], old, module.grid)
                resized[name] = f"positions {_by(old[:2])} to {_by(module.grid[:2])}"
    for name, wanted, patches in _first_convolutions(net):
        if name in fitted and fitted[name].dim() == 4:
            fitted[name], how = _fit_convolution(fitted[name], wanted, patches)
            resized |= {name: " and ".join(how)} if how else {}
    return fitted, resized


def _first_convolutions(net: nn.Module) -> Iterator[tuple[str, nn.Conv2d, bool]]:
    """Name of the weight, the convolution, and whether it is a map of patches, of which none shares a pixel."""
    for path, module in net.named_modules():
        if isinstance(module, PatchEmbed):
            yield f"{path}.proj.weight", module.proj, True
        elif isinstance(module, ConvStem):
            yield f"{path}.convolutions.0.weight", cast(nn.Conv2d, module.convolutions[0]), False
    if isinstance(net, CNN):
        stem = f"net.{stem_of(net.name)}"
        yield f"{stem}.weight", cast(nn.Conv2d, net.get_submodule(stem)), False


def _fit_convolution(weight: Tensor, wanted: nn.Conv2d, patches: bool) -> tuple[Tensor, list[str]]:
    how, size = [], (wanted.kernel_size[0], wanted.kernel_size[1])
    if weight.shape[1] != wanted.in_channels:
        how.append(f"channels {weight.shape[1]} to {wanted.in_channels}")
        weight = adapt_channels(weight, wanted.in_channels)
    old = (weight.shape[-2], weight.shape[-1])
    if patches and old != size:
        how.append(f"patches {_by(old)} to {_by(size)}")
        weight = resize_patches(weight, size)
    return weight, how


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _grid_of(count: int, own: Grid) -> Size:
    side = math.isqrt(count)
    candidates = {(side, side)} if side**2 == count else set()
    if count == own.patches:
        candidates.add((own.height, own.width))
    if len(candidates) != 1:
        shapes = " or ".join(f"{rows}x{columns}" for rows, columns in sorted(candidates)) or "no square grid"
        raise ValueError(f"{count} positions are {shapes}: give grid=(rows, columns) of the weights")
    return candidates.pop()
