"""Options that name a place on this machine: what others get to see says what was used, never where it lay."""

import re
from pathlib import Path
from typing import Any

PLACES = ("dirpath", "init_from", "pictures", "root", "save_dir", "subset", "teacher")
"""Whichever part they belong to; a relative path tells of the machine, too."""
FOLDERS = re.compile(r"(?<![\w./:~-])~?/(?:[^\s/:;,'\"()]+/)+")
"""What leads to a file, in a text: an absolute path without its last part."""


def without_places(value: Any, option: str = "") -> Any:
    """A configuration with the last part of every path in it; ``timm:NAME`` is no place.

    Args:
        value: Nested options, or what one of them holds.
        option: The name of it.
    """
    if isinstance(value, dict):
        return {key: without_places(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item, option) for item in value]
    if not isinstance(value, str) or value.startswith("timm:"):
        return value
    return (Path(value).name or value) if option in PLACES or Path(value).is_absolute() else value


def told_without_places(text: str) -> str:
    """A message with the last part of every absolute path in it."""
    return FOLDERS.sub("", text)
