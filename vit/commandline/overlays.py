"""Config overlays by name: `-c quickstart` is looked up among the packaged configs first, then as a path."""

from pathlib import Path
from typing import Any

import yaml

from vit.names import did_you_mean


def config_folder() -> Path:
    """Where the packaged configs lie: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def packaged_names() -> list[str]:
    """Names `-c` knows, such as ``model/vit_tiny``."""
    folder = config_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def resolve(name: str) -> Path:
    """The file that ``-c name`` means.

    Raises:
        ValueError: neither a packaged config nor a file, not YAML, or not a mapping.
    """
    path = _find(name)
    if path is None:
        near = did_you_mean(name.removesuffix(".yaml"), packaged_names(), most=3, cutoff=0.5)
        known = near or f"; packaged are {', '.join(packaged_names())}"
        raise ValueError(f"no config {name!r}: expected a packaged name or a YAML file{known}")
    _check(path)
    return path


def data_options(text: str) -> dict[str, Any]:
    """Options of `data` that reach what a user names as ``data/NAME``, ``data/NAME=ROOT`` or a place."""
    name, _, root = text.partition("=")
    if name.startswith("data/") and name in packaged_names():
        options = dict(yaml.safe_load(resolve(name).read_text(encoding="utf-8"))["data"])
        return options | ({"root": root} if root else {})
    return {"root": text}


def _find(name: str) -> Path | None:
    packaged = [] if name.startswith((".", "/", "~")) else [config_folder() / name, config_folder() / f"{name}.yaml"]
    given = Path(name).expanduser()
    return next((path for path in (*packaged, given, given.with_name(f"{given.name}.yaml")) if path.is_file()), None)


def _check(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML: it is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" at line {mark.line + 1}"
        raise ValueError(f"{path} is not YAML{line}: {getattr(error, 'problem', None) or 'unreadable'}") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise ValueError(f"{path}: expected options as `key: value`, got {kind}")
