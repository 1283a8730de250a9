"""What a model's record says of its net, held against it."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vit.data.images import Preprocessing


def checked(meta: dict[str, Any], net: nn.Module, file: Path) -> tuple[tuple[str, ...], Preprocessing]:
    """Classes and preprocessing of the record in ``file``.

    Raises:
        ValueError: they are none, or those of another net.
    """
    wrong = f"{file} is not a model's record"
    args, classes = meta["spec"].get("args", {}), meta["classes"]
    try:
        preprocessing = Preprocessing.from_dict(meta["preprocessing"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{wrong}: preprocessing lacks or misstates {error}") from error
    for name, values, right in (
        ("mean", preprocessing.mean, lambda value: math.isfinite(value)),
        ("std", preprocessing.std, lambda value: 0 < value < math.inf),
    ):
        if not all(isinstance(value, int | float) and right(value) for value in values):
            raise ValueError(f"{wrong}: preprocessing misstates {name}, got {list(values)}")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{wrong}: expected a list of names as classes, got {classes!r}")
    if twice := [name for name in dict.fromkeys(classes) if classes.count(name) > 1]:
        raise ValueError(f"{wrong}: expected each class once, got {', '.join(twice)} more often")
    for name in ("data", "config"):
        if not isinstance(meta.get(name, {}), dict):
            raise ValueError(f"{wrong}: expected {name} by name, got {meta[name]!r}")
    for what, came, needed in (
        ("classes", len(classes), args.get("num_classes", len(classes))),
        ("channels", preprocessing.channels, args.get("in_chans", preprocessing.channels)),
    ):
        if came != needed:
            raise ValueError(f"{wrong}: the net is one of {needed} {what}, got {came}")
    size = preprocessing.img_size
    built_for = args.get("img_size", size)
    if size != ((built_for, built_for) if isinstance(built_for, int) else tuple(built_for)):
        try:
            with torch.inference_mode():
                net(torch.zeros(1, preprocessing.channels, *size))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{wrong}: the net takes no pictures of {size[0]}x{size[1]}: {error}") from error
    return tuple(classes), preprocessing
