"""The command line of ``vit bench``, and the line that is kept of what it measured."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from jsonargparse import ArgumentError, ArgumentParser

from vit.commandline.errors import one_line


class Settings(Protocol):
    """Options of one bench: a dataclass, its fields being the options, ``lists`` those that take several values."""

    lists: ClassVar[tuple[str, ...]]


Kind = TypeVar("Kind", bound=Settings)


def parse(name: str, kind: type[Kind], args: Sequence[str]) -> Kind:
    """Take the command line after ``vit bench NAME`` apart.

    Raises:
        ValueError: one line for what cannot be.
    """
    parser = ArgumentParser(
        prog=f"vit bench {name}",
        description=(kind.__doc__ or "").partition("\n")[0],
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_class_arguments(kind)
    try:
        return kind(**parser.parse_args(_listed(args, kind.lists)).as_dict())
    except (ArgumentError, ValueError) as error:
        known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
        raise ValueError(one_line(error, known)) from error


def append(path: Path, name: str, args: Sequence[str], result: Mapping[str, Any]) -> None:
    """Add a line of JSON: the command without the places of this machine, and the result."""
    words = [word for before, word in zip(["", *args], args, strict=False) if "--out" not in (before, word[:5])]
    kept = {key: value for key, value in result.items() if key != "out"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"command": " ".join(["vit bench", name, *words]), **kept}) + "\n")


def _listed(args: Sequence[str], lists: Sequence[str]) -> list[str]:
    """`--tokens 64,256` as the list it is."""
    joined: list[str] = []
    for word in args:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and not word.startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return [
        f"{name}=[{value}]" if name.lstrip("-") in lists and not value.startswith("[") else word
        for word in joined
        for name, _, value in [word.partition("=")]
    ]
