"""What a mechanisms study can vary: packaged overlays by name, so that a new one takes part without being told to."""

from collections.abc import Sequence
from typing import Literal

from vit.commandline.overlays import packaged_names
from vit.names import did_you_mean

Axis = Literal["mixer", "readout", "position", "block"]
FOLDERS: dict[Axis, tuple[str, ...]] = {
    "mixer": ("attention", "mixer"),
    "readout": ("pool",),
    "position": ("position",),
    "block": ("block",),
}
"""Of `configs/`, where each axis finds its overlays."""


def overlays(axis: Axis) -> list[str]:
    """All of an axis, by name."""
    return [name for name in packaged_names() if name.partition("/")[0] in FOLDERS[axis]]


def select(axis: Axis, asked: Sequence[str] | None, reference: str) -> list[str]:
    """The overlays asked for, all where none is, the reference first whether asked for or not.

    Raises:
        ValueError: a name that the axis does not have, or twice.
    """
    known = overlays(axis)
    for name in (reference, *(asked or ())):
        if name not in known:
            hint = did_you_mean(name, known, cutoff=0.4)  # without its folder a name is not very near
            raise ValueError(f"unknown arm {name!r} of --vary {axis}: expected some of {', '.join(known)}{hint}")
    if asked is not None and (not asked or len(set(asked)) < len(asked)):
        raise ValueError(f"expected at least one arm and each once, got {', '.join(asked) or 'none'}")
    return [reference, *(name for name in (asked or known) if name != reference)]
