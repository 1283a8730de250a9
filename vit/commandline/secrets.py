"""Keys and tokens have no place in a run's folder, which keeps its whole configuration: one found there is refused."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

NAMED = re.compile(
    r"(^|_)(api_?key|access_?key|private_?key|password|passwd|secret|credentials?)$|^(api|access|auth|hf)_?token$"
)
SHAPED = re.compile(r"\b(hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA|wandb_v1_)\w[\w-]{15,}")
SIGNED_IN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
KEPT_IN = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")
SHORTEST = 8  # of a variable's value: a shorter one may be in any text


def refuse(config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Look for secrets in a configuration that will be kept.

    Args:
        config: Nested options, plain values at the ends.
        environment: Variables; the values of those called ..._KEY, ..._TOKEN, ..._SECRET or ..._PASSWORD are secrets.

    Raises:
        ValueError: an option is named like a key, looks like one, or holds one; the message names the option only.
    """
    variables = {name: text for name, text in environment.items() if KEPT_IN.search(name) and len(text) >= SHORTEST}
    for key, text in _texts(config, ""):
        holder = next((name for name, secret in variables.items() if secret in text), None)
        if holder is not None:
            raise ValueError(f"{key} holds the value of {holder}, and a run keeps its options: leave it out")
        if NAMED.search(key.rpartition(".")[2]) or SHAPED.search(text) or SIGNED_IN.search(text):
            raise ValueError(f"{key} looks like a secret, and a run keeps its options: the environment can hold it")


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Dotted names and values of all that is text and not empty."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _texts(item, f"{key}[{place}]")
    elif isinstance(value, str) and value:
        yield key, value
