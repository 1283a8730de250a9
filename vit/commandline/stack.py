"""What the configs of one command line say of the net, one after another: none loses a choice of the user silently."""

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vit.commandline.arguments import NET_OPTIONS
from vit.commandline.overlays import config_folder
from vit.models import Pretraining
from vit.tasks.pretrain import Pretrainer

PARTS = ("backbone", "head")


class Said(NamedTuple):
    """What a config, or an option that names a net, says: its own name, None if no user typed it, and the content."""

    name: str | None
    content: Mapping[str, Any]

    @property
    def task(self) -> type | None:
        return _class(self._model.get("class_path"))

    @property
    def names_net(self) -> bool:
        net = self._net
        return isinstance(net, str) or "class_path" in net

    @property
    def net(self) -> type | None:
        """None where it names no class of ours, either."""
        net = self._net
        return _class(net if isinstance(net, str) else net.get("class_path"))

    @property
    def parts(self) -> list[str]:
        """Of the net, that it sets."""
        net = self._net
        given = {} if isinstance(net, str) else net.get("init_args") or {}
        return [part for part in PARTS if part in given]

    @property
    def _model(self) -> Mapping[str, Any]:
        model = self.content.get("model")
        return model if isinstance(model, dict) else {}

    @property
    def _net(self) -> Mapping[str, Any] | str:
        return (self._model.get("init_args") or {}).get("net") or {}


def said(args: Sequence[str]) -> Iterator[Said]:
    """In order, of a command line whose configs are ``--config=PATH`` or ``--config={...}``."""
    for argument, following in zip(args, [*args[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        value = value if equals else following
        if option in NET_OPTIONS:
            yield Said(f"{option} {value}", {"model": {"init_args": {"net": value}}})
        elif option == "--config" and value.startswith("{"):
            yield Said(None, json.loads(value))
        elif option == "--config":
            yield Said(_typed(Path(value)), yaml.safe_load(Path(value).read_text(encoding="utf-8")))


def refuse_disorder(args: Sequence[str]) -> None:
    """Refuse a config that changes or takes over what the net before it does not have.

    Raises:
        ValueError: no net before it, one without that part, one without a backbone to pretrain, or one that was to be
            pretrained.
    """
    before: Said | None = None
    for now in said(args):
        if before is None and now.parts and not now.names_net:
            raise ValueError(
                f"{now.name} changes the {now.parts[0]} of the net before it, and none is: "
                f"-c quickstart or -c model/NAME goes first"
            )
        if before is not None:
            _refuse_missing_part(now, before)
            _refuse_pretraining_in_vain(now, before)
        before = now if now.names_net else before


def refuse_lost(args: Sequence[str], model: Mapping[str, Any]) -> None:
    """Refuse a config of which nothing is left, since a later one chose another class where it set options.

    Args:
        args: as of `said`.
        model: what was parsed.

    Raises:
        ValueError: a config that sets options of the model and nothing else, all of them lost.
    """
    for now in said(args):
        lost = [_lost(path, {"model": model}) for path in _leaves(now.content)]
        if now.name and lost and lost[0] and all(lost):
            raise ValueError(
                f"{now.name} would change nothing: by a config after it {lost[0]}; it goes after that, or is left out"
            )


def _refuse_missing_part(now: Said, before: Said) -> None:
    """A part changed, or taken over by a net that is trained otherwise, that the net before does not have."""
    there = _parts(before.net)
    if there is None:
        return
    owner = f"the {before.net.__name__} of {before.name}" if before.net else ""
    for part in now.parts:
        if not now.names_net and part not in there:
            raise ValueError(
                f"{now.name} changes the {part} of the net before it, and {owner} has none: "
                "expected one that has, such as that of -c model/vit_nano"
            )
    takes_over = now.names_net and _parts(now.net) == ["backbone"] and "backbone" not in now.parts
    if takes_over and "backbone" not in there:
        raise ValueError(
            f"{now.name} takes the backbone of the net before it, and {owner} has none: expected a ViT or a hybrid, "
            "such as -c model/vit_nano, or -c model/conformer_nano for simmim; a CNN can only be trained to classify"
        )


def _refuse_pretraining_in_vain(now: Said, before: Said) -> None:
    pretrained = before.net is not None and issubclass(before.net, Pretraining)
    if pretrained and not now.names_net and now.task is not None and not issubclass(now.task, Pretrainer):
        raise ValueError(
            f"{now.name} after {before.name}: these are two runs, `vit fit ... {before.name} --run RUN` and then "
            f"`vit fit {now.name} --model.init_from RUN ...`"
        )


def _parts(net: type | None) -> list[str] | None:
    """That a net has, None of one that is not ours."""
    return None if net is None else [part for part in PARTS if part in inspect.signature(net).parameters]


def _class(path: Any) -> type | None:
    """A class of ours by its path, or of `vit.models` by its name; jsonargparse says what is wrong with others."""
    module, _, name = str(path).rpartition(".")
    module = module or "vit.models"
    if module.partition(".")[0] != "vit":
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError:
        return None
    return found if inspect.isclass(found) else None


def _leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(content, dict):
        yield path
        return
    for name, value in content.items():
        yield from _leaves(value, (*path, str(name)))


def _lost(path: Sequence[str], parsed: Mapping[str, Any]) -> str | None:
    """Why what was parsed has no such option, though a config set it; None where it has, or where there is no class."""
    node, walked = parsed, list[str]()
    for name in (name for name in path if name != "init_args"):
        if not isinstance(node, dict):
            return None if node is not None else f"{'.'.join(walked)} is null"
        options = {**node, **(node.get("init_args") or {})}
        if name not in options:
            owner = str(node.get("class_path")).rpartition(".")[2]
            return f"{'.'.join(walked)} is a {owner}, which has no {name}" if "class_path" in node else None
        node = options[name]
        walked.append(name)
    return None


def _typed(path: Path) -> str:
    """As the user names a config."""
    folder = config_folder()
    return f"-c {path.relative_to(folder).with_suffix('').as_posix() if path.is_relative_to(folder) else path}"
