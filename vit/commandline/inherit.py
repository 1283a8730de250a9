"""A fit that starts from trained weights takes their architecture and prepares pictures as they know them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from vit.commandline.arguments import NET_OPTIONS
from vit.tasks.start import origin, patch_size_of

BY_DATA = ("img_size", "in_chans", "num_classes")
INIT_FROM = ("--model.init_from", "--model.init_args.init_from")
CLASSIFIER = {"class_path": "vit.tasks.classify.Classifier"}
PLAIN = {"class_path": "vit.models.vit.ViT"}
POOLED = {"class_path": "vit.layers.Head", "init_args": {"pool": "vit.layers.MeanPool"}}
"""The head on a backbone that was pretrained without one."""


def inherited(args: list[str]) -> list[str]:
    """The net of ``--model.init_from`` as a config to put before the user's, which may change parts of it.

    None where there is no such option, a net is named, or the weights do not say of what net they are. What was
    pretrained gives its backbone, with a mean-pooling head. The patch size, and the pictures' size, mean and deviation,
    are those of the source.

    Args:
        args: of a fit, configs as ``--config=PATH``.

    Raises:
        ValueError: nothing at ``--model.init_from`` that can be read.
    """
    written = [given for argument in args if argument.startswith("--config=") for given in [_read(argument)]]
    named = any("class_path" in net or isinstance(net, str) for given in written if (net := given.get("net")))
    source = next((given["init_from"] for given in reversed(written) if given.get("init_from")), None)
    for option, value in _options(args):
        named |= option in NET_OPTIONS
        source = value if option in INIT_FROM else source
    found = None if named or source in (None, "null") else origin(str(source))
    if found is None:
        return []
    model = {**CLASSIFIER, "init_args": {"net": _net(found.spec)}}
    data = {"img_size": found.img_size, "mean": found.mean, "std": found.std}
    return [f"--config={json.dumps({'model': model, 'data': data})}"]


def _net(found: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as a config, without what the data decides."""
    args = {name: value for name, value in found["args"].items() if name not in BY_DATA}
    if "backbone" not in args:
        return {"class_path": found["class"], "init_args": _config(args)}
    backbone = _config(args["backbone"])
    backbone["init_args"]["patch_size"] = list(patch_size_of(found["args"]))
    head = _config(args["head"]) if "head" in args else POOLED
    return {**PLAIN, "init_args": {"backbone": backbone, "head": head}}


def _config(value: Any) -> Any:
    if isinstance(value, list):
        return [_config(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "factory" in value:
        return {"class_path": value["factory"], "init_args": _config(value.get("args", {}))}
    return {name: _config(item) for name, item in value.items()}


def _read(argument: str) -> dict[str, Any]:
    """What one config says of the model."""
    content = yaml.safe_load(Path(argument.partition("=")[2]).read_text(encoding="utf-8"))
    model = content.get("model") or {}
    return (model.get("init_args") or {}) if isinstance(model, dict) else {}


def _options(args: list[str]) -> Iterator[tuple[str, str]]:
    """Options with their values, written either way."""
    for argument, following in zip(args, [*args, ""][1:], strict=True):
        option, equals, value = argument.partition("=")
        if option.startswith("--"):
            yield option, value if equals else following
