"""Where options lie, and the short forms of the command line, rewritten to the long ones the parser knows."""

import json

from vit.commandline.overlays import resolve

NET_OPTIONS = ("--model.net", "--model.init_args.net")
NET = "model.init_args.net.init_args"
BACKBONE = f"{NET}.backbone.init_args"
CONFIG_FLAGS = ("-c", "--config")
FLAGS_WITHOUT_VALUE = ("-h", "--help", "--print_config")


def take(args: list[str], *flags: str) -> tuple[list[str | None], list[str]]:
    """Values of ``--flag VALUE`` or ``--flag=VALUE``, None where absent, and the arguments without them.

    Raises:
        ValueError: a flag without a value.
    """
    found: dict[str, str] = {}
    others, rest = [], iter(args)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in flags:
            others.append(argument)
            continue
        given = value if equals else next(rest, None)
        if not given:
            raise ValueError(f"{flag} expects a value")
        found[flag] = given
    return [found.get(flag) for flag in flags], others


def with_configs(args: list[str]) -> tuple[list[str], list[str]]:
    """Arguments with each ``-c NAME`` as ``--config=PATH``, and the paths.

    Raises:
        ValueError: an unknown config, or one that is not YAML.
    """
    expanded, paths, rest = [], [], iter(args)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in CONFIG_FLAGS:
            expanded.append(argument)
            continue
        name = value if equals else next(rest, None)
        if not name:
            raise ValueError(f"{flag} expects the name of a config, for example {flag} quickstart")
        path = str(resolve(name))
        paths.append(path)
        expanded.append(f"--config={path}")
    return expanded, paths


def with_flags(command: str, args: list[str]) -> list[str]:
    """Positional forms in their long form: MODEL as ``--load MODEL``, PICTURES as ``--data.pictures [...]``.

    Raises:
        ValueError: an argument that has no place.
    """
    options, positional = _split(args)
    if command in ("validate", "test", "predict", "probe") and positional and take(args, "--load")[0] == [None]:
        options += ["--load", positional.pop(0)]
    if command == "predict" and positional:
        options.append(f"--data.pictures={json.dumps(positional)}")
        positional = []
    if positional:
        hint = f"; a config goes after -c: vit {command} -c {positional[0]}" if command == "fit" else ""
        raise ValueError(f"unexpected argument {positional[0]!r}{hint}")
    return options


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    """Options with their values, and what stands alone: every option takes one value, apart from a known few."""
    options: list[str] = []
    positional: list[str] = []
    rest = iter(args)
    for argument in rest:
        if not argument.startswith("-"):
            positional.append(argument)
            continue
        options.append(argument)
        if "=" not in argument and argument not in FLAGS_WITHOUT_VALUE:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, positional
