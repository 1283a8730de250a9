"""The command line of a study: its own options, the overlays and options it hands on to every run."""

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from vit.commandline.errors import one_line
from vit.commandline.overlays import resolve

SWITCHES = ("--dry_run", "--retry_failed")
OF_RUNS = {"trainer", "model", "data", "seed_everything"}
"""What the keys of an overlay for ``vit fit``, and its options, begin with."""


class Settings(Protocol):
    """Options of one kind of study: a dataclass, its fields being the options.

    Attributes:
        name: after ``vit study``.
        presets: packaged configs it starts from, on a CPU and on CUDA.
        lists: options that take several values between commas.
    """

    name: ClassVar[str]
    presets: ClassVar[tuple[str, str]]
    lists: ClassVar[tuple[str, ...]]

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From parsed values."""
        ...


Kind = TypeVar("Kind", bound=Settings)


class Options(NamedTuple, Generic[Kind]):
    """Settings of the study; overlays for its runs; options for its runs, as ``--name=value``."""

    settings: Kind
    configs: tuple[str, ...]
    options: tuple[str, ...]


def parse(args: Sequence[str], kind: type[Kind]) -> Options[Kind]:
    """Take the command line of a kind of study apart.

    Raises:
        ValueError: one line for what cannot be.
    """
    studies: list[str] = []
    configs: list[str] = []
    options: list[str] = []
    own: list[str] = []
    rest = deque(args)
    while rest:
        flag, equals, value = rest.popleft().partition("=")
        if flag in ("-h", "--help"):
            own.append("--help")
            continue
        if not flag.startswith("-"):
            raise ValueError(f"unexpected argument {flag!r}: options begin with --, configs follow -c")
        if (switch := f"--{flag.lstrip('-').replace('-', '_')}") in SWITCHES:
            given = value if equals else rest.popleft() if rest and rest[0] in ("true", "false") else "true"
            own.append(f"{switch}={given}")
            continue
        value = value if equals else rest.popleft() if rest and not rest[0].startswith("--") else ""
        if not value:
            raise ValueError(f"{flag} expects a value")
        if flag in ("-c", "--config"):
            (configs if _is_overlay(value) else studies).append(value)
        elif flag.lstrip("-").partition(".")[0] in OF_RUNS:
            options.append(f"{flag}={value}")
        else:
            own.append(f"{switch}={_listed(switch, value, kind)}")
    default = kind.presets[torch.cuda.is_available()]
    return Options(_settings(studies or [default], own, kind), tuple(configs), tuple(options))


def _is_overlay(name: str) -> bool:
    content = yaml.safe_load(resolve(name).read_text(encoding="utf-8"))
    if "net" in ((content.get("model") or {}).get("init_args") or {}):
        raise ValueError(f"-c {name} sets the net of every run, which the arms do: see candidates in study/cpu")
    return content.keys() <= OF_RUNS


def _settings(configs: Sequence[str], own: Sequence[str], kind: type[Kind]) -> Kind:
    cpu, gpu = kind.presets
    parser = ArgumentParser(
        prog=f"vit study {kind.name}",
        usage=f"vit study {kind.name} [-c {cpu}] [--data.root my_photos/] [--out DIR] [options]",
        description=kind.__doc__.partition("\n")[0] if kind.__doc__ else None,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help=f"Study to start from (default: {cpu} or {gpu}).")
    parser.add_class_arguments(kind)
    try:
        parsed = parser.parse_args([*(f"--config={resolve(name)}" for name in configs), *own])
        parsed.pop("config")
        return kind.of(parsed.as_dict())  # not instantiated, which would make objects of what `fit` describes
    except (ArgumentError, ValueError) as error:
        known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
        raise ValueError(one_line(error, known)) from error


def _listed(flag: str, value: str, kind: type[Settings]) -> str:
    """`vit,cnn` and `100,300` as the lists they are."""
    return f"[{value}]" if flag in kind.lists and not value.startswith("[") else value
